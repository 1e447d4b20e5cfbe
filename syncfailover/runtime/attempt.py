"""One attempt: sent through a door, judged, and reported to the registry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Optional, Protocol

from ..events import AttemptRecord, Event
from ..policy.node import Attempt
from ..policy.outcome import ANSWERS, BEGUN, SUCCEEDED, Outcome, classify
from ..policy.pricing import cost_usd, tokens_of
from ..policy.rate_limit import Room, room, says_room
from ..policy.received import Received
from .registry import Registry

if TYPE_CHECKING:
    from decimal import Decimal


class Door(Protocol):
    """How one attempt is made: over requests, over httpx, or over a script in a test."""

    #: Whether two sends of the same call may be under way at a time.
    hedges: bool

    def send(self, attempt: Attempt, connect_s: float) -> Received:
        """Send to the attempt's endpoint, within its `timeout_s` seconds, and describe what came back.

        Faults of the wire are described, not raised; what is raised ends the call.
        """


class Tried(NamedTuple):
    """An attempt that was made, and all that came of it; of a stream that has begun, all that is known so far."""

    attempt: Attempt
    received: Received
    outcome: Outcome
    record: AttemptRecord
    #: USD; None where it is not known.
    cost: Optional[Decimal]
    #: When it was sent, on the registry's clock.
    began: float = 0.0


def make(
    registry: Registry,
    door: Door,
    attempt: Attempt,
    expects: Optional[str],
    connect_s: float,
    waited_s: float,
) -> Tried:
    """Make one attempt, and let everybody know what came of it; of a stream, once it has ended (see `conclude`).

    Args:
        registry: whom to report to.
        door: how to send.
        attempt: what to make, its times set.
        expects: see `classify`.
        connect_s: seconds for opening a connection.
        waited_s: seconds that the call waited before.

    """
    began = registry.clock()
    connect_s = min(connect_s, attempt.timeout_s)
    if attempt.alternatives:  # what is not connected was not sent: there is always time left to ask another
        connect_s = min(connect_s, attempt.call_left_s / 2)
    received: Optional[Received] = None
    try:
        received = door.send(attempt, connect_s)
        outcome = shown = named(received, expects)
        now = registry.clock()
        if attempt.race is not None:
            outcome, shown = attempt.race.judge(attempt, outcome, (now - began) * 1000.0)
        if received.stream is not None and shown is BEGUN:
            record = _record(attempt, received, BEGUN, waited_s, (now - began) * 1000.0, None)
            return Tried(attempt, received, BEGUN, record, None, began)
    except BaseException:
        registry.release(attempt)  # neutral: it says nothing about the endpoint
        if received is not None and received.stream is not None:
            received.stream.close()
        raise
    if received.stream is not None:  # called off, just as it had begun
        received.stream.close()
    return _reported(registry, attempt, received, outcome, shown, began, waited_s, received.payload)


def conclude(registry: Registry, begun: Tried, received: Received, outcome: Outcome, said: Any) -> Tried:
    """Let everybody know how a stream ended that had begun.

    Args:
        registry: whom to report to.
        begun: what `make` returned.
        received: what came last.
        outcome: what came of it.
        said: the whole reply as JSON, or what of it is known: its model, its usage.

    """
    waited_s = begun.record.wait_s
    return _reported(registry, begun.attempt, received, outcome, outcome, begun.began, waited_s, said)


def named(received: Received, expects: Optional[str]) -> Outcome:
    """Name what came back, in words that show no secret."""
    outcome = classify(received, expects=expects, wall_now=time.time())
    if outcome in ANSWERS:
        return outcome
    return outcome._replace(
        detail=received.shown(outcome.detail), code=received.shown(outcome.code or "") or None
    )


def _reported(
    registry: Registry,
    attempt: Attempt,
    received: Received,
    outcome: Outcome,
    shown: Outcome,
    began: float,
    waited_s: float,
    said: Any,
) -> Tried:
    """Report an outcome, which may be another for the endpoint than for the call; and put the attempt on record."""
    now = registry.clock()
    usage = said.get("usage") if type(said) is dict else None
    registry.report(attempt, outcome, now, room_in(received.headers, usage))
    cost = None if usage is None else _cost(attempt, usage, said)
    record = _record(attempt, received, shown, waited_s, (now - began) * 1000.0, cost)
    if registry.wants("attempt"):
        registry.emit(Event("attempt", record.endpoint, None, None, record.detail, record))
    return Tried(attempt, received, shown, record, cost, began)


def room_in(headers: Mapping[str, str], usage: Any) -> Optional[Room]:
    """Return what a reply says is left of its rate limit; None where it says nothing."""
    return room(headers, time.time(), tokens_of(usage)) if says_room(headers) else None


def _record(
    attempt: Attempt,
    received: Received,
    shown: Outcome,
    waited_s: float,
    latency_ms: float,
    cost: Optional[Decimal],
) -> AttemptRecord:
    rule = shown.rule
    return AttemptRecord(
        attempt.endpoint.name,
        rule.name,
        shown.detail or rule.name,
        received.status or None,
        waited_s,
        latency_ms,
        None if cost is None else float(cost),
        rule.maybe_billed or shown is SUCCEEDED,
    )


def _cost(attempt: Attempt, usage: Any, payload: Any) -> Optional[Decimal]:
    """Price what a reply says was used, also one that failed after the work was done."""
    endpoint, model = attempt.endpoint, attempt.model
    if endpoint.prices is None:
        return None
    said = payload.get("model")
    known = said if isinstance(said, str) else None
    return cost_usd(usage, endpoint.price(model, endpoint.serves(model), known))
