"""The circuit breaker on its own: permits, threads and listeners; its rules are tested in `tests/policy`."""

import logging
import sys
import threading

import pytest

from syncfailover import BreakerState, CircuitBreaker
from syncfailover.errors import CircuitOpen, ConfigurationError
from syncfailover.testing import ManualClock

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
#: Longer than 30 s and all of their jitter.
RECOVERED_S = 33.0


@pytest.fixture
def clock():
    """Stand in for time."""
    return ManualClock()


@pytest.fixture
def make(clock):
    """A function that makes breakers on the test's clock."""
    return lambda **options: CircuitBreaker(clock=clock, **options)


def trip(breaker):
    """Let three calls fail."""
    for _ in range(3):
        breaker.acquire().failure()
    assert breaker.state is OPEN


# Permits


def test_three_failures_open_and_a_trial_closes(make, clock):
    """The whole way round, as a user of the class goes it."""
    breaker = make()
    assert repr(breaker) == "<CircuitBreaker closed failures=0>"
    trip(breaker)
    clock.advance(RECOVERED_S)
    trial = breaker.acquire()
    assert breaker.state is HALF_OPEN
    trial.success()
    assert breaker.state is CLOSED


def test_an_open_breaker_says_when_to_come_back(make, clock):
    """`CircuitOpen.retry_after` is what is left of 30 s and their jitter, and stands in the message."""
    breaker = make()
    trip(breaker)
    clock.advance(10.0)
    with pytest.raises(CircuitOpen, match=r"^circuit breaker is open; next try in \d+\.\d s$") as caught:
        breaker.acquire()
    assert 20.0 <= caught.value.retry_after <= 23.0
    clock.advance(caught.value.retry_after)
    breaker.acquire()


def test_a_trial_under_way_says_when_its_lease_ends(make, clock):
    """While the one trial is out, the next may come when its lease is over."""
    breaker = make(half_open_lease=60.0)
    trip(breaker)
    clock.advance(RECOVERED_S)
    breaker.acquire()
    clock.advance(15.0)
    with pytest.raises(CircuitOpen, match="half_open") as caught:
        breaker.acquire()
    assert caught.value.retry_after == pytest.approx(45.0)
    clock.advance(45.0)
    breaker.acquire()


def test_a_forced_open_breaker_names_no_time(make, clock):
    """There is nothing to wait for but a hand."""
    breaker = make()
    breaker.force_open()
    clock.advance(1e6)
    with pytest.raises(CircuitOpen, match="no time is set") as caught:
        breaker.acquire()
    assert caught.value.retry_after is None
    breaker.reset()
    breaker.acquire().success()


def test_a_disabled_breaker_admits_everything(make):
    """Until it is reset."""
    breaker = make()
    breaker.disable()
    for _ in range(10):
        breaker.acquire().failure()
    assert breaker.state is BreakerState.DISABLED
    breaker.reset()
    trip(breaker)


def test_reset_forgets_all_failures(make):
    """Of a closed breaker too."""
    breaker = make()
    breaker.acquire().failure()
    breaker.acquire().failure()
    breaker.reset()
    breaker.acquire().failure()
    assert breaker.state is CLOSED


@pytest.mark.parametrize("first", ["success", "failure", "release"])
def test_only_the_first_settling_counts(make, first):
    """Whatever is called afterwards on the same permit changes nothing."""
    breaker = make(failure_threshold=2)
    breaker.acquire().failure()
    permit = breaker.acquire()
    getattr(permit, first)()
    after = breaker.state, repr(breaker)
    for verdict in (permit.failure, permit.failure, permit.success, permit.release, permit.failure):
        verdict()
        assert (breaker.state, repr(breaker)) == after


def test_a_double_failure_counts_once(make):
    """A caller's `except` and `finally` that both report do not trip twice as fast."""
    breaker = make()
    for _ in range(2):
        permit = breaker.acquire()
        permit.failure()
        permit.failure()
    assert breaker.state is CLOSED


# The context manager


def test_leaving_the_block_is_a_success(make):
    """It resets the count of failures."""
    breaker = make()
    breaker.acquire().failure()
    with breaker.acquire():
        pass
    assert repr(breaker) == "<CircuitBreaker closed failures=0>"


def test_an_exception_is_a_failure_and_passes_through(make):
    """Three of them open it, and each reaches the caller."""
    breaker = make()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), breaker.acquire():
            raise ZeroDivisionError
    assert breaker.state is OPEN


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_is_neutral(make, clock, kind):
    """It neither counts as a failure nor resets the count, and gives a trial back."""
    breaker = make()
    breaker.acquire().failure()
    breaker.acquire().failure()
    with pytest.raises(kind), breaker.acquire():
        raise kind
    assert repr(breaker) == "<CircuitBreaker closed failures=2>"
    breaker.acquire().failure()
    clock.advance(RECOVERED_S)
    with pytest.raises(kind), breaker.acquire():
        raise kind
    assert breaker.state is HALF_OPEN
    breaker.acquire().success()
    assert breaker.state is CLOSED


def test_a_verdict_inside_of_the_block_wins(make):
    """A caller who knows better than the absence of an exception is heard."""
    breaker = make(failure_threshold=1)
    with breaker.acquire() as permit:
        permit.failure()
    assert breaker.state is OPEN


# Listeners


def test_listeners_hear_every_change_in_order(make, clock):
    """What it was, what it became, and for how long."""
    heard = []
    breaker = make(on_change=heard.append)
    trip(breaker)
    clock.advance(RECOVERED_S)
    breaker.acquire().failure()
    clock.advance(RECOVERED_S)
    breaker.acquire().success()
    breaker.force_open()
    assert [(c.old.value, c.new.value) for c in heard] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
        ("closed", "forced_open"),
    ]
    assert 30.0 <= heard[0].retry_after_s <= 33.0
    assert heard[1].retry_after_s is None


def test_a_listener_may_use_the_breaker(make):
    """It is called outside of the lock: what it does to the breaker is told after what it is being told."""
    heard = []

    def listen(change):
        heard.append(change.new.value)
        if change.new is OPEN:
            breaker.reset()
            breaker.acquire().success()
            heard.append("left")

    breaker = make(on_change=listen)
    for _ in range(3):
        breaker.acquire().failure()
    assert heard == ["open", "left", "closed"]


def test_another_thread_may_use_the_breaker_while_a_listener_is_busy(make):
    """A listener that takes its time holds up nobody else."""
    heard, held, entered = [], threading.Event(), threading.Event()

    def listen(change):
        heard.append(change.new.value)
        entered.set()
        held.wait(5.0)

    breaker = make(on_change=listen)
    for _ in range(2):
        breaker.acquire().failure()
    last = breaker.acquire()
    thread = threading.Thread(target=last.failure)
    thread.start()
    assert entered.wait(5.0)
    breaker.reset()
    breaker.acquire().success()
    held.set()
    thread.join(5.0)
    assert heard == ["open", "closed"]


def test_what_a_listener_raises_is_logged(make, caplog):
    """The caller does not notice, and the next change is told all the same."""
    heard = []

    def listen(change):
        heard.append(change.new.value)
        raise ValueError("listener's own fault")

    breaker = make(on_change=listen)
    with caplog.at_level(logging.ERROR, logger="syncfailover"):
        trip(breaker)
        breaker.reset()
    assert heard == ["open", "closed"]
    assert len(caplog.records) == 2
    assert "listener's own fault" in caplog.text


# Threads


@pytest.fixture
def fast_switching():
    """Let threads take turns as often as possible, so that a race has its chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(count, work):
    """Run `work(number)` in so many threads that start together."""
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait(10.0)
        work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)


@pytest.mark.parametrize("permits", [1, 3])
def test_of_fifty_threads_at_half_open_only_the_permitted_pass(make, clock, fast_switching, permits):
    """Exactly one passes, or as many as there are permits; again and again."""
    breaker = make(half_open_permits=permits)
    for _ in range(20):
        breaker.reset()
        trip(breaker)
        clock.advance(RECOVERED_S)
        passed, refused = [], []

        def ask(_number, passed=passed, refused=refused):
            try:
                passed.append(breaker.acquire())
            except CircuitOpen:
                refused.append(1)

        at_once(50, ask)
        assert (len(passed), len(refused)) == (permits, 50 - permits)


def test_threads_that_settle_the_same_permit_count_once(make, fast_switching):
    """Fifty threads report one failure: it is one failure."""
    breaker = make(failure_threshold=2)
    for _ in range(20):
        breaker.reset()
        permit = breaker.acquire()
        at_once(20, lambda _number, permit=permit: permit.failure())
        assert repr(breaker) == "<CircuitBreaker closed failures=1>"


def test_changes_made_by_many_threads_are_told_in_order(make, clock, fast_switching):
    """Each change begins where the one before it ended, whoever made it."""
    heard = []
    breaker = make(failure_threshold=1, on_change=heard.append)

    def work(number):
        for _ in range(20):
            try:
                permit = breaker.acquire()
            except CircuitOpen:
                breaker.reset()
            else:
                permit.failure() if number % 2 else permit.success()

    at_once(8, work)
    assert heard
    assert heard[0].old is CLOSED
    assert all(before.new is after.old for before, after in zip(heard, heard[1:]))
    assert heard[-1].new is breaker.state


# Options


@pytest.mark.parametrize(
    ("field", "value"),
    [("failure_threshold", 0), ("recovery_timeout", -1), ("half_open_permits", 1.5), ("failure_rate", 2.0)],
)
def test_a_number_that_cannot_work_is_refused(field, value):
    """The error names field and value."""
    with pytest.raises(ConfigurationError, match=f"^{field}: {value}"):
        CircuitBreaker(**{field: value})


def test_every_option_arrives(make, clock):
    """Threshold, growth, bound and rate work from outside as they do inside."""
    breaker = make(
        failure_threshold=1, recovery_timeout=10.0, recovery_backoff=2.0, max_recovery_timeout=15.0
    )
    breaker.acquire().failure()
    clock.advance(11.0)
    breaker.acquire().failure()
    with pytest.raises(CircuitOpen) as caught:
        breaker.acquire()
    assert 15.0 <= caught.value.retry_after <= 16.5
    rated = make(failure_threshold=99, failure_rate=0.5, failure_rate_window=10.0, minimum_calls=4)
    for _ in range(2):
        rated.acquire().success()
        rated.acquire().failure()
    assert rated.state is OPEN
