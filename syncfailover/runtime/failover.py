"""The failover loop: one loop, one deadline, any transport.

`run` knows no HTTP library. A `Door` sends one attempt and brings back what came; the course of the call, in
`policy/course.py`, says what to do next; the registry learns from every result. What it returns says how the call
ended: the door that began it turns that into a reply or raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, NamedTuple, Optional, Tuple, Union

from ..errors import BudgetExceeded, FailoverError
from ..events import AttemptRecord, Event
from ..policy.course import Course
from ..policy.node import Attempt
from ..policy.outcome import SUCCEEDED
from ..policy.received import Received
from ..policy.steps import OUT_OF_TIME, Pause, Step, Stop, Wait
from .attempt import Door, Tried, make
from .call_errors import Story, error_of
from .registry import Registry
from .terms import Terms
from .timeouts import Timeouts

if TYPE_CHECKING:
    from .hedging import Hedging, Race


class Call:
    """What the loop needs to know of a call, apart from its bytes."""

    __slots__ = ("affinity", "expects", "method", "model", "timeouts")

    def __init__(
        self,
        model: Optional[str],
        expects: Optional[str],
        timeouts: Timeouts,
        method: str = "POST",
        affinity: Any = None,
    ) -> None:
        self.model = model
        #: See `classify`.
        self.expects = expects
        self.timeouts = timeouts
        self.method = method
        #: The conversation that it belongs to.
        self.affinity = affinity


class Done(NamedTuple):
    """How a call ended."""

    received: Optional[Received]
    ledger: Tuple[AttemptRecord, ...]
    latency_ms: float
    #: None for success.
    error: Optional[FailoverError]


def run(registry: Registry, door: Door, call: Call, terms: Terms) -> Done:
    """Carry a call to an answer, or to the error that says what was tried."""
    refused = _over_budget(terms)
    if refused is not None:
        return Done(None, (), 0.0, refused)
    tries: List[Tried] = []
    started = registry.clock()
    try:
        return _carry(registry, door, call, terms, tries, started)
    except BaseException:
        if tries:  # interrupted, but what was asked until then may have cost something
            terms.metrics.record(tries, (registry.clock() - started) * 1000.0, succeeded=False)
        raise


def _carry(
    registry: Registry, door: Door, call: Call, terms: Terms, tries: List[Tried], started: float
) -> Done:
    """Take one step after the other; `tries` is where the attempts go that were made."""
    clock, now = registry.clock, started
    deadline = started + call.timeouts.total
    course = Course(
        registry,
        terms.retry,
        call.model,
        deadline,
        read_s=call.timeouts.read,
        chance=registry.chance,
        repeatable=terms.retry.permits(call.method),
        queue_s=terms.queue_s,
        affinity=call.affinity,
    )
    error: Optional[FailoverError] = None
    waited_s = queued_s = 0.0
    step: Step = course.begin(now)
    while True:
        if type(step) is Attempt:
            latest = _try(registry, door, call, terms, course, step, waited_s)
            tries += latest
            now, waited_s = clock(), 0.0
            last = latest[-1]
            if last.outcome is SUCCEEDED:
                break
            for other in latest[:-1]:
                course.note(other.attempt, other.outcome)
            step = course.after(last.attempt, last.outcome, now)
        elif type(step) is Stop:
            error = error_of(registry, step, Story(call.model, tries, now - started, queued_s))
            break
        elif isinstance(step, (Pause, Wait)):
            stood, began = type(step) is Wait, now
            step = _waited(registry, course, step)
            now = clock()
            waited_s += now - began
            queued_s += now - began if stood else 0.0
        if type(step) is Attempt:
            if tries:
                _tell_of_failover(registry, step, tries[-1].record)
            if clock() >= deadline:  # listeners and waits take time
                registry.release(step)
                step = OUT_OF_TIME
    latency_ms = (now - started) * 1000.0
    terms.metrics.record(tries, latency_ms, succeeded=error is None)
    received = tries[-1].received if tries else None
    return Done(received, tuple([tried.record for tried in tries]), latency_ms, error)


def _waited(registry: Registry, course: Course, step: Union[Pause, Wait]) -> Step:
    """Wait as a step says, and return the one that follows."""
    if isinstance(step, Wait):
        attempt = registry.wait_turn(step.ticket, step.until)
        return course.served(attempt, registry.clock())
    registry.pause(step.until)
    return course.resume(registry.clock())


def _try(
    registry: Registry,
    door: Door,
    call: Call,
    terms: Terms,
    course: Course,
    attempt: Attempt,
    waited_s: float,
) -> List[Tried]:
    """Make an attempt, and a second one beside it where the first is late; the one that counts is last."""
    course.limit(attempt, registry.clock())
    hedging = terms.hedging
    if hedging is None:
        return [make(registry, door, attempt, call.expects, call.timeouts.connect, waited_s)]
    race = _race(registry, door, call, hedging, course, attempt)
    try:
        first = make(registry, door, attempt, call.expects, call.timeouts.connect, waited_s)
        if race is not None:
            return race.results(first, registry.clock())
    except BaseException:
        if race is not None:
            race.abandon()
        raise
    hedging.observe(first)
    return [first]


def _race(
    registry: Registry, door: Door, call: Call, hedging: Hedging, course: Course, attempt: Attempt
) -> Optional[Race]:
    """Enter an attempt beside which a second one may be made; None where none may."""
    if not (attempt.alternatives and attempt.repeatable and door.hedges):
        return None

    def second(race: Race) -> Optional[Tried]:
        rival = course.hedge(attempt, registry.clock())
        if rival is None:
            return None
        if not race.enter(rival):
            registry.release(rival)
            return None
        return make(registry, door, rival, call.expects, call.timeouts.connect, 0.0)

    return hedging.race(attempt, second, course.is_final)


def _tell_of_failover(registry: Registry, attempt: Attempt, last: AttemptRecord) -> None:
    """Tell listeners when the call moves to another endpoint."""
    if attempt.endpoint.name != last.endpoint and registry.wants("failover"):
        registry.emit(Event("failover", last.endpoint, None, None, last.detail, attempt.endpoint.name))


def _over_budget(terms: Terms) -> Optional[BudgetExceeded]:
    """Return the error for a call that would begin beyond the budget; None where it may begin."""
    budget = terms.budget_usd
    if budget is None:
        return None
    spent = terms.metrics.spent_usd()
    if spent < budget:
        return None
    budget_usd, spent_usd = float(budget), float(spent)
    message = f"budget_usd: {spent_usd!r} of {budget_usd!r} USD are spent, so nothing was sent"
    return BudgetExceeded(message, budget_usd=budget_usd, spent_usd=spent_usd)
