"""How long things took, as counts in buckets: small, quick to add to, and quantiles within 1 %."""

from __future__ import annotations

from math import exp, log
from typing import Dict

#: Each bucket is 2 % wider than the one before, so that its middle is at most 1 % off.
_STEP = log(1.02)
_PER_STEP = 1.0 / _STEP
#: Added to bucket numbers, so that all are above 0, which stands for what is too short to tell apart.
_OFFSET = 1000
#: Milliseconds; nothing shorter is told apart.
_LEAST_MS = 0.001


class LatencyHistogram:
    """Latencies in milliseconds."""

    __slots__ = ("_buckets", "count", "total_ms")

    def __init__(self) -> None:
        self._buckets: Dict[int, int] = {}
        self.count = 0
        self.total_ms = 0.0

    def add(self, latency_ms: float) -> None:
        """Count one."""
        self.count += 1
        self.total_ms += latency_ms
        bucket = int(log(latency_ms) * _PER_STEP + _OFFSET) if latency_ms > _LEAST_MS else 0
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    @property
    def average_ms(self) -> float:
        """The mean; 0 where nothing was counted."""
        return self.total_ms / self.count if self.count else 0.0

    def quantile_ms(self, quantile: float) -> float:
        """Return the milliseconds that so large a share (0 to 1) stayed below; 0 where nothing was counted."""
        rank = quantile * self.count
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return exp((bucket - _OFFSET + 0.5) * _STEP) if bucket else _LEAST_MS
        return 0.0
