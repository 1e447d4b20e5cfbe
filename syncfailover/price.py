"""What tokens cost: exact decimals, per million."""

from decimal import Context, Decimal
from typing import Any, Dict, Mapping, NamedTuple, Tuple

from .validation import number, reject

#: How money is reckoned: the context of the caller's thread may round to six digits, or raise at every rounding.
EXACT = Context(prec=100, traps=[])
#: USD per million tokens; nothing costs a thousand dollars a token.
_MOST_USD = Decimal(10**9)
#: Decimal places, as a power of ten; floats have no more.
_FINEST = -400

_PARTS = frozenset({"input", "output", "cached_input"})
_ALLOWED = "prices by the name of their model, like {'gpt-4.1': 8.0}"


#: Prices are per million tokens: this power of ten.
_MILLION_EXPONENT = 6


class _Amounts(NamedTuple):
    input: Decimal
    output: Decimal
    cached_input: Decimal


class Price(_Amounts):
    """USD per million tokens, and what so many tokens cost.

    For the reckoning the three amounts are whole numbers of a common unit, which is a power of ten: that is exact, and
    quicker than decimals.
    """

    _exponent: int
    _units: Tuple[int, int, int]

    def __init__(self, *amounts: Decimal) -> None:
        exponents = [int(amount.as_tuple().exponent) for amount in amounts]
        lowest = min(exponents)
        input_, output, cached = (int(amount.scaleb(-lowest, EXACT)) for amount in amounts)
        self._units = input_, output, cached
        self._exponent = lowest - _MILLION_EXPONENT

    def usd(self, input_tokens: int, output_tokens: int, cached_input_tokens: int) -> Decimal:
        """Return USD for so many tokens, those of the cache not among the other input."""
        input_, output, cached = self._units
        units = input_tokens * input_ + output_tokens * output
        if cached_input_tokens:
            units += cached_input_tokens * cached
        return Decimal(units).scaleb(self._exponent, EXACT)


def price_table(prices: Mapping[str, Any]) -> Dict[str, Price]:
    """Read the prices of an endpoint: by model a number, a pair or a mapping; see `Endpoint`.

    Raises:
        ConfigurationError: a price that is none; the message names model, value and what is allowed.

    """
    if not isinstance(prices, Mapping):
        raise reject("prices", prices, _ALLOWED)
    if prices and _PARTS.issuperset(prices):  # one price, without the model that it is for
        raise reject("prices", dict(prices), _ALLOWED)
    for model in prices:
        if not isinstance(model, str) or not model.strip():
            raise reject("prices", model, _ALLOWED)
    return {model: _price(f"prices[{model!r}]", value) for model, value in prices.items()}


def _price(field: str, value: Any) -> Price:
    allowed = "USD per million tokens: a number, (input, output), or {'input': ..., 'output': ..., 'cached_input': ...}"
    if isinstance(value, Mapping):
        if not {"input", "output"} <= set(value) <= _PARTS:
            raise reject(field, value, allowed)
        given = (value["input"], value["output"], value.get("cached_input", value["input"]))
    elif isinstance(value, (tuple, list)):
        if len(value) not in (2, 3):
            raise reject(field, value, allowed)
        given = (value[0], value[1], value[2] if len(value) == 3 else value[0])
    elif isinstance(value, (int, float, Decimal)):
        given = (value, value, value)
    else:
        raise reject(field, value, allowed)
    return Price(*(_usd(field, amount) for amount in given))


def _usd(field: str, amount: Any) -> Decimal:
    """Take a price by its decimal notation, so that 0.42 stays 0.42."""
    if isinstance(amount, Decimal) and amount.is_finite() and 0 <= amount <= _MOST_USD:
        if int(amount.as_tuple().exponent) < _FINEST:
            raise reject(field, amount, f"a price of at most {-_FINEST} decimal places")
        return amount
    return Decimal(repr(number(field, amount, maximum=float(_MOST_USD))))
