"""The latency that live calls see, remembered the way a balancer needs it: peaks at once, calm slowly."""

from __future__ import annotations

from math import exp
from typing import Optional

#: Seconds after which a past latency counts for a third. (Finagle: PeakEwma decay time)
_DECAY_S = 10.0


class PeakEwma:
    """A moving average that jumps to every new peak and decays exponentially, also while nobody calls.

    Source: Finagle, com.twitter.finagle.loadbalancer.PeakEwma.
    """

    __slots__ = ("_at", "_value_ms")

    def __init__(self) -> None:
        self._value_ms: Optional[float] = None
        self._at = 0.0

    def observe(self, latency_ms: float, now: float) -> None:
        """Take in one latency."""
        old = self._value_ms
        if old is None or latency_ms >= old:
            self._value_ms = latency_ms
        else:
            kept = exp((self._at - now) / _DECAY_S)
            self._value_ms = old * kept + latency_ms * (1.0 - kept)
        self._at = now

    def value_ms(self, now: float) -> Optional[float]:
        """Return milliseconds; None before the first observation."""
        if self._value_ms is None:
            return None
        return self._value_ms * exp((self._at - now) / _DECAY_S) if now > self._at else self._value_ms
