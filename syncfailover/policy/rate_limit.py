"""What a provider still allows, by its own headers: how much is left, and when it is full again.

The headers are `x-ratelimit-limit-*`, `x-ratelimit-remaining-*` and `x-ratelimit-reset-*` for `requests` and for
`tokens`. A reset is written as a duration ("1s", "6m0s", "20ms"), as seconds, as a Unix time or as a date. What is
garbled or absent says nothing.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from math import isfinite
from typing import Mapping, NamedTuple, Optional

from .retry_after import unix_time

#: Below this share of a limit little is left: other processes and calls under way use it, too.
_LITTLE = 0.05
#: Requests that are left for certain only if nobody else asks at this moment.
_LAST = 1
#: Seconds for which little is left where no header says it, and at most.
_DEFAULT_S, _LONGEST_S = 1.0, 3600.0
#: Numbers beyond it are no seconds but a moment, in Unix seconds or (a thousand times that) milliseconds.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12
#: Characters; no number or time is longer, and a long one is work to read.
_LONGEST_TEXT = 64

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
#: Go writes nanoseconds; `fromisoformat` before Python 3.11 reads three or six digits only.
_FRACTION = re.compile(r"\.\d+")


class Room(NamedTuple):
    """What is left at one endpoint for one model."""

    #: Calls like this one, by requests or by tokens, whichever is less; None where it is not said.
    calls: Optional[float]
    #: Whether less than a twentieth of the requests or tokens allowed is left, or less than a call needs.
    little: bool
    #: Seconds until it is full again.
    reset_s: float

    def is_scarce(self, in_flight: int) -> bool:
        """Tell whether one more call may be refused, those under way having taken what is theirs."""
        return self.little or (self.calls is not None and self.calls <= in_flight + _LAST)

    def has_less_than(self, other: Room) -> bool:
        """Tell whether it leaves fewer calls."""
        return self.calls is not None and (other.calls is None or self.calls < other.calls)


class _Kind(NamedTuple):
    """Requests or tokens."""

    calls: float
    little: bool
    reset: Optional[str]


def says_room(headers: Mapping[str, str]) -> bool:
    """Tell whether a reply says anything of what is left; most do not."""
    return "x-ratelimit-remaining-requests" in headers or "x-ratelimit-remaining-tokens" in headers


def room(headers: Mapping[str, str], wall_now: float, call_tokens: float = 0.0) -> Optional[Room]:
    """Read the headers of a reply; None where they say nothing of what is left.

    Args:
        headers: with case-insensitive look-up.
        wall_now: Unix time in seconds, for a reset that is a moment.
        call_tokens: what this call used; the next one may need as many.

    """
    both = (_kind(headers, "requests", 1.0), _kind(headers, "tokens", call_tokens))
    kinds = [kind for kind in both if kind is not None]
    if not kinds:
        return None
    scarcest = min(kinds, key=lambda kind: kind.calls)
    little = [kind for kind in kinds if kind.little]
    reset_s = max(_reset_s(kind.reset, wall_now) for kind in little or (scarcest,))
    calls = scarcest.calls if isfinite(scarcest.calls) else None
    return Room(calls, bool(little), min(reset_s, _LONGEST_S))


def _kind(headers: Mapping[str, str], kind: str, needed: float) -> Optional[_Kind]:
    left = _number(headers.get(f"x-ratelimit-remaining-{kind}"))
    if left is None:
        return None
    limit = _number(headers.get(f"x-ratelimit-limit-{kind}"))
    little = left <= 0 or left < needed or (limit is not None and left < _LITTLE * limit)
    calls = left / needed if needed > 0 else float("inf")
    return _Kind(calls, little, headers.get(f"x-ratelimit-reset-{kind}"))


def _reset_s(value: Optional[str], wall_now: float) -> float:
    """Return seconds from now; the default where the header says nothing usable."""
    if value is None or len(value) > _LONGEST_TEXT:
        return _DEFAULT_S
    seconds = _number(value)
    if seconds is not None and seconds >= _EPOCH_S:
        seconds = (seconds / 1000.0 if seconds >= _EPOCH_MS else seconds) - wall_now
    if seconds is None:
        seconds = _duration_s(value.strip())
    if seconds is None:
        moment = _moment(value.strip())
        seconds = None if moment is None else moment - wall_now
    return seconds if seconds is not None and seconds > 0 else _DEFAULT_S


def _duration_s(value: str) -> Optional[float]:
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def _moment(value: str) -> Optional[float]:
    """Return Unix seconds; a date without a zone is in UTC, as all that providers send."""
    try:
        date = datetime.fromisoformat(_FRACTION.sub("", value).replace("Z", "+00:00"))
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError, OSError):
        return unix_time(value)


def _number(value: Optional[str]) -> Optional[float]:
    if value is None or len(value) > _LONGEST_TEXT:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None
