"""The failover loop: one loop, one deadline, any transport.

`run` knows no HTTP library. A `Door` sends one attempt and brings back what came; the course of the call, in
`policy/course.py`, says what to do next; the registry learns from every result. What it returns says how the call
ended: the door that began it turns that into a reply or raises.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple, Type

from ..errors import (
    AllEndpointsFailed,
    DeadlineExceeded,
    FailoverError,
    RequestRejected,
)
from ..events import AttemptRecord, Event
from ..policy.course import ANSWERED, OUT_OF_TIME, UNAVAILABLE, Course, Pause, Step, Stop
from ..policy.node import Attempt
from ..policy.outcome import SUCCEEDED, Outcome, classify
from ..policy.pricing import cost_usd
from ..policy.received import Received
from ..policy.retry import FailoverRetry
from ..validation import optional_positive, positive
from .metrics import Metrics
from .registry import Registry

if TYPE_CHECKING:
    from decimal import Decimal


class Timeouts(NamedTuple):
    """How long things may take, all in seconds of wall clock.

    `total` bounds the whole call: all attempts, waits and the stream together. `connect` bounds finding and opening a
    connection. `read` bounds one attempt from sending to the complete reply (for a stream: to its headers); with None
    an attempt may use half of what is left while another endpoint could still be tried, and all of it otherwise.
    `first_token` and `stall` time the content of streams.
    """

    total: float = 30.0
    connect: float = 3.0
    read: Optional[float] = None
    first_token: Optional[float] = None
    stall: Optional[float] = None

    @classmethod
    def from_value(cls, value: Any) -> Timeouts:
        """Make one of a number (the total), or check one that is made already.

        Raises:
            ConfigurationError: a time that is not a finite number greater than 0.

        """
        return cls().changed(value)

    def changed(self, value: Any) -> Timeouts:
        """Return these with another total, with another (connect, read) as in requests, or others altogether."""
        if isinstance(value, Timeouts):
            chosen = value
        elif isinstance(value, tuple) and len(value) == 2:
            chosen = self._replace(connect=self.connect if value[0] is None else value[0], read=value[1])
        else:
            return self._replace(total=positive("timeout", value))
        positive("timeout.total", chosen.total)
        positive("timeout.connect", chosen.connect)
        for field in ("read", "first_token", "stall"):
            optional_positive(f"timeout.{field}", getattr(chosen, field))
        return chosen


class Door(Protocol):
    """How one attempt is made: over requests, over httpx, or over a script in a test."""

    def send(self, attempt: Attempt, connect_s: float) -> Received:
        """Send to the attempt's endpoint, within its `timeout_s` seconds, and describe what came back.

        Faults of the wire are described, not raised; what is raised ends the call.
        """


class Call:
    """What the loop needs to know of a call, apart from its bytes."""

    __slots__ = ("expects", "method", "model", "retry", "timeouts")

    def __init__(
        self,
        model: Optional[str],
        expects: Optional[str],
        retry: FailoverRetry,
        timeouts: Timeouts,
        method: str = "POST",
    ) -> None:
        self.model = model
        #: See `classify`.
        self.expects = expects
        self.retry = retry
        self.timeouts = timeouts
        self.method = method


class Done(NamedTuple):
    """How a call ended."""

    received: Optional[Received]
    ledger: Tuple[AttemptRecord, ...]
    latency_ms: float
    #: None for success.
    error: Optional[FailoverError]


def run(registry: Registry, door: Door, call: Call, metrics: Metrics) -> Done:
    """Carry a call to an answer, or to the error that says what was tried."""
    clock, timeouts = registry.clock, call.timeouts
    started = now = clock()
    course = Course(
        registry,
        call.retry,
        call.model,
        started + timeouts.total,
        read_s=timeouts.read,
        chance=registry.chance,
        repeatable=call.retry.permits(call.method),
    )
    ledger: List[AttemptRecord] = []
    outcomes: List[Outcome] = []
    received: Optional[Received] = None
    cost: Optional[Decimal] = None
    waited_s = 0.0
    step: Step = course.begin(now)
    while True:
        if type(step) is Attempt:
            received, outcome, record, cost = _attempt(registry, door, call, course, step, waited_s)
            ledger.append(record)
            outcomes.append(outcome)
            now, waited_s = clock(), 0.0
            if outcome is SUCCEEDED:
                error = None
                break
            step = _next(registry, course.after(step, outcome, now), ledger)
        elif type(step) is Pause:
            registry.pause(step.until)
            waited_s += clock() - now
            now = clock()
            step = _next(registry, course.resume(now), ledger)
        elif type(step) is Stop:
            error = _error(registry, step, ledger, outcomes, received, now - started)
            break
    latency_ms = (now - started) * 1000.0
    metrics.record(ledger, latency_ms, succeeded=error is None, cost=cost)
    return Done(received, tuple(ledger), latency_ms, error)


def _attempt(
    registry: Registry,
    door: Door,
    call: Call,
    course: Course,
    attempt: Attempt,
    waited_s: float,
) -> Tuple[Received, Outcome, AttemptRecord, Optional[Decimal]]:
    """Make one attempt, and let everybody know what came of it."""
    began = registry.clock()
    course.limit(attempt, began)
    connect_s = min(call.timeouts.connect, attempt.timeout_s)
    if attempt.alternatives:  # what is not connected was not sent: there is always time left to ask another
        connect_s = min(connect_s, attempt.call_left_s / 2)
    try:
        received = door.send(attempt, connect_s)
        outcome = classify(received, expects=call.expects, wall_now=time.time())
    except BaseException:
        registry.release(attempt)  # neutral: it says nothing about the endpoint
        raise
    now = registry.clock()
    cost = None
    if outcome is SUCCEEDED:
        registry.report(attempt, outcome, now)
        cost = _cost(attempt, received.payload)
    else:
        outcome = outcome._replace(
            detail=received.shown(outcome.detail), code=received.shown(outcome.code or "") or None
        )
        registry.report(attempt, outcome, now)
    rule = outcome.rule
    record = AttemptRecord(
        attempt.endpoint.name,
        rule.name,
        outcome.detail or "ok",
        received.status or None,
        waited_s,
        (now - began) * 1000.0,
        None if cost is None else float(cost),
        rule.maybe_billed or outcome is SUCCEEDED,
    )
    if registry.wants("attempt"):
        registry.emit(Event("attempt", record.endpoint, None, None, record.detail, record))
    return received, outcome, record, cost


def _cost(attempt: Attempt, payload: Any) -> Optional[Decimal]:
    if type(payload) is not dict or attempt.endpoint.prices is None:
        return None
    endpoint, model = attempt.endpoint, attempt.model
    price = endpoint.price(model, endpoint.serves(model), payload.get("model"))
    return cost_usd(payload.get("usage"), price)


def _next(registry: Registry, step: Step, ledger: Sequence[AttemptRecord]) -> Step:
    """Tell listeners when the call moves to another endpoint."""
    if type(step) is Attempt and step.endpoint.name != ledger[-1].endpoint and registry.wants("failover"):
        last = ledger[-1]
        registry.emit(Event("failover", last.endpoint, None, None, last.detail, step.endpoint.name))
    return step


def _error(
    registry: Registry,
    stop: Stop,
    ledger: Sequence[AttemptRecord],
    outcomes: Sequence[Outcome],
    received: Optional[Received],
    elapsed_s: float,
) -> FailoverError:
    """Make the error that says what was tried, with numbers."""
    if stop is UNAVAILABLE or received is None:
        return registry.unavailable()
    attempts, last = tuple(ledger), outcomes[-1]
    response = received.response
    if stop is ANSWERED:
        return _rejection(last.rule.error, f"{attempts[-1]}", last, attempts, response)
    tried = "; ".join(map(str, attempts))
    if stop is OUT_OF_TIME:
        return DeadlineExceeded(
            f"out of time after {elapsed_s:.1f} s: {tried}", attempts=attempts, response=response
        )
    kinds = {outcome.rule.error for outcome in outcomes}
    kind = kinds.pop() if len(kinds) == 1 else AllEndpointsFailed
    untried = _untried(registry, attempts)
    message = f"all attempts failed: {tried}{untried}"
    if kind is AllEndpointsFailed:
        return AllEndpointsFailed(message, attempts=attempts, response=response)
    return _rejection(kind, message, last, attempts, response)


def _rejection(
    kind: Type[FailoverError],
    message: str,
    outcome: Outcome,
    attempts: Tuple[AttemptRecord, ...],
    response: Any,
) -> FailoverError:
    if issubclass(kind, RequestRejected):
        data: Dict[str, Any] = {"status": outcome.status, "code": outcome.code, "attempts": attempts}
        if outcome.retry_after_s is not None:
            data["retry_after"] = outcome.retry_after_s
        return kind(message, response=response, **data)
    return kind(message, response=response, attempts=attempts)


def _untried(registry: Registry, attempts: Sequence[AttemptRecord]) -> str:
    """Say why those who were not asked were not."""
    tried = {attempt.endpoint for attempt in attempts}
    snapshot = registry.snapshot()
    resting = [
        str(type(snapshot)((state,), snapshot.taken_at))
        for state in snapshot.endpoints
        if state.name not in tried and not state.eligible
    ]
    return f"; not asked: {', '.join(resting)}" if resting else ""
