"""What a provider still allows, by its own headers: how much is left, and when it is full again.

The headers are `x-ratelimit-limit-*`, `x-ratelimit-remaining-*` and `x-ratelimit-reset-*` for `requests` and for
`tokens`. A reset is written as a duration ("1s", "6m0s", "20ms"), as seconds, as a Unix time or as a date. What is
garbled or absent says nothing.
"""

from __future__ import annotations

import re
from datetime import datetime
from math import isfinite
from typing import Mapping, NamedTuple, Optional

#: Below this share of a limit little is left: other processes and calls under way use it, too.
_LITTLE = 0.05
#: Requests that are left for certain only if nobody else asks at this moment.
_LAST = 1
#: Seconds for which little is left where no header says it, and at most.
_DEFAULT_S, _LONGEST_S = 1.0, 3600.0
#: Numbers beyond it are no seconds but a moment, in Unix seconds or (a thousand times that) milliseconds.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Room(NamedTuple):
    """What is left at one endpoint for one model."""

    #: Requests; None where it is not said.
    requests: Optional[float]
    #: Whether less than a twentieth of the requests or tokens allowed is left, or less than a call needs.
    little: bool
    #: Seconds until it is full again.
    reset_s: float

    def is_scarce(self, in_flight: int) -> bool:
        """Tell whether one more call may be refused, those under way having taken what is theirs."""
        return self.little or (self.requests is not None and self.requests <= in_flight + _LAST)


def room(headers: Mapping[str, str], wall_now: float, call_tokens: float = 0.0) -> Optional[Room]:
    """Read the headers of a reply; None where they say nothing of what is left.

    Args:
        headers: with case-insensitive look-up.
        wall_now: Unix time in seconds, for a reset that is a moment.
        call_tokens: what this call used; the next one may need as many.

    """
    if "x-ratelimit-remaining-requests" not in headers and "x-ratelimit-remaining-tokens" not in headers:
        return None
    requests, tokens = _left(headers, "requests"), _left(headers, "tokens")
    if requests is None and tokens is None:
        return None
    left_and_least = (("requests", requests, 1.0), ("tokens", tokens, call_tokens))
    kinds = [kind for kind, left, least in left_and_least if _is_little(headers, kind, left, least)]
    waits = [_reset_s(headers.get(f"x-ratelimit-reset-{kind}"), wall_now) for kind in kinds or ("requests",)]
    return Room(requests, bool(kinds), min(max(waits), _LONGEST_S))


def _left(headers: Mapping[str, str], kind: str) -> Optional[float]:
    return _number(headers.get(f"x-ratelimit-remaining-{kind}"))


def _is_little(headers: Mapping[str, str], kind: str, left: Optional[float], least: float) -> bool:
    limit = _number(headers.get(f"x-ratelimit-limit-{kind}"))
    return left is not None and (left <= 0 or left < least or (limit is not None and left < _LITTLE * limit))


def _reset_s(value: Optional[str], wall_now: float) -> float:
    """Return seconds from now; the default where the header says nothing usable."""
    if value is None:
        return _DEFAULT_S
    seconds = _number(value)
    if seconds is None:
        seconds = _duration_s(value.strip())
    if seconds is None:
        seconds = _moment(value.strip())
    if seconds is None:
        return _DEFAULT_S
    if seconds >= _EPOCH_MS:
        seconds /= 1000.0
    if seconds >= _EPOCH_S:
        seconds -= wall_now
    return seconds if seconds > 0 else _DEFAULT_S


def _duration_s(value: str) -> Optional[float]:
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def _moment(value: str) -> Optional[float]:
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _number(value: Optional[str]) -> Optional[float]:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and isfinite(number) and number >= 0 else None
