"""What the tests of pool and course share: a pool on a manual clock, and short words for what happens to it."""

from typing import Any, Dict, List, Optional

import pytest

from syncfailover.endpoint import Endpoint
from syncfailover.policy import outcome
from syncfailover.policy.breaker_config import BreakerConfig
from syncfailover.policy.health import HealthConfig, ProbeResult
from syncfailover.policy.node import Attempt
from syncfailover.policy.outcome import SUCCEEDED, Outcome
from syncfailover.policy.pool import EndpointPool
from syncfailover.policy.retry import RetryBudget
from syncfailover.testing import ManualClock


def make_endpoint(name: str, **fields: Any) -> Endpoint:
    """Make an endpoint that is nowhere."""
    return Endpoint(name, "http://127.0.0.1:1/v1", **fields)


class Bench:
    """A pool, its clock, and what a test does to them."""

    def __init__(
        self,
        *endpoints: Any,
        balancer: Any = "round_robin",
        budget: Optional[RetryBudget] = None,
        health: Optional[Dict[str, Any]] = None,
        **breaker: Any,
    ) -> None:
        self.clock = ManualClock(1000.0)
        self.budget = RetryBudget() if budget is None else budget
        self.pool = EndpointPool(
            [make_endpoint(e) if isinstance(e, str) else e for e in endpoints],
            balancer=balancer,
            breaker=BreakerConfig(**breaker),
            health=HealthConfig(**(health or {})),
            budget=self.budget,
            chance=lambda: 0.0,
        )

    def begin(self, model: Optional[str] = None) -> Optional[Attempt]:
        """Choose for a fresh call."""
        return self.pool.begin(self.clock(), model)

    def choose(self, *exclude: str, model: Optional[str] = None, within: Optional[int] = None) -> Any:
        """Choose among those not excluded."""
        return self.pool.choose(self.clock(), model, frozenset(exclude), within)

    def picks(self, times: int, model: Optional[str] = None) -> str:
        """Choose and succeed so often; return the names in one word."""
        names: List[str] = []
        for _ in range(times):
            attempt = self.choose(model=model)
            names.append("-" if attempt is None else attempt.endpoint.name)
            if attempt is not None:
                self.report(attempt)
        return "".join(names)

    def report(self, attempt: Attempt, rule: outcome.Rule = outcome.OK, **said: Any) -> None:
        """Report a result."""
        result = SUCCEEDED if rule is outcome.OK else Outcome(rule, **{"detail": rule.name, **said})
        self.pool.report(attempt, result, self.clock())

    def only(self, name: str, model: Optional[str] = None) -> Attempt:
        """Take an attempt at one endpoint, whoever's turn it is."""
        attempt = self.pool.choose(self.clock(), model, frozenset(self.pool.nodes) - {name})
        assert attempt is not None
        return attempt

    def trip(self, *names: str, model: Optional[str] = None) -> None:
        """Open the breaker of each."""
        for name in names:
            for _ in range(self.pool.nodes[name].breaker.config.failure_threshold):
                self.report(self.only(name, model), outcome.SERVER_ERROR)

    def probe(self, name: str, signs: str, latency_ms: float = 5.0, *, key_refused: bool = False) -> None:
        """Feed probes, + for alive and - for dead."""
        for sign in signs:
            alive = sign == "+"
            seen = "HTTP 401" if key_refused else "HTTP 200" if alive else "refused"
            result = ProbeResult(name, alive, seen, latency_ms if alive else None, None, key_refused)
            self.pool.probed(result, self.clock())

    def breaker(self, name: str) -> str:
        """Tell the state of a breaker."""
        return str(self.pool.nodes[name].breaker.state.name.value)

    def events(self) -> List[Any]:
        """Take the events that came up since the last time, as (name, endpoint)."""
        taken = [(event.name, event.endpoint) for event in self.pool.outbox]
        self.pool.outbox.clear()
        return taken


@pytest.fixture
def bench() -> Any:
    """The class of benches, to make one of names or endpoints."""
    return Bench


@pytest.fixture
def endpoint() -> Any:
    """A function that makes endpoints that are nowhere."""
    return make_endpoint
