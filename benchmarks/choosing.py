"""What choosing an endpoint costs: acquire and report, for every balancer, with few endpoints and with many."""

import time

from upstream import MODEL

from syncfailover import Endpoint, EndpointRegistry, ProbeResult
from syncfailover.policy.balancer import BALANCERS
from syncfailover.policy.outcome import SUCCEEDED

FEW, MANY = 3, 1000
YARDSTICK = "yardstick"
#: Calls per block.
CALLS = 500


class _Counter:
    def __init__(self):
        self.seen = {}

    def add(self, key):
        self.seen[key] = self.seen.get(key, 0) + 1


def yardstick():
    """Return the microseconds of a fixed piece of plain Python: 10 method calls that count in a dictionary."""
    counter = _Counter()
    began = time.perf_counter()
    for _ in range(CALLS):
        for key in range(10):
            counter.add(key)
    return ((time.perf_counter() - began) / CALLS * 1e6,) * 2


class Case:
    """One balancer over so many healthy endpoints."""

    def __init__(self, balancer, count, *, weights):
        self._registry = EndpointRegistry(
            [
                Endpoint(
                    f"e{n}",
                    f"http://127.0.0.1:{n + 1}/v1",
                    weight=weights(n, count),
                    prices={MODEL: 1 + n % 7},
                )
                for n in range(count)
            ],
            balancer=balancer,
        )

    def measure(self):
        """Return the microseconds of one choice and its report: as the failover loop does it, and by `acquire()`."""
        for endpoint in self._registry.endpoints:  # what the monitor would tell
            self._registry.probed(ProbeResult(endpoint.name, alive=True, latency_ms=5.0, detail="HTTP 200"))
        return self._by_begin(), self._by_acquire()

    def _by_begin(self):
        registry, clock = self._registry, self._registry.clock
        began = time.perf_counter()
        for _ in range(CALLS):
            registry.report(registry.begin(clock(), MODEL), SUCCEEDED)
        return (time.perf_counter() - began) / CALLS * 1e6

    def _by_acquire(self):
        registry = self._registry
        began = time.perf_counter()
        for _ in range(CALLS):
            registry.report(registry.acquire(model=MODEL), SUCCEEDED)
        return (time.perf_counter() - began) / CALLS * 1e6


def _usual(n, _count):
    return 1 + n % 3


def _falling(n, count):
    return count - n


def cases():
    """Return (balancer, number of endpoints) -> a function that measures it."""
    kinds = {name: (name, _usual) for name in sorted(BALANCERS)}
    kinds["weighted, no two weights equal"] = ("weighted", _falling)  # what `from_keys` makes
    found = {(YARDSTICK, 0): yardstick}
    for label, (balancer, weights) in kinds.items():
        for count in (FEW, MANY):
            found[label, count] = Case(balancer, count, weights=weights).measure
    return found
