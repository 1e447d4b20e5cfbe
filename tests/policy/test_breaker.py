"""The breaker's machine, rule by rule, and against a second machine written only to be compared with."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from syncfailover.errors import ConfigurationError
from syncfailover.policy.breaker import BreakerMachine, BreakerState, Grant
from syncfailover.policy.breaker_config import BreakerConfig

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED


def machine(chance=0.0, **config):
    """Make a breaker that recovers in 30 s."""
    return BreakerMachine(BreakerConfig(**config), lambda: chance)


def opened(now=0.0, chance=0.0, **config):
    """Make a breaker that opened at `now`."""
    made = machine(chance, **config)
    fail(made, now, times=made.config.failure_threshold)
    assert made.state.name is OPEN
    return made


def fail(breaker, now, times=1):
    """Let calls fail."""
    for _ in range(times):
        breaker.failure(breaker.acquire(now), now, "HTTP 503")


def succeed(breaker, now):
    """Let one call succeed."""
    breaker.success(breaker.acquire(now), now)


def fail_trial(breaker):
    """Let the next trial fail, and return how long the breaker is open after it."""
    due = breaker.next_try_at(0.0)
    fail(breaker, due)
    return breaker.next_try_at(due) - due


# CLOSED


@pytest.mark.parametrize("threshold", [1, 2, 3, 7])
def test_it_opens_on_the_failure_that_reaches_the_threshold(threshold):
    """One failure fewer than the threshold leaves it closed, the next one opens it."""
    breaker = machine(failure_threshold=threshold)
    fail(breaker, 0.0, times=threshold - 1)
    assert breaker.state.name is CLOSED
    fail(breaker, 0.0)
    assert breaker.state.name is OPEN


def test_three_is_the_default_threshold():
    """The third consecutive failure opens it."""
    breaker = machine()
    fail(breaker, 0.0, times=2)
    assert breaker.state.name is CLOSED
    fail(breaker, 0.0)
    assert breaker.state.name is OPEN


def test_a_success_resets_the_count():
    """Only consecutive failures count: two, a success and two more leave it closed."""
    breaker = machine()
    for _ in range(5):
        fail(breaker, 0.0, times=2)
        succeed(breaker, 0.0)
    assert breaker.state.name is CLOSED
    assert breaker.failures == 0


def test_a_neutral_result_touches_nothing():
    """A release between failures neither counts as one nor resets the count."""
    breaker = machine()
    for _ in range(10):
        breaker.release(breaker.acquire(0.0))
    assert breaker.failures == 0
    fail(breaker, 0.0, times=2)
    breaker.release(breaker.acquire(0.0))
    assert breaker.failures == 2
    fail(breaker, 0.0)
    assert breaker.state.name is OPEN


def test_closed_admits_any_number():
    """A closed breaker counts no permits."""
    breaker = machine()
    assert all(breaker.acquire(0.0) == Grant(0, 0) for _ in range(1000))
    assert breaker.next_try_at(5.0) == 5.0


# OPEN


@pytest.mark.parametrize(("chance", "open_for"), [(0.0, 30.0), (0.5, 31.5), (1.0, 33.0)])
def test_it_stays_open_for_the_recovery_timeout_and_up_to_a_tenth_more(chance, open_for):
    """Nobody passes before the time, jitter included, and one passes at it."""
    breaker = opened(100.0, chance)
    assert breaker.next_try_at(100.0) == pytest.approx(100.0 + open_for)
    just_before = breaker.next_try_at(100.0) - 1e-6
    assert not breaker.admits(just_before)
    assert breaker.acquire(just_before) is None
    assert breaker.state.name is OPEN
    assert breaker.admits(breaker.next_try_at(100.0))
    assert breaker.acquire(breaker.next_try_at(100.0)).trial == 1
    assert breaker.state.name is HALF_OPEN


def test_asking_whether_it_admits_changes_nothing():
    """`admits` and `next_try_at` leave an open breaker open, however late it is."""
    breaker = opened()
    assert breaker.admits(1000.0)
    assert breaker.next_try_at(1000.0) == 1000.0
    assert breaker.state.name is OPEN


def test_the_default_backoff_does_not_grow():
    """Every failed trial is followed by the same time, so that an endpoint is back soon."""
    breaker = opened()
    assert [fail_trial(breaker) for _ in range(5)] == [30.0] * 5


def test_each_failed_trial_lengthens_the_time_up_to_the_bound():
    """With a backoff of 1.5 it is open for 30, 45, 67.5, ... seconds and never for more than 300."""
    breaker = opened(recovery_backoff=1.5)
    assert breaker.next_try_at(0.0) == 30.0
    grown = [fail_trial(breaker) for _ in range(8)]
    assert grown == pytest.approx([45.0, 67.5, 101.25, 151.875, 227.8125, 300.0, 300.0, 300.0])


def test_growth_without_end_stays_at_the_bound():
    """Ten thousand failed trials overflow no float."""
    assert BreakerConfig(recovery_backoff=2.0).open_for(10_000, 0.0) == 300.0


def test_the_bound_never_shortens_the_recovery_timeout():
    """A recovery timeout above the bound is its own bound."""
    assert BreakerConfig(recovery_timeout=600.0, recovery_backoff=2.0).open_for(3, 0.0) == 600.0


def test_closing_resets_the_growth():
    """After a success the next opening lasts as long as the first."""
    breaker = opened(recovery_backoff=1.5)
    assert [fail_trial(breaker), fail_trial(breaker)] == [45.0, 67.5]
    due = breaker.next_try_at(0.0)
    succeed(breaker, due)
    assert breaker.state.name is CLOSED
    fail(breaker, due, times=3)
    assert breaker.next_try_at(due) - due == 30.0


# HALF_OPEN


@pytest.mark.parametrize("permits", [1, 2, 5])
def test_half_open_admits_as_many_trials_as_it_has_permits(permits):
    """No trial passes beyond `half_open_permits`, each has its own number, and one given back makes room."""
    breaker = opened(half_open_permits=permits)
    grants = [breaker.acquire(30.0) for _ in range(permits)]
    assert [grant.trial for grant in grants] == list(range(1, permits + 1))
    assert not breaker.admits(30.0)
    assert breaker.acquire(30.0) is None
    breaker.release(grants[0])
    assert breaker.acquire(30.0).trial == permits + 1
    assert breaker.acquire(30.0) is None


def test_one_success_closes_it():
    """The first trial that succeeds closes it, with a clean count."""
    breaker = opened(half_open_permits=3)
    breaker.acquire(30.0)
    succeed(breaker, 30.0)
    assert breaker.state.name is CLOSED
    assert breaker.failures == 0
    assert breaker.last_failure == ""


def test_one_failure_reopens_it():
    """The first trial that fails opens it again, from now on."""
    breaker = opened(half_open_permits=3)
    breaker.acquire(30.0)
    breaker.failure(breaker.acquire(31.0), 40.0, "reset")
    assert breaker.state.name is OPEN
    assert breaker.next_try_at(40.0) == 70.0
    assert breaker.last_failure == "reset"


def test_a_neutral_trial_neither_closes_nor_reopens():
    """A trial that is given back leaves it half-open, ready for the next."""
    breaker = opened()
    breaker.release(breaker.acquire(30.0))
    assert breaker.state.name is HALF_OPEN
    assert breaker.admits(30.0)


def test_a_trial_that_is_never_settled_is_given_to_somebody_else():
    """After the lease, and not before, another trial passes."""
    breaker = opened(half_open_lease=60.0)
    lost = breaker.acquire(30.0)
    assert breaker.acquire(89.9) is None
    assert breaker.next_try_at(89.9) == 90.0
    second = breaker.acquire(90.0)
    assert second.trial == 2
    assert breaker.acquire(90.0) is None
    breaker.failure(lost, 91.0)
    assert breaker.state.name is HALF_OPEN
    breaker.success(lost, 91.0)
    assert breaker.state.name is HALF_OPEN
    breaker.success(second, 92.0)
    assert breaker.state.name is CLOSED


def test_a_lease_that_ran_out_but_was_not_reissued_still_counts():
    """A slow trial that comes back before anybody else took its place is heard."""
    breaker = opened(half_open_lease=60.0)
    slow = breaker.acquire(30.0)
    breaker.success(slow, 200.0)
    assert breaker.state.name is CLOSED


def test_a_second_result_of_a_trial_changes_nothing():
    """Only the first of several results of one permit counts."""
    breaker = opened(half_open_permits=2)
    first, second = breaker.acquire(30.0), breaker.acquire(30.0)
    breaker.release(first)
    breaker.failure(first, 30.0)
    breaker.success(first, 30.0)
    assert breaker.state.name is HALF_OPEN
    breaker.failure(second, 30.0)
    breaker.success(second, 30.0)
    assert breaker.state.name is OPEN


# Generations


def test_a_late_result_of_an_older_generation_changes_nothing():
    """Calls begun while it was closed neither close, nor reopen, nor lengthen what came after."""
    breaker = machine(recovery_backoff=1.5)
    old = [breaker.acquire(0.0) for _ in range(6)]
    for grant in old[:3]:
        breaker.failure(grant, 1.0)
    assert breaker.state.name is OPEN
    breaker.success(old[3], 2.0)
    breaker.failure(old[3], 2.0, "late")
    assert breaker.state.name is OPEN
    assert breaker.last_failure == ""
    trial = breaker.acquire(31.0)
    breaker.success(old[4], 31.0)
    breaker.failure(old[5], 31.0)
    breaker.release(old[5])
    assert breaker.state.name is HALF_OPEN
    assert breaker.acquire(31.0) is None
    breaker.success(trial, 31.0)
    breaker.failure(trial, 31.0)
    assert breaker.failures == 0


def test_each_change_of_state_begins_a_new_generation():
    """The number grows by one with each change and with nothing else."""
    breaker = machine()
    seen = [breaker.generation]
    fail(breaker, 0.0, times=2)
    seen.append(breaker.generation)
    fail(breaker, 0.0)
    seen.append(breaker.generation)
    grant = breaker.acquire(30.0)
    seen.append(breaker.generation)
    breaker.success(grant, 30.0)
    seen.append(breaker.generation)
    breaker.force_open()
    seen.append(breaker.generation)
    breaker.disable()
    seen.append(breaker.generation)
    breaker.reset()
    seen.append(breaker.generation)
    assert seen == [0, 0, 1, 2, 3, 4, 5, 6]


def test_changes_are_told_in_order_with_their_reasons():
    """Each change says what it was, what it became, why, and for how long."""
    breaker = opened()
    fail(breaker, 30.0)
    succeed(breaker, 60.0)
    breaker.force_open()
    breaker.disable()
    breaker.reset()
    assert [(c.old, c.new, c.reason, c.retry_after_s) for c in breaker.changes] == [
        (CLOSED, OPEN, "3 consecutive failures", 30.0),
        (OPEN, HALF_OPEN, "recovery timeout over", None),
        (HALF_OPEN, OPEN, "trial failed", 30.0),
        (OPEN, HALF_OPEN, "recovery timeout over", None),
        (HALF_OPEN, CLOSED, "trial succeeded", None),
        (CLOSED, FORCED_OPEN, "forced open", None),
        (FORCED_OPEN, DISABLED, "disabled", None),
        (DISABLED, CLOSED, "reset", None),
    ]


# Probes


def test_probes_that_recover_open_the_door_half():
    """Word that probes succeed again lets one trial pass early, and never closes by itself."""
    breaker = opened()
    breaker.probes_recovered()
    assert breaker.state.name is HALF_OPEN
    trial = breaker.acquire(1.0)
    assert trial.trial == 1
    breaker.probes_recovered()
    assert breaker.acquire(1.0) is None
    breaker.failure(trial, 1.0)
    assert breaker.next_try_at(1.0) == 31.0


@pytest.mark.parametrize("order", ["reset", "force_open", "disable"])
def test_probes_change_no_state_but_open(order):
    """A closed, forced-open or disabled breaker does not listen to probes."""
    breaker = machine()
    getattr(breaker, order)()
    state, generation = breaker.state.name, breaker.generation
    breaker.probes_recovered()
    assert (breaker.state.name, breaker.generation) == (state, generation)


# By hand


def test_forced_open_admits_none_whatever_happens():
    """No time, no probe and no late result opens what was forced, until reset."""
    breaker = machine()
    before = breaker.acquire(0.0)
    breaker.force_open()
    breaker.success(before, 0.0)
    breaker.probes_recovered()
    assert not breaker.admits(1e9)
    assert breaker.acquire(1e9) is None
    assert breaker.next_try_at(1e9) is None
    assert breaker.acquire_early(1e9).trial == 0
    assert breaker.state.name is FORCED_OPEN
    breaker.reset()
    assert breaker.acquire(1e9) is not None


def test_disabled_admits_all_and_counts_nothing():
    """A thousand failures do not open it; after reset three do."""
    breaker = opened()
    breaker.disable()
    fail(breaker, 0.0, times=1000)
    assert breaker.state.name is DISABLED
    assert breaker.admits(0.0)
    breaker.reset()
    assert breaker.state.name is CLOSED
    fail(breaker, 0.0, times=2)
    assert breaker.state.name is CLOSED
    fail(breaker, 0.0)
    assert breaker.state.name is OPEN


def test_reset_starts_anew_also_while_closed():
    """After a reset the failures before it are forgotten, those of a closed breaker too."""
    breaker = machine()
    fail(breaker, 0.0, times=2)
    breaker.reset()
    assert breaker.failures == 0
    fail(breaker, 0.0, times=2)
    assert breaker.state.name is CLOSED


@pytest.mark.parametrize("order", ["reset", "force_open", "disable"])
def test_an_order_given_twice_is_one_change(order):
    """Repeating an order tells nobody anything and begins no generation."""
    breaker = machine()
    getattr(breaker, order)()
    changes, generation = len(breaker.changes), breaker.generation
    getattr(breaker, order)()
    assert (len(breaker.changes), breaker.generation) == (changes, generation)


# Failing open


def test_an_early_try_counts_as_the_trial():
    """When nothing else is left an open breaker takes its trial early, and a second early try counts as nothing."""
    breaker = opened()
    trial = breaker.acquire_early(1.0)
    assert breaker.state.name is HALF_OPEN
    assert trial.trial == 1
    extra = breaker.acquire_early(1.0)
    breaker.failure(extra, 2.0)
    breaker.success(extra, 2.0)
    assert breaker.state.name is HALF_OPEN
    breaker.success(trial, 2.0)
    assert breaker.state.name is CLOSED


def test_an_early_try_of_a_closed_breaker_is_an_ordinary_one():
    """A closed breaker counts an early try like any other."""
    breaker = machine(failure_threshold=1)
    breaker.failure(breaker.acquire_early(0.0), 0.0)
    assert breaker.state.name is OPEN


# The rate


def rated(**config):
    """Make a breaker that opens at half of ten calls within 30 s, and never on consecutive failures."""
    return machine(
        failure_threshold=1000, failure_rate=0.5, failure_rate_window=30.0, minimum_calls=10, **config
    )


def test_a_failure_rate_opens_it_once_enough_calls_were_made():
    """At the tenth call half of them failed: open. Before the tenth: nothing, whatever the rate."""
    breaker = rated()
    for nth in range(4):
        fail(breaker, nth * 0.1)
        succeed(breaker, nth * 0.1)
    fail(breaker, 0.5)
    assert breaker.state.name is CLOSED
    fail(breaker, 0.6)
    assert breaker.state.name is OPEN
    assert "60%" in breaker.changes[-1].reason


def test_a_rate_below_the_limit_leaves_it_closed():
    """Four failures in ten calls, again and again, do not reach one half."""
    breaker = rated()
    for nth in range(100):
        now = nth * 0.1
        if nth % 10 in (1, 3, 5, 7):
            fail(breaker, now)
        else:
            succeed(breaker, now)
    assert breaker.state.name is CLOSED


def test_old_calls_leave_the_window():
    """Failures of more than a window ago do not count."""
    breaker = rated()
    fail(breaker, 0.0, times=9)
    fail(breaker, 31.0)
    assert breaker.state.name is CLOSED
    fail(breaker, 31.0, times=9)
    assert breaker.state.name is OPEN


def test_the_window_slides():
    """Failures spread over less than a window add up."""
    breaker = rated()
    for nth in range(9):
        fail(breaker, nth * 3.0)
    assert breaker.state.name is CLOSED
    fail(breaker, 26.0)
    assert breaker.state.name is OPEN


def test_the_window_begins_anew_after_a_change_of_state():
    """A breaker that closed again does not remember the failures that had opened it."""
    breaker = rated(recovery_timeout=1.0)
    fail(breaker, 0.0, times=10)
    succeed(breaker, 1.0)
    fail(breaker, 1.0, times=9)
    assert breaker.state.name is CLOSED


def test_consecutive_failures_open_it_also_when_a_rate_is_given():
    """The rate is an addition, not a replacement."""
    breaker = machine(failure_rate=1.0, minimum_calls=100)
    fail(breaker, 0.0, times=3)
    assert breaker.state.name is OPEN


# Its numbers


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("failure_threshold", 0),
        ("failure_threshold", 1.5),
        ("failure_threshold", True),
        ("recovery_timeout", 0),
        ("recovery_timeout", float("nan")),
        ("recovery_timeout", "30"),
        ("recovery_backoff", 0.9),
        ("max_recovery_timeout", -1),
        ("half_open_permits", 0),
        ("half_open_lease", float("inf")),
        ("failure_rate", 0.0),
        ("failure_rate", 1.1),
        ("failure_rate_window", 0),
        ("minimum_calls", 0),
    ],
)
def test_a_number_that_cannot_work_is_refused(field, value):
    """The error names field and value."""
    with pytest.raises(ConfigurationError) as caught:
        BreakerConfig(**{field: value})
    assert caught.value.field == field
    assert repr(value) in str(caught.value)


# Against a second machine


class Model:
    """The rules again, as plainly as they can be written: no generations, results are matched by permit."""

    def __init__(self, threshold, recovery, backoff, longest, permits, lease):
        self.threshold, self.recovery, self.backoff = threshold, recovery, backoff
        self.longest, self.permits, self.lease = longest, permits, lease
        self.state, self.failures, self.failed_trials, self.until = "closed", 0, 0, 0.0
        self.valid = {}  # permit -> end of lease (None: a closed breaker's), for those whose result counts

    def go(self, state):
        """Change state: what was issued before means nothing any more."""
        if state != self.state:
            self.state, self.failures, self.valid = state, 0, {}
            if state == "closed":
                self.failed_trials = 0

    def open(self, now):
        """Open for a time."""
        self.go("open")
        self.until = now + min(self.recovery * self.backoff**self.failed_trials, self.longest)

    def may_pass(self, now):
        """Tell whether a permit would be given."""
        if self.state == "half_open":
            return sum(until > now for until in self.valid.values()) < self.permits
        return self.state in ("closed", "disabled") or (self.state == "open" and now >= self.until)

    def acquire(self, permit, now):
        """Give a permit, or not."""
        if not self.may_pass(now):
            return False
        if self.state == "open":
            self.go("half_open")
        if self.state == "half_open":
            self.valid = {p: until for p, until in self.valid.items() if until > now}
            self.valid[permit] = now + self.lease
        elif self.state == "closed":
            self.valid[permit] = None
        return True

    def settle(self, permit, verdict, now):
        """Take a result."""
        if permit not in self.valid:
            return
        del self.valid[permit]
        if verdict == "success":
            self.failures = 0
            self.go("closed")
        elif verdict == "failure" and self.state == "half_open":
            self.failed_trials += 1
            self.open(now)
        elif verdict == "failure":
            self.failures += 1
            if self.failures >= self.threshold:
                self.open(now)


class BreakerAgainstModel(RuleBasedStateMachine):
    """Whatever happens in whatever order, both machines do the same."""

    @initialize(
        threshold=st.integers(1, 4),
        backoff=st.sampled_from([1.0, 1.5, 2.0]),
        permits=st.integers(1, 3),
        lease=st.sampled_from([5.0, 60.0]),
    )
    def begin(self, threshold, backoff, permits, lease):
        """Make both with the same numbers."""
        self.now = 0.0
        self.config = (threshold, 30.0, backoff, 100.0, permits, lease)
        self.model = Model(*self.config)
        self.machine = machine(
            failure_threshold=threshold,
            recovery_backoff=backoff,
            max_recovery_timeout=100.0,
            half_open_permits=permits,
            half_open_lease=lease,
        )
        self.issued = []  # grants, by permit number
        self.settled = set()

    @rule()
    def acquire(self):
        """Ask both for a permit."""
        expected = self.model.acquire(len(self.issued), self.now)
        grant = self.machine.acquire(self.now)
        assert (grant is not None) is expected
        if grant is not None:
            self.issued.append(grant)

    @precondition(lambda self: len(self.settled) < len(self.issued))
    @rule(data=st.data(), verdict=st.sampled_from(["success", "failure", "failure", "release"]))
    def settle(self, data, verdict):
        """Report a result of any permit that is out, however old."""
        out = [p for p in range(len(self.issued)) if p not in self.settled]
        permit = data.draw(st.sampled_from(out))
        self.settled.add(permit)
        self.model.settle(permit, verdict, self.now)
        if verdict == "release":
            self.machine.release(self.issued[permit])
        else:
            getattr(self.machine, verdict)(self.issued[permit], self.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 29.0, 30.0, 45.0, 100.0]))
    def advance(self, seconds):
        """Let time pass."""
        self.now += seconds

    @rule()
    def probes_recovered(self):
        """Tell both that probes succeed again."""
        if self.model.state == "open":
            self.model.go("half_open")
        self.machine.probes_recovered()

    @rule(order=st.sampled_from(["force_open", "disable", "reset"]))
    def order(self, order):
        """Give both an order."""
        self.model.go({"force_open": "forced_open", "disable": "disabled", "reset": "closed"}[order])
        if order == "reset":
            self.model.failures = 0
        getattr(self.machine, order)()

    @invariant()
    def same(self):
        """Compare what can be seen from outside."""
        if hasattr(self, "machine"):
            assert self.machine.state.name.value == self.model.state
            assert self.machine.failures == self.model.failures
            assert self.machine.admits(self.now) is self.model.may_pass(self.now)
            if self.model.state == "open":
                assert self.machine.state.next_try_at() == pytest.approx(self.model.until)


TestBreakerAgainstModel = BreakerAgainstModel.TestCase
TestBreakerAgainstModel.settings = settings(max_examples=150, stateful_step_count=40)
