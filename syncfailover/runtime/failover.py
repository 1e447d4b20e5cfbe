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
from ..policy.outcome import ANSWERS, BEGUN, GIVEN_UP, SUCCEEDED
from ..policy.received import Received
from ..policy.steps import ANSWERED, OUT_OF_TIME, Pause, Step, Stop, Wait
from .attempt import Door, Tried, conclude, make, named
from .call_errors import Story, error_of
from .registry import Registry
from .terms import Terms
from .timeouts import Timeouts

if TYPE_CHECKING:
    from .hedging import Hedging, Race


class Call:
    """What the loop needs to know of a call, apart from its bytes."""

    __slots__ = ("affinity", "expects", "method", "model", "streams", "timeouts")

    def __init__(
        self,
        model: Optional[str],
        expects: Optional[str],
        timeouts: Timeouts,
        method: str = "POST",
        affinity: Any = None,
        *,
        streams: bool = False,
    ) -> None:
        self.model = model
        #: See `classify`.
        self.expects = expects
        self.timeouts = timeouts
        self.method = method
        #: The conversation that it belongs to.
        self.affinity = affinity
        #: Whether the door leaves good replies to be read as they come.
        self.streams = streams


class Done(NamedTuple):
    """How a call ended."""

    received: Optional[Received]
    ledger: Tuple[AttemptRecord, ...]
    latency_ms: float
    #: None for success.
    error: Optional[FailoverError]


def run(registry: Registry, door: Door, call: Call, terms: Terms, spent_s: float = 0.0) -> Done:
    """Carry a call to an answer, or to the error that says what was tried; see `Run` for the arguments."""
    return Run(registry, door, call, terms, spent_s).begin()


class Run:
    """A call under way.

    A call whose door streams is not done when `begin` returns without an error: its `events` are still coming. How they
    end is told by `finish`, `broke` or `abandon`, and `broke` may send the call on to another endpoint.

    Args:
        registry: whose endpoints may be asked.
        door: sends one attempt.
        call: what is asked.
        terms: on which.
        spent_s: seconds that the call took so far.

    """

    __slots__ = (
        "_begins",
        "_call",
        "_course",
        "_door",
        "_queued_s",
        "_terms",
        "registry",
        "started",
        "tries",
    )

    def __init__(
        self, registry: Registry, door: Door, call: Call, terms: Terms, spent_s: float = 0.0
    ) -> None:
        self.registry = registry
        self._door = door
        self._call = call
        self._terms = terms
        self._queued_s = 0.0
        #: The attempts that were made, the latest last.
        self.tries: List[Tried] = []
        self._begins = registry.clock()
        self.started = self._begins - spent_s
        timeouts = call.timeouts
        self._course = Course(
            registry,
            terms.retry,
            call.model,
            self.started + timeouts.total,
            read_s=timeouts.read,
            first_token_s=timeouts.first_token,
            chance=registry.chance,
            repeatable=terms.retry.permits(call.method),
            queue_s=terms.queue_s,
            affinity=call.affinity,
            streams=call.streams,
        )

    @property
    def events(self) -> Any:
        """The stream that is coming; None where the reply is whole."""
        return self.tries[-1].received.stream if self.tries else None

    @property
    def ledger(self) -> Tuple[AttemptRecord, ...]:
        """What was tried so far."""
        return tuple([tried.record for tried in self.tries])

    def begin(self) -> Done:
        """Carry the call to an answer, to the first content of a stream, or to an error."""
        self.registry.clear_up()  # a stream that was left may have cost something
        refused = _over_budget(self._terms)
        if refused is not None:
            return Done(None, (), 0.0, refused)
        return self._carry_safely(None)

    def finish(self, said: Any) -> Done:
        """Take in that the stream is whole; `said` is what it told of model and usage, as JSON."""
        last = self.tries[-1]
        self.tries[-1] = conclude(self.registry, last, last.received, SUCCEEDED, said)
        return self._done(None)

    def broke(self, received: Received, *, restart: bool) -> Done:
        """Take in what broke the stream.

        Args:
            received: what broke it.
            restart: whether another endpoint may begin anew; without an error in what is returned, one has.

        """
        outcome = named(received, self._call.expects)
        last = self.tries[-1] = conclude(self.registry, self.tries[-1], received, outcome, None)
        return self._carry_safely(last) if restart else self._done(self._error(ANSWERED))

    def let_go(self) -> None:
        """Give back the permit of a stream that nobody could take the end of."""
        self.registry.release(self.tries[-1].attempt)

    def abandon(self) -> None:
        """Take in that nobody wants the rest of the stream."""
        last = self.tries[-1]
        self.tries[-1] = conclude(self.registry, last, last.received, GIVEN_UP, None)
        self._done(None, abandoned=True)

    def _carry_safely(self, last: Optional[Tried]) -> Done:
        """Carry on, and where the caller is interrupted, count what was asked until then: it may have cost something."""
        try:
            return self._carry(last)
        except BaseException:
            if self.tries:
                self._drop(self.tries[-1])
                latency_ms = (self.registry.clock() - self.started) * 1000.0
                self._terms.metrics.record(self.tries, latency_ms, succeeded=False)
            raise

    def _drop(self, tried: Optional[Tried]) -> None:
        """Free what a stream holds that nobody will read."""
        if tried is not None and tried.outcome is BEGUN:
            tried.received.stream.close()
            self.registry.release(tried.attempt)

    def _carry(self, last: Optional[Tried]) -> Done:
        """Take one step after the other, from the beginning or from the last attempt."""
        registry, course, tries = self.registry, self._course, self.tries
        clock = registry.clock
        now, waited_s = (self._begins if last is None else clock()), 0.0
        step = (
            course.begin(now) if last is None else self._next(course.after(last.attempt, last.outcome, now))
        )
        while True:
            if type(step) is Attempt:
                latest = self._try(step, waited_s)
                tries += latest
                now, waited_s = clock(), 0.0
                last = latest[-1]
                if last.outcome in ANSWERS:
                    return self._done(None, now)
                for other in latest[:-1]:
                    course.note(other.attempt, other.outcome)
                step = course.after(last.attempt, last.outcome, now)
            elif isinstance(step, (Pause, Wait)):
                stood, began = type(step) is Wait, now
                step = _waited(registry, course, step)
                now = clock()
                waited_s += now - began
                self._queued_s += now - began if stood else 0.0
            elif type(step) is Stop:
                return self._done(self._error(step), now)
            step = self._next(step)

    def _next(self, step: Step) -> Step:
        """Tell of a failover before it happens, and begin no attempt after the deadline."""
        if type(step) is not Attempt:
            return step
        registry = self.registry
        if self.tries:
            _tell_of_failover(registry, step, self.tries[-1].record)
        if registry.clock() >= self.started + self._call.timeouts.total:  # listeners and waits take time
            registry.release(step)
            return OUT_OF_TIME
        return step

    def _done(
        self, error: Optional[FailoverError], now: Optional[float] = None, *, abandoned: bool = False
    ) -> Done:
        """Count the call, unless its stream goes on."""
        tries = self.tries
        latency_ms = ((self.registry.clock() if now is None else now) - self.started) * 1000.0
        last = tries[-1] if tries else None
        if last is None or last.outcome is not BEGUN:
            self._terms.metrics.record(tries, latency_ms, succeeded=None if abandoned else error is None)
        return Done(None if last is None else last.received, self.ledger, latency_ms, error)

    def _error(self, stop: Stop) -> FailoverError:
        elapsed_s = self.registry.clock() - self.started
        return error_of(self.registry, stop, Story(self._call.model, self.tries, elapsed_s, self._queued_s))

    def _try(self, attempt: Attempt, waited_s: float) -> List[Tried]:
        """Make an attempt, and a second one beside it where the first is late; the one that counts is last."""
        registry, door, call, course = self.registry, self._door, self._call, self._course
        course.limit(attempt, registry.clock())
        hedging = self._terms.hedging
        if hedging is None:
            return [make(registry, door, attempt, call.expects, call.timeouts.connect, waited_s)]
        race = _race(registry, door, call, hedging, course, attempt)
        first: Optional[Tried] = None
        try:
            first = make(registry, door, attempt, call.expects, call.timeouts.connect, waited_s)
            if race is not None:
                return race.results(first, registry.clock())
        except BaseException:
            self._drop(first)
            if race is not None:
                self._drop(race.abandon())
            raise
        hedging.observe(first)
        return [first]


def _waited(registry: Registry, course: Course, step: Union[Pause, Wait]) -> Step:
    """Wait as a step says, and return the one that follows."""
    if isinstance(step, Wait):
        attempt = registry.wait_turn(step.ticket, step.until)
        return course.served(attempt, registry.clock())
    registry.pause(step.until)
    return course.resume(registry.clock())


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
    spent = terms.spent_usd()
    if spent < budget:
        return None
    budget_usd, spent_usd = float(budget), float(spent)
    message = f"budget_usd: {spent_usd!r} of {budget_usd!r} USD are spent, so nothing was sent"
    return BudgetExceeded(message, budget_usd=budget_usd, spent_usd=spent_usd)
