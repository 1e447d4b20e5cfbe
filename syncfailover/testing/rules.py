"""What each field of a fault may hold. One name means one thing in every fault, so there is one rule per name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable, Dict, NamedTuple

from .flow import CODINGS
from .wire import as_response


class Rule(NamedTuple):
    """A test for a value, and the words for what passes it."""

    accepts: Callable[[Any], bool]
    allowed: str


def _is_number(value: object) -> bool:
    # bool is an int to Python, and never a duration or a status to a reader
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_body(value: object) -> bool:
    try:
        as_response(200, value)
    except (TypeError, ValueError):
        return False
    return True


def _optional(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.accepts(value), f"{rule.allowed}, or None")


_STATUS = Rule(lambda value: _is_int(value) and 200 <= value <= 599, "an integer from 200 to 599")
_SECONDS = Rule(lambda value: _is_number(value) and value >= 0, "a number of seconds, 0 or more")
_NUMBER = Rule(lambda value: _is_int(value) and value >= 0, "an integer, 0 or more")
_COUNT = Rule(lambda value: _is_int(value) and value >= 1, "an integer, 1 or more")
_STRING = Rule(lambda value: isinstance(value, str), "a string")
_MAPPING = Rule(
    lambda value: hasattr(value, "keys") and _is_body(dict(value)), "a mapping that JSON can hold"
)
_FLAG = Rule(lambda value: isinstance(value, bool), "True or False")
_CUTS = ("content-length", "chunked", "close", "reset")
_NEWLINES = ("\n", "\r\n", "\r")

RULES: Dict[str, Rule] = {
    "after": _NUMBER,
    "body": Rule(_is_body, "bytes, a string, or something that JSON can hold"),
    "bytes_per_write": _COUNT,
    "close": _FLAG,
    "code": _STATUS,
    "coding": Rule(lambda value: value in CODINGS, "one of " + ", ".join(CODINGS)),
    "comments_every_s": _optional(
        Rule(lambda value: _is_number(value) and value > 0, "a number of seconds above 0")
    ),
    "data": Rule(lambda value: isinstance(value, bytes), "bytes"),
    "delay_s": _SECONDS,
    "done": _FLAG,
    "event": _optional(_STRING),
    "extra": _COUNT,
    "finish_reason": _optional(_STRING),
    "first_token_s": _SECONDS,
    "for_s": _optional(_SECONDS),
    "fraction": Rule(lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "headers": _optional(_MAPPING),
    "hold": _FLAG,
    "how": Rule(lambda value: value in _CUTS, "one of " + ", ".join(_CUTS)),
    "interval_s": _SECONDS,
    "location": _STRING,
    "message": _optional(_MAPPING),
    "newline": Rule(lambda value: value in _NEWLINES, "one of " + ", ".join(map(repr, _NEWLINES))),
    "seconds": _optional(_SECONDS),
    "space": _FLAG,
    "status": _STATUS,
    "text": _optional(_STRING),
    "tokens": _optional(_NUMBER),
    "usage": _optional(_MAPPING),
}


def check_fields(fault: Any) -> None:
    """Raise ``ValueError`` naming the first field of a fault that breaks its rule, its value, and what is allowed.

    Fields without a rule, in a fault of somebody's own, are theirs to check.
    """
    for field in dataclasses.fields(fault):
        rule = RULES.get(field.name)
        value = getattr(fault, field.name)
        if rule is not None and not rule.accepts(value):
            raise ValueError(f"{type(fault).__name__}.{field.name}: {value!r} is not {rule.allowed}")
