"""One attempt: sent through a door, judged, and reported to the registry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol

from ..events import AttemptRecord, Event
from ..policy.node import Attempt
from ..policy.outcome import SUCCEEDED, Outcome, classify
from ..policy.pricing import cost_usd, tokens_of
from ..policy.rate_limit import room, says_room
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
    """An attempt that was made, and all that came of it."""

    attempt: Attempt
    received: Received
    outcome: Outcome
    record: AttemptRecord
    #: USD; None where it is not known.
    cost: Optional[Decimal]


def make(
    registry: Registry,
    door: Door,
    attempt: Attempt,
    expects: Optional[str],
    connect_s: float,
    waited_s: float,
) -> Tried:
    """Make one attempt, and let everybody know what came of it.

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
    try:
        received = door.send(attempt, connect_s)
        outcome = classify(received, expects=expects, wall_now=time.time())
    except BaseException:
        registry.release(attempt)  # neutral: it says nothing about the endpoint
        raise
    now = registry.clock()
    if outcome is not SUCCEEDED:
        outcome = outcome._replace(
            detail=received.shown(outcome.detail), code=received.shown(outcome.code or "") or None
        )
    shown = outcome
    if attempt.race is not None:
        outcome, shown = attempt.race.judge(attempt, outcome, (now - began) * 1000.0)
    payload = received.payload
    usage = payload.get("usage") if type(payload) is dict else None
    left = room(received.headers, time.time(), tokens_of(usage)) if says_room(received.headers) else None
    registry.report(attempt, outcome, now, left)
    cost = None if usage is None else _cost(attempt, usage, payload)
    rule = shown.rule
    record = AttemptRecord(
        attempt.endpoint.name,
        rule.name,
        shown.detail or "ok",
        received.status or None,
        waited_s,
        (now - began) * 1000.0,
        None if cost is None else float(cost),
        rule.maybe_billed or shown is SUCCEEDED,
    )
    if registry.wants("attempt"):
        registry.emit(Event("attempt", record.endpoint, None, None, record.detail, record))
    return Tried(attempt, received, shown, record, cost)


def _cost(attempt: Attempt, usage: Any, payload: Any) -> Optional[Decimal]:
    """Price what a reply says was used, also one that failed after the work was done."""
    endpoint, model = attempt.endpoint, attempt.model
    if endpoint.prices is None:
        return None
    said = payload.get("model")
    known = said if isinstance(said, str) else None
    return cost_usd(usage, endpoint.price(model, endpoint.serves(model), known))
