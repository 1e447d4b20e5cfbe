"""What a field may hold: each check returns the value or names field, value and what is allowed."""

from __future__ import annotations

from math import isfinite
from typing import Any, Collection, Optional

from .errors import ConfigurationError

#: Seconds, mostly.
_MOST = 1e8
#: Characters of a text that is shown.
_LONGEST_SHOWN = 200


def reject(field: str, value: object, allowed: str) -> ConfigurationError:
    """Make the error for `field`; the caller raises it, so that the traceback ends where the check is."""
    if isinstance(value, str) and len(value) > _LONGEST_SHOWN:
        value = value[:_LONGEST_SHOWN] + "..."
    kept = value if isinstance(value, (str, int, float, type(None))) else repr(value)  # any error must pickle
    return ConfigurationError(
        f"{field}: {value!r} is not allowed; expected {allowed}", field=field, value=kept
    )


def number(
    field: str,
    value: Any,
    *,
    minimum: float = 0.0,
    above: bool = False,
    maximum: Optional[float] = None,
) -> float:
    """Accept a finite number at least `minimum` (or, with `above`, greater than it) and at most `maximum`."""
    allowed = f"a finite number {'greater than' if above else 'of at least'} {minimum:g}"
    if maximum is not None:
        allowed += f" and at most {maximum:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
        raise reject(field, value, allowed)
    too_low = value <= minimum if above else value < minimum
    if too_low or (maximum is not None and value > maximum):
        raise reject(field, value, allowed)
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False


def positive(field: str, value: Any) -> float:
    """Accept a number greater than 0; in seconds, three years are more than any lock can wait."""
    return number(field, value, above=True, maximum=_MOST)


def optional_positive(field: str, value: Any) -> Optional[float]:
    """Accept None, or a finite number greater than 0."""
    return None if value is None else positive(field, value)


def integer(field: str, value: Any, *, minimum: int = 0) -> int:
    """Accept a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise reject(field, value, f"a whole number of at least {minimum}")
    return value


def one_of(field: str, value: Any, allowed: Collection[str]) -> str:
    """Accept one of the words in `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise reject(field, value, "one of " + ", ".join(repr(word) for word in sorted(allowed)))
    return value


def text(field: str, value: Any) -> str:
    """Accept a string that is neither empty nor only white space."""
    if not isinstance(value, str) or not value.strip():
        raise reject(field, value, "a string that is not empty")
    return value


def true_or_false(field: str, value: Any) -> bool:
    """Accept True or False; what else it is is not shown, for it may be a secret in the wrong place."""
    if not isinstance(value, bool):
        kind = type(value).__name__
        raise ConfigurationError(f"{field}: a {kind} is not allowed; expected True or False", field=field)
    return value
