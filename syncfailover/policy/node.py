"""What a pool knows of one endpoint, and the permit to ask it once."""

from __future__ import annotations

from typing import Any, Callable, Optional

from ..endpoint import Endpoint
from .breaker import BreakerMachine, BreakerState, Grant
from .breaker_config import BreakerConfig
from .health import Health, HealthConfig, HealthStatus, slow_start
from .latency import PeakEwma
from .snapshot import EndpointState

_NEVER = float("-inf")


class Node:
    """The mutable side of one endpoint; its owner's lock guards it."""

    __slots__ = (
        "answered_ms",
        "breaker",
        "down_s",
        "down_since",
        "endpoint",
        "health",
        "in_flight",
        "key_found_at",
        "key_rests_since",
        "key_rests_until",
        "last_success",
        "latency",
        "name",
        "priority",
        "proved_at",
        "recovered_at",
        "rest_reason",
        "rested_by_probe",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        breaker: BreakerConfig,
        health: HealthConfig,
        chance: Callable[[], float],
    ) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self.priority = endpoint.priority
        self.breaker = BreakerMachine(breaker, chance)
        self.health = Health(health, endpoint.max_latency_ms)
        self.latency = PeakEwma()
        self.in_flight = 0
        #: Since when it is down, and for how many seconds it was before.
        self.down_since: Optional[float] = None
        self.down_s = 0.0
        self.last_success: Optional[float] = None
        #: When the latest call began that was answered.
        self.proved_at = _NEVER
        #: Milliseconds of the last call that was answered.
        self.answered_ms: Optional[float] = None
        self.recovered_at: Optional[float] = None
        #: 0 where the key does not rest.
        self.key_rests_until = 0.0
        self.key_rests_since = 0.0
        self.rested_by_probe = False
        self.rest_reason = ""
        #: When it was found out here that the key rests, or may be used; None on a peer's word or an operator's order.
        self.key_found_at: Optional[float] = None

    def busy(self) -> bool:
        """Tell whether its bulkhead is full."""
        limit = self.endpoint.max_concurrency
        return limit is not None and self.in_flight >= limit

    def up(self, now: float) -> bool:
        """Tell whether health and breaker, the two flags, both let a call pass."""
        return self.health.status is not HealthStatus.UNHEALTHY and self.breaker.admits(now)

    def sound(self) -> bool:
        """Tell whether neither flag says that it is down; one on trial is still down."""
        closed = self.breaker.state.name in (BreakerState.CLOSED, BreakerState.DISABLED)
        return closed and self.health.status is not HealthStatus.UNHEALTHY

    def note_soundness(self, now: float) -> None:
        """Keep the account of how long it was down."""
        if self.sound():
            if self.down_since is not None:
                self.down_s += now - self.down_since
                self.down_since = None
        elif self.down_since is None:
            self.down_since = now

    def downtime_s(self, now: float) -> float:
        """Return for how many seconds it was down in all."""
        return self.down_s + (0.0 if self.down_since is None else now - self.down_since)

    def forget_downtime(self, now: float) -> None:
        """Begin the account anew."""
        self.down_s = 0.0
        self.down_since = None if self.down_since is None else now

    def open_to_calls(self, now: float) -> bool:
        """Tell whether it may be asked for some model, as soon as it is not busy."""
        return self.endpoint.weight > 0 and now >= self.key_rests_until and self.up(now)

    def usable(self, now: float) -> bool:
        """Tell whether it may be asked for some model."""
        return self.open_to_calls(now) and not self.busy()

    def weight(self, now: float) -> float:
        """Return the weight it has now, which grows back over the seconds after a recovery."""
        return self.endpoint.weight * slow_start(self.recovered_at, now)

    def rest_key(self, now: float, seconds: float, reason: str, *, by_probe: bool) -> None:
        """Let the key rest for so long."""
        self.key_rests_since = self.key_found_at = now
        self.key_rests_until = max(self.key_rests_until, now + seconds)
        self.rested_by_probe = by_probe
        self.rest_reason = reason

    def end_key_rest(self, started: float, now: float) -> bool:
        """Use the key again: it has answered a call begun since it rests; tell whether that is so."""
        if not self.key_rests_until or started < self.key_rests_since:
            return False
        self.use_key(now)
        return True

    def use_key(self, found_at: Optional[float]) -> None:
        """Let the key rest no more; found out here at that time, or None."""
        self.key_rests_until, self.rested_by_probe, self.key_found_at = 0.0, False, found_at

    def heard_at(self, since: Optional[float]) -> Optional[float]:
        """Return when a probe or a call last told something of it; `since` where none did, None for never probed."""
        if since is None and self.health.checked_at is None:
            return None
        heard = [at for at in (self.health.checked_at, self.last_success) if at is not None]
        return max(heard, default=since)

    def is_fresh(self) -> bool:
        """Tell whether it was not asked anything yet."""
        return self.last_success is None and not self.in_flight and not self.breaker.failing_since

    def reopens_at(self, now: float) -> Optional[float]:
        """Return when it may be asked again as far as it is known, None where no time is set."""
        breaker_at = self.breaker.next_try_at(now)
        return None if breaker_at is None else max(breaker_at, self.key_rests_until, now)

    def state(self, now: float) -> EndpointState:
        """Describe it for a snapshot."""
        eligible = self.usable(now)
        retry_at = None if eligible else self.reopens_at(now)
        probed = self.health.latency_ms
        return EndpointState(
            self.name,
            self.health.status,
            self.breaker.state.name,
            probed if probed is not None else self.answered_ms,
            self.in_flight,
            self._reason(now),
            retry_at if retry_at is not None and retry_at > now else None,
            self.priority,
            eligible,
        )

    def _reason(self, now: float) -> str:
        if self.endpoint.weight <= 0:
            return "drained (weight 0)"
        state = self.breaker.state.name
        if state in (BreakerState.OPEN, BreakerState.FORCED_OPEN, BreakerState.HALF_OPEN):
            return self.breaker.last_failure or f"breaker {state.value}"
        if now < self.key_rests_until:
            return f"key rests: {self.rest_reason}"
        if self.busy():
            return f"busy ({self.in_flight} in flight)"
        return self.health.detail


class Candidate:
    """A node as a balancer sees it, for one model."""

    __slots__ = ("_now", "endpoint", "model", "node", "weight")

    def __init__(self, node: Node, model: Optional[str], weight: float, now: Callable[[], float]) -> None:
        self.node = node
        self.endpoint = node.endpoint
        self.model = model
        #: The endpoint's weight, reduced while it starts slowly.
        self.weight = weight
        self._now = now

    def __repr__(self) -> str:
        return f"<Candidate {self.endpoint.name} weight={self.weight:g} in_flight={self.in_flight}>"

    @property
    def latency_ms(self) -> Optional[float]:
        """Peak-EWMA latency of live calls in milliseconds; None before the first reply."""
        return self.node.latency.value_ms(self._now())

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self.node.in_flight


class Attempt:
    """The permit to ask one endpoint once; it is settled by the first report, later ones mean nothing."""

    __slots__ = (
        "aborted",
        "affinity",
        "alternatives",
        "call_left_s",
        "clock",
        "content_s",
        "endpoint",
        "grant",
        "hedge",
        "model",
        "node",
        "race",
        "repeatable",
        "settled",
        "started",
        "streams",
        "timeout_s",
    )

    def __init__(
        self,
        node: Node,
        grant: Grant,
        model: Optional[str],
        started: float,
        alternatives: int,
        affinity: Any = None,
    ) -> None:
        self.node = node
        self.endpoint = node.endpoint
        self.grant = grant
        #: The caller's name for the model.
        self.model = model
        self.started = started
        #: How many other endpoints could be asked instead.
        self.alternatives = alternatives
        #: Seconds that the attempt may take; an error counts as at least this slow.
        self.timeout_s = 0.0
        #: Whether the reply will be taken as a stream.
        self.streams = False
        #: Seconds until the first content of a stream.
        self.content_s = 0.0
        #: Seconds that the whole call has left when the attempt begins: what a streamed body may use.
        self.call_left_s = 0.0
        #: Whether the request may be sent again where its fate is unknown.
        self.repeatable = True
        #: The conversation that moves to this endpoint if it answers; None for none.
        self.affinity = affinity
        #: The race that it takes part in; None where it runs alone.
        self.race: Any = None
        #: Whether it was made beside another one that was late.
        self.hedge = False
        #: What times it, and can cut it off; None before it is sent.
        self.clock: Any = None
        #: Whether it was called off.
        self.aborted = False
        self.settled = False

    def abort(self) -> None:
        """Call it off, from another thread: its connection is closed, if it has one by then."""
        self.aborted = True  # whoever attaches a clock later sees this
        if self.clock is not None:
            self.clock.abort()

    def __repr__(self) -> str:
        return f"<Attempt {self.endpoint.name} model={self.model} generation={self.grant.generation}>"
