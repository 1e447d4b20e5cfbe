"""Counters of one client, exact under threads."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Union

from ..events import AttemptRecord
from . import process

if TYPE_CHECKING:
    from decimal import Decimal

_SECONDS_PER_HOUR = 3600.0


class Metrics:
    """What a client has done since it was made.

    Args:
        clock: seconds, monotonic.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._total = self._successful = self._failed_over = self._unpriced = 0
        self._latency_ms = 0.0
        self._cost_usd: Union[int, Decimal] = 0
        self._endpoints: Dict[str, _EndpointCounters] = {}
        process.register(self)

    def record(
        self, ledger: Sequence[AttemptRecord], latency_ms: float, *, succeeded: bool, cost: Optional[Decimal]
    ) -> None:
        """Count one call, with all its attempts; `cost` is in USD, None where it is not known."""
        with self._lock:
            self._total += 1
            self._latency_ms += latency_ms
            if succeeded:
                self._successful += 1
                self._unpriced += cost is None
            if len(ledger) > 1 and any(record.endpoint != ledger[0].endpoint for record in ledger):
                self._failed_over += 1
            for record in ledger:
                counters = self._endpoints.get(record.endpoint)
                if counters is None:
                    counters = self._endpoints[record.endpoint] = _EndpointCounters()
                counters.add(record)
            if cost is not None:  # only the answer costs, and the last attempt brought it
                self._cost_usd += cost
                self._endpoints[ledger[-1].endpoint].cost_usd += cost

    def read(self) -> Dict[str, Any]:
        """Return everything as one consistent dictionary.

        Times are in milliseconds, costs in USD, rates from 0 to 1 (0 before the first call). `failover_count` is
        the number of calls that left their first endpoint; `unpriced_requests` are successful calls whose cost is
        not known and so not in `total_cost_usd`.
        """
        with self._lock:
            total, successful = self._total, self._successful
            return {
                "total_requests": total,
                "successful_requests": successful,
                "failed_requests": total - successful,
                "failover_count": self._failed_over,
                "success_rate": successful / total if total else 0.0,
                "failover_rate": self._failed_over / total if total else 0.0,
                "average_latency_ms": self._latency_ms / total if total else 0.0,
                "total_cost_usd": float(self._cost_usd),
                "unpriced_requests": self._unpriced,
                "uptime_hours": (self._clock() - self._started) / _SECONDS_PER_HOUR,
                "endpoints": {name: counters.read() for name, counters in self._endpoints.items()},
            }

    def after_fork(self) -> None:
        """Replace the lock in a forked child, and count from nothing: the parent's calls are the parent's."""
        self._lock = threading.Lock()
        self._total = self._successful = self._failed_over = self._unpriced = 0
        self._latency_ms = 0.0
        self._cost_usd = 0
        self._endpoints = {}


class _EndpointCounters:
    """The share of one endpoint; guarded by the metrics' lock."""

    __slots__ = ("attempts", "cost_usd", "latency_ms", "outcomes", "successful")

    def __init__(self) -> None:
        self.attempts = self.successful = 0
        self.latency_ms = 0.0
        self.cost_usd: Union[int, Decimal] = 0
        self.outcomes: Dict[str, int] = {}

    def add(self, record: AttemptRecord) -> None:
        self.attempts += 1
        self.latency_ms += record.latency_ms
        self.outcomes[record.outcome] = self.outcomes.get(record.outcome, 0) + 1
        if record.outcome == "ok":
            self.successful += 1

    def read(self) -> Dict[str, Any]:
        return {
            "total_requests": self.attempts,
            "successful_requests": self.successful,
            "failed_requests": self.attempts - self.successful,
            "success_rate": self.successful / self.attempts,
            "average_latency_ms": self.latency_ms / self.attempts,
            "total_cost_usd": float(self.cost_usd),
            "outcomes": dict(self.outcomes),
        }
