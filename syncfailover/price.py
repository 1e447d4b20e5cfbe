"""What tokens cost: exact decimals, per million."""

from decimal import Decimal
from typing import Any, Dict, Mapping, NamedTuple

from .validation import number, reject, text


class Price(NamedTuple):
    """USD per million tokens."""

    input: Decimal
    output: Decimal
    cached_input: Decimal


def price_table(prices: Mapping[str, Any]) -> Dict[str, Price]:
    """Read the prices of an endpoint: by model a number, a pair or a mapping; see `Endpoint`.

    Raises:
        ConfigurationError: a price that is none; the message names model, value and what is allowed.

    """
    if not isinstance(prices, Mapping):
        raise reject("prices", prices, "a mapping of model names to prices")
    return {text("prices", model): _price(f"prices[{model!r}]", value) for model, value in prices.items()}


def _price(field: str, value: Any) -> Price:
    allowed = "USD per million tokens: a number, (input, output), or {'input': ..., 'output': ..., 'cached_input': ...}"
    if isinstance(value, Mapping):
        if not {"input", "output"} <= set(value) <= {"input", "output", "cached_input"}:
            raise reject(field, value, allowed)
        given = (value["input"], value["output"], value.get("cached_input", value["input"]))
    elif isinstance(value, (tuple, list)):
        if len(value) not in (2, 3):
            raise reject(field, value, allowed)
        given = (value[0], value[1], value[2] if len(value) == 3 else value[0])
    else:
        given = (value, value, value)
    return Price(*(_usd(field, amount) for amount in given))


def _usd(field: str, amount: Any) -> Decimal:
    """Take a price by its decimal notation, so that 0.42 stays 0.42."""
    if isinstance(amount, Decimal):
        amount = float(amount) if not amount.is_finite() else amount
    if isinstance(amount, Decimal) and amount >= 0:
        return amount
    return Decimal(repr(number(field, amount)))
