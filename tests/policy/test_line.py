"""Who waits while nobody can serve: the rules at the top of `policy/line.py`, one by one and all at once."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from syncfailover.endpoint import Endpoint
from syncfailover.policy import outcome
from syncfailover.policy.breaker_config import BreakerConfig
from syncfailover.policy.course import Course
from syncfailover.policy.health import HealthConfig, ProbeResult
from syncfailover.policy.line import TRY_S, Ticket
from syncfailover.policy.node import Attempt
from syncfailover.policy.outcome import SUCCEEDED, Outcome
from syncfailover.policy.pool import EndpointPool
from syncfailover.policy.retry import FailoverRetry, RetryBudget
from syncfailover.policy.steps import (
    EXHAUSTED,
    OUT_OF_TIME,
    TURNED_AWAY,
    UNAVAILABLE,
    WAITED_IN_VAIN,
    Pause,
    Stop,
    Wait,
)

REFUSED = Outcome(outcome.UNREACHABLE, "refused")
FAILED = Outcome(outcome.OVERLOADED, "HTTP 503")


class Queue:
    """Callers at the line of a bench."""

    def __init__(self, bench, size=100):
        self.bench, self.pool, self.clock = bench, bench.pool, bench.clock
        self.pool.lines._size = size

    def join(self, *models, exclude=()):
        """Let a caller arrive for each model; return the last one's ticket."""
        for model in models or (None,):
            ticket = Ticket(model)
            ticket.exclude = frozenset(exclude)
            assert self.pool.lines.join(ticket, self.clock())
        return ticket

    def serve(self, model=None, after=0.0):
        """Let the next one out, so many seconds from now; return its number and who it asks."""
        self.clock.advance(after)
        served = self.pool.serve(model, self.clock())
        return None if served is None else (served.number, served.attempt.endpoint.name)

    def all_served(self, model=None):
        """Let out everybody who may go; return the numbers."""
        return [number for number, _ in iter(lambda: self.serve(model), None)]


@pytest.fixture
def outage(bench):
    """Nobody is up."""
    made = bench("a", "b")
    made.trip("a", "b")
    return Queue(made)


def settle(queue, ticket, came_to=outcome.OK):
    """Report what came of a ticket's try."""
    queue.bench.report(ticket.attempt, came_to)


# 1: places


def test_one_that_failed_stands_where_it_stood(outage):
    """Who tried for all and failed is still the first."""
    first, second = outage.join(), outage.join()
    assert outage.serve()[0] == 1
    settle(outage, first, outcome.SERVER_ERROR)
    assert outage.pool.lines.join(first, outage.clock())
    assert outage.pool.lines[None].first() is first
    assert outage.serve(after=TRY_S)[0] == 1
    assert second.attempt is None


def test_the_place_of_one_who_tries_is_taken(bench):
    """A newcomer does not get it, so that it is there when the try has failed."""
    made = bench("a")
    made.trip("a")
    queue = Queue(made, size=2)
    first = queue.join()
    queue.join()
    assert queue.serve() == (1, "a")
    assert not queue.pool.lines.join(Ticket(None), queue.clock())
    settle(queue, first, outcome.SERVER_ERROR)
    assert queue.pool.lines.join(first, queue.clock())
    assert len(queue.pool.lines) == 2


def test_a_place_is_free_once_its_caller_left_or_was_served(bench):
    """The size counts who is there, not who ever came."""
    made = bench("a")
    made.trip("a")
    queue = Queue(made, size=1)
    served = queue.join()
    assert queue.serve() is not None
    settle(queue, served)
    queue.pool.lines.leave(queue.join())
    assert queue.join().number == 3


def test_leaving_from_the_middle_keeps_the_order(outage):
    """Who gives up is passed over, once only however often it leaves."""
    tickets = [outage.join() for _ in range(5)]
    for gone in (tickets[0], tickets[2], tickets[2]):
        outage.pool.lines.leave(gone)
    assert len(outage.pool.lines) == 3
    outage.pool.control("a", "reset", outage.clock())
    assert outage.serve() == (2, "a")
    settle(outage, tickets[1])
    assert outage.all_served() == [4, 5]
    assert len(outage.pool.lines) == 0


def test_who_may_not_ask_whoever_is_there_lets_others_pass(outage):
    """First come first served holds among those who may ask the same endpoints."""
    outage.join(exclude=["a"])
    outage.join(exclude=["a"])
    outage.join()
    outage.pool.control("a", "reset", outage.clock())
    assert outage.serve() == (3, "a")


def test_a_newcomer_does_not_pass_those_who_wait(outage):
    """Who may wait stands behind them, also when somebody has just become eligible; who may not, does not."""
    outage.join()
    outage.pool.control("a", "reset", outage.clock())
    assert outage.pool.begin(outage.clock(), None, wait_until=outage.clock() + 5.0) is None
    assert outage.pool.begin(outage.clock(), None).endpoint.name == "a"


# 2: shut


def test_while_nobody_is_up_one_tries_in_a_second(outage):
    """The first is let out at once to try, the next a second later, as long as no try has come to anything."""
    for _ in range(3):
        outage.join()
    assert outage.serve()[0] == 1
    assert outage.serve() is None
    assert outage.serve(after=TRY_S - 0.01) is None
    assert outage.serve(after=0.01)[0] == 2
    assert outage.serve() is None


def test_after_a_try_that_failed_the_next_waits_for_its_second(outage):
    """A refused connection comes back at once; that is no reason to ask again at once."""
    first = outage.join()
    outage.join()
    outage.serve()
    settle(outage, first, outcome.UNREACHABLE)
    assert outage.serve(after=TRY_S - 0.01) is None
    assert outage.serve(after=0.01)[0] == 2


def test_after_a_try_that_failed_the_next_goes_at_once_to_somebody_who_is_back(outage):
    """The second is only waited for while nobody is eligible."""
    first = outage.join()
    outage.join()
    asked = outage.serve()[1]
    settle(outage, first, outcome.SERVER_ERROR)
    other = "b" if asked == "a" else "a"
    outage.pool.control(other, "reset", outage.clock())
    assert outage.serve() == (2, other)


def test_a_cancelled_try_lets_the_next_one_try(outage):
    """Who is interrupted holds up nobody."""
    first = outage.join()
    outage.join()
    outage.serve()
    outage.pool.control("b", "reset", outage.clock())
    assert outage.serve() is None
    outage.pool.release(first.attempt)
    assert outage.serve()[0] == 2


# 3: open


def test_a_success_lets_out_the_rest_in_order(outage):
    """One tries, the rest follow in order of arrival."""
    tickets = [outage.join() for _ in range(6)]
    outage.serve()
    settle(outage, tickets[0])
    assert outage.all_served() == [2, 3, 4, 5, 6]
    assert not outage.pool.lines


def test_only_as_many_as_there_is_room_for(bench, endpoint):
    """With max_concurrency one follows for each that is done; no trial is needed."""
    queue = Queue(bench(endpoint("a", max_concurrency=2)))
    first, second = queue.bench.begin(), queue.bench.begin()
    tickets = [queue.join() for _ in range(4)]
    assert queue.serve(after=5 * TRY_S) is None
    queue.bench.report(first)
    assert queue.all_served() == [1]
    queue.bench.report(second, outcome.SERVER_ERROR)
    assert queue.all_served() == [2]
    settle(queue, tickets[0])
    settle(queue, tickets[1])
    assert queue.all_served() == [3, 4]
    assert queue.pool.nodes["a"].in_flight == 2


def test_a_success_for_one_model_does_not_open_the_line_of_another_endpoint(bench, endpoint):
    """What one endpoint can do says nothing of those that only another one serves."""
    made = bench(endpoint("a", models=["m"]), endpoint("b", models=["n"]))
    made.trip("a", model="m")
    queue = Queue(made)
    queue.join("m", "m")
    assert queue.serve("m") == (1, "a")
    made.report(made.begin("n"))
    assert queue.pool.lines["m"].shut
    assert queue.serve("m") is None
    assert queue.serve("m", after=TRY_S) == (2, "a")


def test_a_late_success_of_one_that_was_taken_away_opens_nothing(outage):
    """What was true when it was asked is not now: the others go on waiting for the try."""
    outage.pool.control("a", "reset", outage.clock())
    late = outage.bench.begin()
    outage.pool.control("a", "force_open", outage.clock())
    outage.join()
    assert outage.serve() == (1, "b")
    outage.bench.report(late)
    outage.join()
    assert outage.serve() is None


def test_a_stuck_model_blocks_no_other(bench, endpoint):
    """Each model has a line of its own."""
    made = bench(endpoint("a", models=["m"]), endpoint("b", models=["n"], max_concurrency=1))
    made.trip("a", model="m")
    queue = Queue(made)
    busy = made.begin("n")
    queue.join("m", "m", "n")
    assert queue.serve("m") == (1, "a")
    assert queue.serve("n") is None
    made.report(busy)
    assert queue.serve("n") == (3, "b")


# 4: early


def test_who_is_drained_or_asked_for_time_does_not_keep_others_from_being_tried(bench, endpoint):
    """An endpoint that is up but not there is no reason to wait for another one's breaker."""
    made = bench(endpoint("drained", weight=0), "quota", "limited", "down")
    made.report(made.only("quota"), outcome.QUOTA)
    made.report(made.only("limited"), outcome.RATE_LIMIT, retry_after_s=20.0)
    made.trip("down")
    queue = Queue(made)
    queue.join()
    assert queue.serve() == (1, "down")


def test_all_who_are_down_are_tried_in_turn(bench):
    """Whichever of them is back first is found within as many seconds as there are endpoints."""
    made = bench("a", "b", "c", failure_threshold=99)
    for name in "abc":
        made.probe(name, "-")
    queue = Queue(made)
    ticket, asked = queue.join(), ""
    for _ in range(7):
        asked += queue.serve(after=TRY_S)[1]
        settle(queue, ticket, outcome.SERVER_ERROR)
        queue.pool.lines.join(ticket, queue.clock())
    assert asked == "abcabca"


def test_who_asked_to_be_left_alone_is(bench):
    """While a rate limit is waited for nobody tries early; when it is over, one tries first."""
    made = bench("a")
    made.report(made.only("a"), outcome.RATE_LIMIT, retry_after_s=3.0)
    queue = Queue(made)
    first = queue.join()
    queue.join()
    assert queue.serve() is None
    assert queue.serve(after=TRY_S) is None
    assert queue.serve(after=2.0) == (1, "a")
    assert queue.serve() is None
    settle(queue, first)
    assert queue.serve() == (2, "a")


def test_nobody_is_tried_who_is_forced_open(bench):
    """An order holds until it is taken back; then one tries first."""
    made = bench("a")
    made.pool.control("a", "force_open", made.clock())
    queue = Queue(made)
    queue.join()
    queue.join()
    assert queue.serve(after=100.0) is None
    made.pool.control("a", "reset", made.clock())
    assert queue.all_served() == [1]


def test_a_try_moves_its_conversation(outage):
    """A conversation lives where its try was answered."""
    ticket = Ticket(None, "user-42")
    outage.pool.lines.join(ticket, outage.clock())
    name = outage.serve()[1]
    settle(outage, ticket)
    outage.pool.control("b" if name == "a" else "a", "reset", outage.clock())
    for _ in range(3):
        attempt = outage.pool.begin(outage.clock(), None, "user-42")
        assert attempt.endpoint.name == name


def test_a_conversation_waits_for_its_turn_and_goes_home(bench, endpoint):
    """Of two slots that are free, one who waited takes the one where its conversation lives."""
    made = bench(endpoint("a", max_concurrency=1), endpoint("b", max_concurrency=1))
    home = made.pool.begin(made.clock(), None, "user-42")
    made.report(home)
    busy = [made.begin(), made.begin()]
    queue = Queue(made)
    ticket = Ticket(None, "user-42")
    queue.pool.lines.join(ticket, queue.clock())
    assert queue.serve() is None
    for attempt in busy:
        made.report(attempt)
    assert queue.serve() == (1, home.endpoint.name)


# Memory


def test_names_without_number_leave_nothing_behind(bench):
    """Thousands of model names, each waited for in vain, keep no more than a bounded number of lines."""
    made = bench("a")
    made.trip("a")
    queue = Queue(made)
    for number in range(3000):
        ticket = queue.join(f"m{number}")
        queue.serve(f"m{number}", after=0.01)
        queue.pool.lines.leave(ticket)
        if ticket.attempt is not None:
            settle(queue, ticket, outcome.SERVER_ERROR)
    assert len(queue.pool.lines._by_model) <= 128
    assert len(queue.pool.lines) == 0
    assert not queue.pool.lines._tries
    made.pool.control("a", "reset", made.clock())
    made.report(made.begin())
    assert not queue.pool.lines


# The course


class Caller:
    """A course that may wait, over a bench."""

    def __init__(self, queue, queue_s=10.0, total_s=30.0, model=None, retry=3):
        self.queue, self.clock, self.pool = queue, queue.clock, queue.pool
        self.course = Course(
            queue.pool,
            FailoverRetry.from_value(retry),
            model,
            queue.clock() + total_s,
            read_s=None,
            chance=lambda: 0.0,
            queue_s=queue_s,
        )
        self._take(self.course.begin(queue.clock()))

    def _take(self, step):
        self.step = step
        if isinstance(step, Wait) and not self.pool.lines.join(step.ticket, self.clock()):
            step.ticket.refused = True
            self.step = self.course.served(None, self.clock())

    def served(self):
        """Take the step after a wait: with what the ticket was handed, or none at its end."""
        ticket = self.step.ticket
        self.pool.lines.leave(ticket)
        attempt, ticket.attempt = ticket.attempt, None
        self._take(self.course.served(attempt, self.clock()))

    def then(self, result):
        """Let the attempt come to this."""
        self.pool.report(self.step, result, self.clock())
        self._take(self.course.after(self.step, result, self.clock()))


def test_a_caller_waits_tries_waits_again_and_is_answered(outage):
    """All its waits are in the same place, and together as long as its queue time."""
    caller = Caller(outage)
    until = caller.step.until
    assert until == outage.clock() + 10.0
    for _ in range(4):
        number, _ = outage.serve(after=TRY_S)
        assert number == 1
        caller.served()
        caller.then(REFUSED)
        assert isinstance(caller.step, Wait), caller.step
        assert caller.step.until == until
    outage.serve(after=TRY_S)
    caller.served()
    caller.then(SUCCEEDED)
    assert isinstance(caller.step, Stop)


def test_the_end_of_its_patience(outage):
    """It waited in vain; where the whole call's time is over as well, that is what it is told."""
    short, long = Caller(outage, queue_s=2.0), Caller(outage, queue_s=20.0, total_s=2.0)
    outage.clock.advance(2.0)
    short.served()
    long.served()
    assert short.step is WAITED_IN_VAIN
    assert long.step is OUT_OF_TIME


def test_too_many_are_turned_away(bench):
    """One more than the line holds hears so at once."""
    made = bench("a")
    made.trip("a")
    queue = Queue(made, size=1)
    Caller(queue)
    assert Caller(queue).step is TURNED_AWAY


@pytest.mark.parametrize("rule_name", ["RATE_LIMIT", "QUOTA"])
def test_nobody_waits_for_what_cannot_come_in_time(bench, rule_name):
    """What a provider asked for is not over any sooner: the answer is the one that a call without a queue gets."""
    made = bench("a")
    made.report(made.only("a"), getattr(outcome, rule_name), retry_after_s=100.0)
    assert isinstance(Caller(Queue(made)).step, Attempt)
    assert isinstance(Caller(Queue(made), queue_s=100.0, total_s=200.0).step, Wait)


def test_a_call_that_finds_every_key_without_credit_says_so(bench):
    """Its own error comes at once, not after the queue time."""
    caller = Caller(Queue(bench("a")))
    caller.then(Outcome(outcome.QUOTA, "HTTP 402"))
    assert caller.step is EXHAUSTED


def test_nobody_waits_for_the_drained(bench, endpoint):
    """Weight 0 is for ever."""
    assert Caller(Queue(bench(endpoint("a", weight=0)))).step is UNAVAILABLE


def test_an_order_is_waited_for(bench):
    """Forced open is for as long as somebody says: a call that may wait does."""
    made = bench("a")
    made.pool.control("a", "force_open", made.clock())
    queue = Queue(made)
    caller = Caller(queue)
    assert isinstance(caller.step, Wait)
    made.pool.control("a", "reset", made.clock())
    queue.serve()
    caller.served()
    assert isinstance(caller.step, Attempt)


def test_failures_without_end_do_not_use_up_a_patient_call(bench):
    """With its retries spent it goes on as long as it may wait, and no longer."""
    made = bench("a", failure_threshold=1000)
    queue = Queue(made)
    caller, began = Caller(queue, retry=1), queue.clock()
    asked = 0
    while not isinstance(caller.step, Stop):
        if isinstance(caller.step, Pause):
            queue.clock.advance(caller.step.until - queue.clock())
            caller._take(caller.course.resume(queue.clock()))
        else:
            asked += 1
            caller.then(FAILED)
    assert caller.step is EXHAUSTED
    assert asked > 3
    assert queue.clock() - began <= 10.0


# All at once

NAMES = ("a", "b", "c")
MODELS = (None, "m", "n")
SIZE = 5


class Callers(RuleBasedStateMachine):
    """Callers come and go, endpoints fail and recover, and time passes, in any order."""

    @initialize(threshold=st.integers(1, 3))
    def start(self, threshold):
        """Set up."""
        self.now = 1000.0
        self.pool = EndpointPool(
            [
                Endpoint("a", "http://h/1", max_concurrency=1),
                Endpoint("b", "http://h/2", max_concurrency=2, models=["m"]),
                Endpoint("c", "http://h/3", priority=1, models=["n"]),
            ],
            balancer="round_robin",
            breaker=BreakerConfig(threshold, 5.0, half_open_lease=20.0),
            health=HealthConfig(rise=1, fall=1),
            budget=RetryBudget(),
            chance=lambda: 0.0,
            queue_size=SIZE,
        )
        self.standing, self.out, self.returned = [], [], 0
        self.tries = {}  # by model: when the last try of a line that is shut was let out, and the try

    def pump(self):
        """Let out whoever may go, as the registry does after everything that happens."""
        for model in MODELS:
            while True:
                self.pool.expire(self.now)
                before = self.eligible(model)
                ticket = self.pool.serve(model, self.now)
                if ticket is None:
                    break
                self.check_let_out(model, ticket, before)

    def eligible(self, model, exclude=frozenset()):
        """Work out who is eligible, without the view."""
        return {
            name
            for name, node in self.pool.nodes.items()
            if name not in exclude
            and node.endpoint.serves(model) is not None
            and node.usable(self.now)
            and self.now >= self.pool.roster.rests.until(name, model)
        }

    def check_let_out(self, model, ticket, eligible):
        """Who is let out is the first of its kind, and the only one to try."""
        self.standing.remove(ticket)
        assert not ticket.waiting
        ahead = [t for t in self.standing if t.model == model and t.exclude == ticket.exclude]
        assert all(t.number > ticket.number for t in ahead)
        assert ticket.attempt.endpoint.name not in ticket.exclude
        line = self.pool.lines[model]
        if line is not None and line.trial is ticket.attempt:
            if model in self.tries:
                at, last = self.tries[model]
                assert self.now >= at + TRY_S or (last.settled and eligible)
            self.tries[model] = (self.now, ticket.attempt)
        else:
            assert eligible  # nobody is let out early from a line that is open
        self.out.append(ticket)

    @rule(model=st.sampled_from(MODELS), exclude=st.sets(st.sampled_from(NAMES), max_size=1))
    def arrive(self, model, exclude):
        """A caller comes: it is served at once, or stands in line, or is turned away."""
        ticket = Ticket(model)
        ticket.exclude = frozenset(exclude)
        attempt = self.pool.begin(self.now, model, wait_until=self.now + 5.0)
        if attempt is not None:
            ticket.attempt = attempt
            self.out.append(ticket)
        elif self.pool.lines.join(ticket, self.now):
            assert len(self.standing) < SIZE
            self.standing.append(ticket)
        else:
            tries = [t for t in self.out if t.attempt in self.pool.lines._tries]
            assert len(self.standing) + len(tries) >= SIZE
        self.pump()

    @precondition(lambda self: self.standing)
    @rule(data=st.data())
    def leave(self, data):
        """A caller has waited long enough, or is interrupted."""
        ticket = self.standing.pop(data.draw(st.integers(0, len(self.standing) - 1)))
        self.pool.lines.leave(ticket)
        self.pump()

    @precondition(lambda self: self.out)
    @rule(data=st.data(), how=st.sampled_from(["ok", "ok", "refused", "failed", "limited", "released"]))
    def end(self, data, how):
        """An attempt comes to something; one that failed goes back to its place."""
        ticket = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        tried = ticket.attempt in self.pool.lines._tries
        if how == "released":
            self.pool.release(ticket.attempt)
        elif how == "ok":
            self.pool.report(ticket.attempt, SUCCEEDED, self.now)
            node = ticket.attempt.node
            if node.open_to_calls(self.now):  # which opens the lines of all whom it serves
                self.tries = {m: t for m, t in self.tries.items() if node.endpoint.serves(m) is None}
        else:
            limited = Outcome(outcome.RATE_LIMIT, "HTTP 429", 429, retry_after_s=2.0)
            result = {"refused": REFUSED, "failed": FAILED, "limited": limited}[how]
            self.pool.report(ticket.attempt, result, self.now)
            number = ticket.number
            if number is None and len(self.standing) >= SIZE:
                assert not self.pool.lines.join(ticket, self.now)
            elif self.pool.lines.join(ticket, self.now):
                assert number in (None, ticket.number)
                self.returned += number is not None and not tried
                self.standing.append(ticket)
        self.pump()

    @rule(name=st.sampled_from(NAMES), alive=st.booleans())
    def probe(self, name, alive):
        """A probe comes back."""
        self.pool.probed(ProbeResult(name, alive, "seen", 5.0 if alive else None), self.now)
        self.pump()

    @rule(name=st.sampled_from(NAMES), order=st.sampled_from(["force_open", "reset", "reset"]))
    def control(self, name, order):
        """Somebody gives an order."""
        self.pool.control(name, order, self.now)
        self.pump()

    @rule(seconds=st.sampled_from([0.1, 0.25, 0.5, 1.0, 5.0, 20.0]))
    def advance(self, seconds):
        """Time passes; the first of each line looks every now and then."""
        self.now += seconds
        self.pump()

    @invariant()
    def nobody_is_stranded(self):
        """Whoever waits is waiting for a try, or may ask nobody who is eligible."""
        for ticket in getattr(self, "standing", ()):
            line = self.pool.lines[ticket.model]
            assert line is not None
            assert line.is_held(self.now) or not self.eligible(ticket.model, ticket.exclude)

    @invariant()
    def no_more_than_allowed(self):
        """In the lines stand at most as many as may, and those who came back to their place."""
        if hasattr(self, "pool"):
            assert len(self.pool.lines) == len(self.standing) <= SIZE + self.returned
            for name, most in (("a", 1), ("b", 2)):
                assert self.pool.nodes[name].in_flight <= most

    @invariant()
    def nothing_is_left_behind(self):
        """A line is there while it is shut, or somebody needs it; a try while it is out."""
        if hasattr(self, "pool"):
            for line in self.pool.lines._by_model.values():
                assert line.shut or line.in_use()
            assert all(not attempt.settled for attempt in self.pool.lines._tries)


TestCallers = Callers.TestCase
TestCallers.settings = settings(max_examples=150, stateful_step_count=40)
