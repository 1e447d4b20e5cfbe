"""How long a server asks to be left alone: every form of Retry-After, and nothing that cannot be true."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Mapping, Optional


def retry_after(headers: Mapping[str, str], wall_now: float) -> Optional[float]:
    """Return the seconds to wait, None where the headers name no usable time.

    `retry-after-ms` comes first, then `retry-after` as seconds (fractions too) or as an HTTP date. A date is
    measured against the reply's own `Date`, so that a wrong clock here does no harm. Zero, negative, infinite
    and garbled values are none: urllib3's own parser raises on "1.0" and on "-1".

    Args:
        headers: the reply's headers, with case-insensitive `get`.
        wall_now: Unix time in seconds, used where the reply has no `Date`.

    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is not None or value is None:
        return seconds
    moment = unix_time(value)
    if moment is None:
        return None
    sent = unix_time(headers.get("date"))
    return _usable(moment - (wall_now if sent is None else sent))


def _seconds(value: Optional[str]) -> Optional[float]:
    try:
        return None if value is None else _usable(float(value))
    except ValueError:
        return None


def _usable(seconds: float) -> Optional[float]:
    return seconds if isfinite(seconds) and seconds > 0 else None


def unix_time(value: Optional[str]) -> Optional[float]:
    """Read an HTTP date as Unix seconds; None where it is none."""
    try:
        return None if value is None else parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):  # Python 3.8 raises TypeError on garbage
        return None
