"""How many of the calls of the last seconds failed."""

from __future__ import annotations

from collections import deque


class RateWindow:
    """Successes and failures of the last seconds, in ten buckets."""

    def __init__(self, span_s: float) -> None:
        self._bucket_s = span_s / 10
        self._buckets: deque[list[float]] = deque(maxlen=10)  # [start, calls, failures]

    def add(self, now: float, *, failed: bool) -> None:
        """Count one call."""
        if not self._buckets or now >= self._buckets[-1][0] + self._bucket_s:
            self._buckets.append([now, 0, 0])
        self._buckets[-1][1] += 1
        self._buckets[-1][2] += failed

    def rate(self, now: float, minimum: int) -> float | None:
        """Return the share of failures from 0 to 1; None with fewer than `minimum` calls."""
        recent = [b for b in self._buckets if b[0] > now - 10 * self._bucket_s]
        calls = sum(b[1] for b in recent)
        return sum(b[2] for b in recent) / calls if calls >= minimum else None

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
