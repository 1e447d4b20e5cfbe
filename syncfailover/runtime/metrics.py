"""Counters of one client, exact under threads."""

from __future__ import annotations

import threading
from copy import deepcopy
from operator import add
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Tuple, Union

from ..policy.histogram import LatencyHistogram
from ..policy.outcome import ABANDONED, CALLED_OFF, OK
from ..unpickling import reduced
from . import process
from .attempt import Tried
from .rebuilt import Identity, Rebuilt
from .registry import Registry

if TYPE_CHECKING:
    from decimal import Decimal

_SECONDS_PER_HOUR = 3600.0


class Metrics:
    """What a client has done since it was made.

    Args:
        registry: whose endpoints are counted; it brings the clock, and how long each was up.
        identity: that of the original, where these are unpickled.

    """

    def __init__(self, registry: Registry, identity: Optional[Identity] = None) -> None:
        self.registry = registry
        self._identity = Identity() if identity is None else identity
        self._lock = threading.Lock()
        self._add = _adder(registry)
        #: Seconds that each endpoint had been up before.
        self._up_before = registry.uptimes_s()
        self._begin()
        process.register(self)

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle without a count; what is unpickled twice in a process counts, and spends its budget, together."""
        return reduced(Metrics, _unpickled, self._identity.token(), self.registry)

    def __deepcopy__(self, memo: Dict[int, Any]) -> Metrics:
        """Return others that begin from nothing."""
        return Metrics(deepcopy(self.registry, memo))

    def _begin(self) -> None:
        self._started = self.registry.clock()
        # All guarded by _lock.
        self._calls = _Counters()
        self._hedged = 0
        self._endpoints = {endpoint.name: _Counters() for endpoint in self.registry.endpoints}

    def record(self, tries: Sequence[Tried], latency_ms: float, *, succeeded: Optional[bool]) -> None:
        """Count one call, with all its attempts; it has neither succeeded nor failed if the caller abandoned it."""
        total = self._add
        with self._lock:
            calls = self._calls
            calls.add(latency_ms, ABANDONED.name if succeeded is None else OK.name if succeeded else "")
            for tried in tries:
                record, cost = tried.record, tried.cost
                counters = self._endpoints[record.endpoint]
                counters.add(record.latency_ms, record.outcome)
                if cost is not None:
                    counters.cost_usd = total(counters.cost_usd, cost)
                    calls.cost_usd = total(calls.cost_usd, cost)
                elif record.outcome == OK.name and tried.attempt.model is not None:
                    counters.unpriced += 1
                    calls.unpriced += 1
            if len(tries) > 1:
                self._record_moves(tries)

    def _record_moves(self, tries: Sequence[Tried]) -> None:
        """Count the endpoints that failed and were left for another. Hold the lock when calling this."""
        left = [
            tried.record.endpoint
            for tried, following in zip(tries, tries[1:])
            if tried.record.outcome not in CALLED_OFF
            and not tried.attempt.hedge
            and tried.record.endpoint != following.record.endpoint
        ]
        for endpoint in left:
            self._endpoints[endpoint].failed_over += 1
        self._calls.failed_over += bool(left)
        self._hedged += any(tried.attempt.hedge for tried in tries)

    def spent_usd(self) -> Union[int, Decimal]:
        """Return what all attempts together have cost, as far as it is known."""
        return self._calls.cost_usd

    def read(self) -> Dict[str, Any]:
        """Return everything as one consistent dictionary; see `FailoverClient.metrics`."""
        uptimes_s = self.registry.uptimes_s()
        with self._lock:
            uptime_s = self.registry.clock() - self._started
            endpoints: Dict[str, Any] = {}
            for name, counters in self._endpoints.items():
                up_s = min(uptimes_s[name] - self._up_before.get(name, 0.0), uptime_s)
                endpoints[name] = {**counters.read(up_s), "outcomes": dict(counters.outcomes)}
            calls = self._calls.read(uptime_s)
            return {**calls, "hedged_requests": self._hedged, "endpoints": endpoints}

    def after_fork(self) -> None:
        """Replace the lock in a forked child, and count from nothing: the parent's calls are the parent's."""
        self._lock = threading.Lock()
        self._up_before = {}  # the registry counts from the fork, too
        self._begin()


def _adder(registry: Registry) -> Callable[[Any, Any], Any]:
    """Return what adds costs; where nobody has prices there are none, and decimal need not be loaded."""
    if not any(endpoint.prices for endpoint in registry.endpoints):
        return add
    from ..price import EXACT  # noqa: PLC0415

    return EXACT.add


_rebuilt: Rebuilt[Metrics] = Rebuilt()


def _unpickled(token: str, registry: Registry) -> Metrics:
    return _rebuilt.get(token, lambda: Metrics(registry, Identity(token)))


class _Counters:
    """Calls of a client, or attempts at one endpoint; guarded by the metrics' lock."""

    __slots__ = ("cost_usd", "failed_over", "latency", "outcomes", "unpriced")

    def __init__(self) -> None:
        self.failed_over = 0
        self.latency = LatencyHistogram()
        self.cost_usd: Union[int, Decimal] = 0
        self.outcomes: Dict[str, int] = {}
        self.unpriced = 0

    def add(self, latency_ms: float, outcome: str) -> None:
        self.latency.add(latency_ms)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def read(self, uptime_s: float) -> Dict[str, Any]:
        total, latency = self.latency.count, self.latency
        successful = self.outcomes.get(OK.name, 0)
        called_off = sum(self.outcomes.get(name, 0) for name in CALLED_OFF)
        return {
            "total_requests": total,
            "successful_requests": successful,
            "failed_requests": total - successful - called_off,
            "failover_count": self.failed_over,
            "success_rate": successful / total if total else 0.0,
            "failover_rate": self.failed_over / total if total else 0.0,
            "average_latency_ms": latency.average_ms,
            "p50_latency_ms": latency.quantile_ms(0.50),
            "p95_latency_ms": latency.quantile_ms(0.95),
            "p99_latency_ms": latency.quantile_ms(0.99),
            "total_cost_usd": float(self.cost_usd),
            "unpriced_requests": self.unpriced,
            "uptime_hours": uptime_s / _SECONDS_PER_HOUR,
        }
