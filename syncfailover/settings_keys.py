"""What settings may say: every known key with its kind of value, and how an error about one reads.

The tables are explicit, for the settings lie below the client; a test compares them with the signatures.
"""

from __future__ import annotations

from datetime import date, time
from typing import Any, Collection, Dict, Mapping, Tuple

from .errors import ConfigurationError
from .validation import reject

NUMBER = "a number"
WHOLE = "a whole number"
TEXT = "a string"
LIST = "a list"
YES_OR_NO = "true or false"
NUMBER_OR_TEXT = "a number or a string"
NUMBER_OR_TABLE = "a number or a table"
WHOLE_OR_TABLE = "a whole number or a table"

#: Every keyword of `FailoverClient`, and of `EndpointRegistry` behind it, that TOML can hold.
OPTIONS: Dict[str, str] = {
    "model": TEXT,
    "balancer": TEXT,
    "timeout": NUMBER_OR_TABLE,
    "max_retries": WHOLE_OR_TABLE,
    "queue_timeout": NUMBER,
    "queue_size": WHOLE,
    "hedge_after": NUMBER_OR_TEXT,
    "budget_usd": NUMBER,
    "probe_interval": NUMBER,
    "probe_timeout": NUMBER,
    "probe_when": TEXT,
    "failure_threshold": WHOLE,
    "recovery_timeout": NUMBER,
    "recovery_backoff": NUMBER,
    "max_recovery_timeout": NUMBER,
    "half_open_permits": WHOLE,
    "half_open_lease": NUMBER,
    "failure_rate": NUMBER,
    "failure_rate_window": NUMBER,
    "minimum_calls": WHOLE,
    "state": TEXT,
    "rise": WHOLE,
    "fall": WHOLE,
}
#: The keywords of `FailoverRetry` that mean something here; from `connect` on they are urllib3's.
RETRY_KEYS: Dict[str, str] = {
    "total": WHOLE,
    "ambiguous": TEXT,
    "backoff_base_s": NUMBER,
    "backoff_cap_s": NUMBER,
    "quick_retry_after_s": NUMBER,
    "retry_after_limit_s": NUMBER,
    "connect": WHOLE,
    "read": WHOLE,
    "status": WHOLE,
    "status_forcelist": LIST,
    "allowed_methods": LIST,
    "respect_retry_after_header": YES_OR_NO,
}
PRICE_KEYS = ("input", "output", "cached_input")

_TYPES: Dict[str, Tuple[type, ...]] = {
    NUMBER: (int, float),
    WHOLE: (int,),
    TEXT: (str,),
    LIST: (list, tuple, set, frozenset),
    YES_OR_NO: (bool,),
    NUMBER_OR_TEXT: (int, float, str),
    NUMBER_OR_TABLE: (int, float, Mapping),
    WHOLE_OR_TABLE: (int, Mapping),
}
#: What TOML can hold. Anything else in a mapping (a balancer, `Timeouts`) is for the client to judge.
_TOML_TYPES = (str, bool, int, float, list, Mapping, date, time)


def check_known(table: Mapping[Any, Any], known: Collection[str], where: str = "") -> None:
    """Refuse a key that is not known, and suggest the nearest one that is."""
    for key in table:
        if key not in known:
            field = inside(where, str(key))
            raise ConfigurationError(
                f"{field}: is not known; {hint(key, known)}", field=field, value=str(key)
            )


def hint(word: object, known: Collection[str]) -> str:
    """Say which known word was meant, or list them all."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    by_lower = {name.lower(): name for name in known}
    nearest = get_close_matches(str(word).lower(), by_lower, 1)
    if nearest:
        return f"did you mean {by_lower[nearest[0]]!r}?"
    return "expected one of " + ", ".join(repr(name) for name in known)


def check_kind(field: str, value: Any, kind: str) -> None:
    """Refuse a value of another kind than `field` takes."""
    right = isinstance(value, _TYPES[kind]) and (kind == YES_OR_NO or not isinstance(value, bool))
    if not right and isinstance(value, _TOML_TYPES):
        raise reject(field, value, kind)


def inside(where: str, field: str) -> str:
    """Return the path of a field in a table that is at `where` itself."""
    return f"{where}.{field}" if where else field


def placed(error: ConfigurationError, where: str, *, hidden: bool = False) -> ConfigurationError:
    """Return an error about a field as one about the field in the table at `where`.

    Args:
        error: as raised by whoever checked the field, in the form of `validation.reject`.
        where: the path of the table.
        hidden: whether the value, or a part of it, came from the environment, so that it may be a secret.

    """
    field = error.field or where
    if not field.startswith(where):
        field = inside(where, field)
    message = error.message
    if error.field and message.startswith(error.field):
        message = message[len(error.field) :].lstrip(": ")
    if not hidden or error.value is None:  # a message without a value shows none
        return ConfigurationError(f"{field}: {message}", field=field, value=error.value)
    allowed = message.rpartition("; expected ")[2]
    return ConfigurationError(
        f"{field}: what it holds (from the environment, so not shown) is not allowed; expected {allowed}",
        field=field,
    )
