"""The pool: who is eligible, who is picked, what each result does to whom."""

from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from syncfailover.endpoint import Endpoint
from syncfailover.errors import ConfigurationError
from syncfailover.policy import outcome
from syncfailover.policy.balancer import WeightedRoundRobin
from syncfailover.policy.breaker_config import BreakerConfig
from syncfailover.policy.health import HealthConfig, HealthStatus, ProbeResult
from syncfailover.policy.outcome import SUCCEEDED, Outcome
from syncfailover.policy.pool import EndpointPool
from syncfailover.policy.rate_limit import Room
from syncfailover.policy.retry import RetryBudget

# Tiers


def test_the_lowest_priority_that_has_somebody_is_used(bench, endpoint):
    """Peers of priority 0 share the traffic; the emergency exit gets none while one of them is up."""
    made = bench("a", "b", endpoint("x", priority=1), endpoint("y", priority=2))
    assert made.picks(4) == "abab"
    made.trip("a")
    assert made.picks(3) == "bbb"
    made.trip("b")
    assert made.picks(3) == "xxx"
    made.trip("x")
    assert made.picks(3) == "yyy"


def test_the_order_of_the_list_does_not_decide_the_priority(bench, endpoint):
    """A priority of 0 that stands last is still first."""
    assert bench(endpoint("x", priority=5), "a").picks(2) == "aa"


def test_degraded_is_last_within_its_tier(bench, endpoint):
    """Healthy and unknown come before degraded, degraded before a lower priority."""
    made = bench("a", "b", "c", endpoint("x", priority=1))
    made.probe("a", "+", latency_ms=500.0)
    made.probe("b", "+")
    assert made.picks(4) == "bcbc"
    made.trip("b", "c")
    assert made.picks(2) == "aa"
    made.trip("a")
    assert made.picks(1) == "x"


def test_unhealthy_is_not_eligible_and_unknown_is(bench):
    """The first call never waits for a probe; a probe that failed takes an endpoint out, and two good ones bring it back."""
    made = bench("a", "b")
    assert made.picks(2) == "ab"
    made.probe("a", "-")
    assert made.picks(2) == "bb"
    made.probe("a", "+")
    assert made.picks(2) == "bb"
    made.probe("a", "+")
    assert "a" in made.picks(2)


def test_health_and_breaker_are_two_flags(bench):
    """A healthy probe does not admit past an open breaker, nor a closed breaker past a failed probe."""
    made = bench("a", "b")
    made.probe("a", "+")
    made.trip("a")
    made.probe("a", "+++")
    assert made.breaker("a") == "open"
    assert made.picks(2) == "bb"


# Weights


def test_weight_shares_within_a_tier(bench, endpoint):
    """The balancer gets the endpoints' weights."""
    made = bench(endpoint("a", weight=5), "b", "c", balancer="weighted")
    assert made.picks(7) == "aabacaa"


def test_weight_zero_drains(bench, endpoint):
    """A drained endpoint gets nothing, not even when nobody else is left."""
    made = bench(endpoint("a", weight=0), "b")
    assert made.picks(3) == "bbb"
    made.trip("b")
    assert made.picks(1) == "-"
    assert made.begin().endpoint.name == "b"
    alone = bench(endpoint("a", weight=0))
    assert alone.begin() is None
    assert alone.pool.snapshot(alone.clock())["a"].reason == "drained (weight 0)"


def test_a_recovered_endpoint_starts_slowly(bench):
    """After a breaker closed, the weight grows from a tenth to the whole within 10 s."""
    made = bench("a", "b", balancer="weighted", failure_threshold=1)
    made.trip("a")
    made.clock.advance(30.0)
    made.report(made.only("a"))
    shares = []
    for _ in range(3):
        shares.append(made.picks(110).count("a"))
        made.clock.advance(5.0)
    assert shares == [10, pytest.approx(37, abs=2), 55]


def test_a_recovery_by_probes_starts_slowly_too(bench):
    """UNHEALTHY to HEALTHY is a recovery; the very first check is none."""
    made = bench("a", "b", balancer="weighted")
    made.probe("b", "+")
    assert made.picks(10).count("b") == 5
    made.probe("a", "-++")
    assert made.picks(110).count("a") == 10


# Time alone


def test_time_alone_makes_an_open_breaker_eligible(bench):
    """At its time, and not before, an open endpoint is chosen again, once."""
    made = bench("a", "b")
    made.trip("a")
    made.clock.advance(29.9)
    assert made.picks(3) == "bbb"
    made.clock.advance(0.1)
    trial = made.choose()
    assert trial.endpoint.name == "a"
    assert made.breaker("a") == "half_open"
    assert made.picks(3) == "bbb"
    made.report(trial)
    assert "a" in made.picks(2)


def test_time_alone_ends_the_lease_of_a_trial(bench):
    """A trial that never comes back is given to somebody else after the lease."""
    made = bench("a", "b", half_open_lease=60.0)
    made.trip("a")
    made.clock.advance(30.0)
    made.only("a")
    made.clock.advance(59.9)
    assert made.picks(2) == "bb"
    made.clock.advance(0.1)
    assert "a" in made.picks(2)


def test_time_alone_makes_a_probe_stale(bench):
    """What was last checked three intervals and a timeout ago is UNKNOWN, hence eligible."""
    made = bench("a", "b")
    made.probe("a", "-")
    made.clock.advance(6.9)
    assert made.picks(2) == "bb"
    made.clock.advance(0.1)
    assert sorted(made.picks(2)) == ["a", "b"]
    assert made.pool.snapshot(made.clock())["a"].status is HealthStatus.UNKNOWN


def test_growing_stale_is_no_recovery(bench):
    """UNHEALTHY that is forgotten opens no breaker half and starts nothing slowly."""
    made = bench("a", "b", balancer="weighted")
    made.trip("a")
    made.probe("a", "-")
    made.clock.advance(10.0)
    made.pool.expire(made.clock())
    assert made.breaker("a") == "open"
    assert made.pool.nodes["a"].recovered_at is None


def test_time_alone_ends_the_rests(bench):
    """A resting pair and a resting key are chosen again at their times."""
    made = bench("a", "b", "c")
    made.report(made.only("a"), outcome.RATE_LIMIT, retry_after_s=5.0)
    made.report(made.only("b"), outcome.KEY_REFUSED, retry_after_s=9.0)
    assert made.picks(2) == "cc"
    made.clock.advance(4.9)
    assert made.picks(2) == "cc"
    made.clock.advance(0.1)
    assert sorted(made.picks(2)) == ["a", "c"]
    made.clock.advance(3.9)
    assert "b" not in made.picks(4)
    made.clock.advance(0.1)
    assert "b" in made.picks(3)


def test_the_view_is_worked_out_once_per_state(bench):
    """As long as nothing changes the balancer gets the very same candidates; after a change it gets others."""
    given = []

    def pick(candidates):
        given.append(candidates)
        return candidates[0]

    made = bench("a", "b", balancer=SimpleNamespace(pick=pick))
    for _ in range(5):
        made.report(made.begin())
    assert len({id(candidates) for candidates in given}) == 1
    made.trip("b")
    made.choose()
    assert [c.endpoint.name for c in given[-1]] == ["a"]


# Rests


def test_a_rate_limit_rests_the_pair_for_as_long_as_asked(bench):
    """The model rests at that endpoint; other models there and the breaker do not notice."""
    made = bench("a", "b")
    for _ in range(5):
        made.report(made.only("a", model="m"), outcome.RATE_LIMIT, retry_after_s=7.0)
        made.clock.advance(7.0)
    made.report(made.only("a", model="m"), outcome.RATE_LIMIT, retry_after_s=7.0)
    assert made.breaker("a") == "closed"
    assert made.picks(2, model="m") == "bb"
    assert sorted(made.picks(2, model="n")) == ["a", "b"]


@pytest.mark.parametrize(
    ("rule_name", "seconds"),
    [("RATE_LIMIT", 0.5), ("IN_FLIGHT", 0.5), ("MODEL_MISSING", 600.0), ("FORBIDDEN", 3600.0)],
)
def test_a_pair_rests_for_its_own_time_where_none_is_asked(bench, rule_name, seconds):
    """Each outcome has its own default, and only the pair rests."""
    made = bench("a", "b")
    made.report(made.only("a", model="m"), getattr(outcome, rule_name))
    made.clock.advance(seconds - 0.01)
    assert made.picks(2, model="m") == "bb"
    assert "a" in made.picks(2, model="n")
    made.clock.advance(0.01)
    assert "a" in made.picks(2, model="m")


def test_when_a_rest_is_over_the_endpoint_is_not_rushed(bench):
    """One call goes there first; the others follow when it was answered."""
    made = bench("a", "b")
    made.report(made.only("a", model="m"), outcome.RATE_LIMIT, retry_after_s=3.0)
    made.clock.advance(3.0)
    under_way = [made.pool.choose(made.clock(), "m") for _ in range(6)]
    assert [attempt.endpoint.name for attempt in under_way].count("a") == 1
    for attempt in under_way:
        made.report(attempt, outcome.OK)
    assert made.picks(6, model="m").count("a") == 3


@pytest.mark.parametrize("rule_name", ["KEY_REFUSED", "QUOTA"])
def test_a_key_rests_for_every_model(bench, rule_name):
    """For an hour, whatever model is asked for."""
    made = bench("a", "b")
    made.report(made.only("a", model="m"), getattr(outcome, rule_name))
    assert made.picks(2, model="n") == "bb"
    made.clock.advance(3599.0)
    assert made.picks(2) == "bb"
    made.clock.advance(1.0)
    assert "a" in made.picks(2)
    assert made.breaker("a") == "closed"


def test_overloaded_rests_only_if_it_asks_to(bench):
    """503 with Retry-After rests the pair, 503 without it does not."""
    made = bench("a", "b")
    made.report(made.only("a"), outcome.OVERLOADED)
    assert "a" in made.picks(2)
    made.report(made.only("a"), outcome.OVERLOADED, retry_after_s=20.0)
    assert made.picks(2) == "bb"


@pytest.mark.parametrize(
    "rule_name",
    ["CONTEXT_LENGTH", "FILTERED", "REJECTED", "TRANSIENT", "SERVER_ERROR", "NO_ANSWER", "TIMED_OUT"],
)
def test_other_outcomes_rest_nobody(bench, rule_name):
    """Neither pair nor key rests, even if the reply names a time."""
    made = bench("a", "b")
    made.report(made.only("a"), getattr(outcome, rule_name), retry_after_s=50.0)
    assert "a" in made.picks(2)


def test_a_success_ends_the_rest_of_its_pair_at_once(bench):
    """A retry on the same endpoint that succeeds makes the pair eligible again."""
    made = bench("a", "b")
    made.report(made.only("a"), outcome.RATE_LIMIT, retry_after_s=60.0)
    assert made.picks(1) == "b"
    again = made.pool.choose_same(made.clock(), None, "a")
    made.report(again)
    assert "a" in made.picks(2)


def test_a_late_success_does_not_end_a_rest(bench):
    """A call that was under way before the rate limit says nothing about the time after it."""
    made = bench("a", "b")
    slow = made.only("a")
    made.clock.advance(1.0)
    made.report(made.only("a"), outcome.RATE_LIMIT, retry_after_s=60.0)
    made.report(slow)
    assert made.picks(3) == "bbb"


def test_a_late_success_does_not_end_a_keys_rest(bench):
    """Neither may a call, such as a long stream, that was under way before the key was refused."""
    made = bench("a", "b")
    slow = made.only("a")
    made.clock.advance(1.0)
    made.report(made.only("a"), outcome.KEY_REFUSED)
    made.report(slow)
    assert made.picks(3) == "bbb"


def test_a_key_that_begins_to_rest_is_told_once(bench):
    """One event says why and for how long; calls that were under way say nothing new, the next rest does."""
    made = bench("a", "b")
    slow = made.only("a")
    made.report(made.only("a"), outcome.QUOTA)
    made.report(slow, outcome.KEY_REFUSED)
    (told,) = made.pool.outbox
    assert (told.name, told.endpoint, told.reason) == (
        "key_rests",
        "a",
        "quota_exhausted; not used for 3600 s",
    )
    made.events()
    made.clock.advance(3600.0)
    made.report(made.only("a"), outcome.QUOTA)
    assert made.events() == [("key_rests", "a")]


def test_a_key_that_a_probe_saw_refused_rests_until_a_probe_sees_it_accepted(bench):
    """401 on the health path rests the key; the next good probe ends that, as it may not end what a call found."""
    made = bench("a", "b")
    made.probe("a", "+", key_refused=True)
    assert made.picks(2) == "bb"
    assert "key rests" in made.pool.snapshot(made.clock())["a"].reason
    made.probe("a", "+")
    assert "a" in made.picks(2)
    made.report(made.only("a"), outcome.QUOTA)
    made.probe("a", "+")
    assert made.picks(2) == "bb"


# Concurrency and models


def test_a_full_bulkhead_is_not_eligible(bench, endpoint):
    """At `max_concurrency` requests in flight an endpoint is left out, until one comes back."""
    made = bench(endpoint("a", max_concurrency=2), endpoint("x", priority=1))
    first, second = made.choose(), made.choose()
    assert [first.endpoint.name, second.endpoint.name] == ["a", "a"]
    assert made.choose().endpoint.name == "x"
    assert made.pool.snapshot(made.clock())["a"].reason == "busy (2 in flight)"
    made.report(first)
    assert made.choose().endpoint.name == "a"
    made.pool.release(second)
    assert made.choose().endpoint.name == "a"


def test_failing_open_does_not_break_the_bulkhead(bench, endpoint):
    """Not even the last resort sends more than `max_concurrency`."""
    made = bench(endpoint("a", max_concurrency=1))
    assert made.begin() is not None
    assert made.begin() is None


def test_only_endpoints_that_serve_the_model_are_asked(bench, endpoint):
    """A model map without the name leaves an endpoint out, when choosing and when failing open."""
    made = bench(endpoint("a", models={"m": "m-2024"}), endpoint("b", models=["n"]))
    assert made.picks(2, model="m") == "aa"
    assert made.picks(2, model="n") == "bb"
    assert made.picks(1, model="o") == "-"
    assert made.begin("o") is None
    assert made.pool.serves("m")
    assert not made.pool.serves("o")
    made.trip("a", model="m")
    assert made.begin("m").endpoint.name == "a"


def test_a_thousand_models_are_no_leak(bench):
    """Model names come from callers; the views kept are bounded."""
    made = bench("a")
    for number in range(1000):
        made.report(made.begin(f"m{number}"))
    assert len(made.pool.roster._views) <= 128


# Excluding


def test_the_excluded_are_not_chosen(bench, endpoint):
    """Neither in their own tier nor below; with all excluded there is nobody."""
    made = bench("a", "b", endpoint("x", priority=1))
    assert {made.choose("a").endpoint.name for _ in range(4)} == {"b"}
    assert made.choose("a", "b").endpoint.name == "x"
    assert made.choose("a", "b", "x") is None


def test_within_bounds_the_priority(bench, endpoint):
    """With a bound nobody beyond it is chosen."""
    made = bench("a", endpoint("x", priority=1), endpoint("y", priority=2))
    assert made.choose("a", within=0) is None
    assert made.choose("a", within=1).endpoint.name == "x"
    assert made.choose("a", "x", within=1) is None


def test_alternatives_are_counted(bench, endpoint):
    """An attempt knows how many others could be asked instead, lower priorities included."""
    made = bench("a", "b", endpoint("x", priority=1))
    assert made.choose().alternatives == 2
    assert made.choose("a").alternatives == 1
    assert made.choose("a", "b").alternatives == 0
    made.trip("b")
    assert made.choose().alternatives == 1


def test_the_same_once_more(bench, endpoint):
    """The same endpoint is given although its pair rests, and not if it is down, busy, or its key rests."""
    made = bench("a", endpoint("x", priority=1, max_concurrency=1))
    made.report(made.only("a"), outcome.RATE_LIMIT, retry_after_s=60.0)
    again = made.pool.choose_same(made.clock(), None, "a")
    assert again.endpoint.name == "a"
    assert again.alternatives == 1
    made.report(again, outcome.QUOTA)
    assert made.pool.choose_same(made.clock(), None, "a") is None
    made.only("x")
    assert made.pool.choose_same(made.clock(), None, "x") is None
    down = bench("b")
    down.trip("b")
    assert down.pool.choose_same(down.clock(), None, "b") is None


# Failing open


def test_failing_open_takes_the_earliest_to_reopen(bench):
    """With nobody eligible a fresh call gets one attempt at the endpoint that reopens first."""
    made = bench("a", "b", "c")
    for name in "bca":
        made.trip(name)
        made.clock.advance(1.0)
    assert made.choose() is None
    attempt = made.begin()
    assert attempt.endpoint.name == "b"
    assert attempt.grant.trial == 1
    assert made.breaker("b") == "half_open"


def test_failing_open_heals_at_once_when_it_succeeds(bench):
    """The early try is the half-open trial: its success closes the breaker."""
    made = bench("a")
    made.trip("a")
    made.report(made.begin())
    assert made.breaker("a") == "closed"


def test_failing_open_never_takes_a_forced_open_one(bench):
    """What somebody shut by hand stays shut."""
    made = bench("a", "b")
    made.pool.control("a", "force_open", made.clock())
    made.trip("b")
    assert {made.begin().endpoint.name for _ in range(3)} == {"b"}
    made.pool.control("b", "force_open", made.clock())
    assert made.begin() is None
    assert made.pool.retry_after_s(made.clock()) is None


def test_failing_open_takes_an_unhealthy_one_with_a_closed_breaker(bench):
    """Probes may be wrong: with all of them failing, a call is tried all the same."""
    made = bench("a")
    made.probe("a", "-")
    assert made.choose() is None
    made.report(made.begin())
    assert made.breaker("a") == "closed"


def test_failing_open_counts_the_rests(bench):
    """One whose key rests for an hour reopens later than one that is open for 30 s."""
    made = bench("a", "b")
    made.report(made.only("a"), outcome.KEY_REFUSED)
    made.trip("b")
    assert made.begin().endpoint.name == "b"


def test_the_time_until_somebody_reopens(bench, endpoint):
    """`retry_after_s` is that of the first to reopen; a drained one does not count."""
    made = bench("a", "b", endpoint("d", weight=0))
    assert made.pool.retry_after_s(made.clock()) == 0.0
    made.trip("a")
    made.clock.advance(10.0)
    made.trip("b")
    assert made.pool.retry_after_s(made.clock()) == pytest.approx(20.0)


def test_the_time_until_somebody_serves_a_model(bench, endpoint):
    """A model's own rest counts; who fails probes or is busy has no time, for now is not it."""
    made = bench(endpoint("a", models=["m"]), endpoint("b", models=["n"], max_concurrency=1))
    made.report(made.only("a", "m"), outcome.RATE_LIMIT, retry_after_s=7.0)
    assert made.pool.retry_after_s(made.clock(), "m") == pytest.approx(7.0)
    made.begin("n")
    assert made.pool.retry_after_s(made.clock(), "n") is None
    made.clock.advance(7.0)
    made.probe("a", "-")
    assert made.pool.retry_after_s(made.clock(), "m") is None


# Reports


def test_a_second_report_changes_nothing(bench):
    """Of several results of one attempt only the first counts."""
    made = bench("a", "b")
    attempt = made.only("a")
    made.report(attempt)
    for _ in range(5):
        made.report(attempt, outcome.SERVER_ERROR)
        made.pool.release(attempt)
    assert made.breaker("a") == "closed"
    assert made.pool.nodes["a"].in_flight == 0
    assert made.pool.nodes["a"].breaker.failures == 0


def test_a_cancelled_attempt_is_neutral(bench):
    """A release neither trips nor heals, and gives a trial back."""
    made = bench("a", "b")
    for _ in range(2):
        made.report(made.only("a"), outcome.SERVER_ERROR)
    made.pool.release(made.only("a"))
    assert made.pool.nodes["a"].breaker.failures == 2
    made.report(made.only("a"), outcome.SERVER_ERROR)
    made.clock.advance(30.0)
    made.pool.release(made.only("a"))
    assert made.breaker("a") == "half_open"
    assert made.only("a").endpoint.name == "a"


@pytest.mark.parametrize("rule_name", ["REJECTED", "FILTERED", "CONTEXT_LENGTH", "TRANSIENT", "RATE_LIMIT"])
def test_a_neutral_outcome_neither_trips_nor_heals(bench, rule_name):
    """A 400 counts neither way."""
    made = bench("a")
    for _ in range(2):
        made.report(made.only("a"), outcome.SERVER_ERROR)
    again = made.pool.choose_same(made.clock(), None, "a")
    made.report(again, getattr(outcome, rule_name))
    assert made.pool.nodes["a"].breaker.failures == 2
    assert made.breaker("a") == "closed"


def test_a_late_result_after_a_trip_changes_nothing(bench):
    """Calls that were under way when the breaker opened do not touch it, but are no longer in flight."""
    made = bench("a", "b", half_open_permits=2)
    late = [made.only("a") for _ in range(3)]
    made.trip("a")
    made.report(late[0])
    assert made.breaker("a") == "open"
    made.clock.advance(30.0)
    made.only("a")
    made.report(late[1], outcome.SERVER_ERROR)
    made.report(late[2])
    assert made.breaker("a") == "half_open"
    assert made.pool.nodes["a"].in_flight == 1


def test_live_latency_is_learned(bench):
    """A success teaches how long it took; an error counts at least its timeout."""
    made = bench("a", "b")
    attempt = made.only("a")
    made.clock.advance(0.2)
    made.report(attempt)
    assert made.pool.nodes["a"].latency.value_ms(made.clock()) == pytest.approx(200.0)
    attempt = made.only("b")
    attempt.timeout_s = 3.0
    made.report(attempt, outcome.UNREACHABLE)
    assert made.pool.nodes["b"].latency.value_ms(made.clock()) == pytest.approx(3000.0)


def test_a_neutral_outcome_teaches_no_latency(bench):
    """A quick 429 does not make an endpoint look quick."""
    made = bench("a")
    made.report(made.only("a"), outcome.RATE_LIMIT)
    assert made.pool.nodes["a"].latency.value_ms(made.clock()) is None


def test_forgetting_what_is_in_flight(bench, endpoint):
    """In a forked child the parent's calls are not under way, and fill no bulkhead."""
    made = bench(endpoint("a", max_concurrency=1))
    made.choose()
    assert made.choose() is None
    made.pool.forget_past(made.clock())
    assert made.choose().endpoint.name == "a"


def test_a_call_earns_and_a_retry_costs(bench):
    """Beginning deposits into the shared budget, and retries come out of it."""
    budget = RetryBudget(capacity=1.0)
    made = bench("a", budget=budget)
    assert made.pool.withdraw_retry(made.clock())
    assert not made.pool.withdraw_retry(made.clock())
    for _ in range(6):
        made.report(made.begin())
    assert made.pool.withdraw_retry(made.clock())


# Context windows


@pytest.mark.parametrize(
    ("windows", "model", "smaller"),
    [
        ({"a": 8000, "b": 16000, "c": 8000, "d": None}, None, {"a", "c", "d"}),
        ({"a": None, "b": 16000, "c": None}, None, {"a", "c"}),
        ({"a": {"m": 8000, "n": 99000}, "b": {"m": 16000, "n": 16000}}, "m", {"a"}),
        ({"a": {"m": 8000, "n": 99000}, "b": {"m": 16000, "n": 16000}}, "n", {"a", "b"}),
        ({"a": {"m": 8000, "*": 99000}, "b": 16000}, "n", {"a", "b"}),
    ],
)
def test_who_has_no_larger_window(bench, endpoint, windows, model, smaller):
    """Only a window that is declared, and larger than the refusing one's, is of use."""
    made = bench(*(endpoint(name, context_window=window) for name, window in windows.items()))
    assert made.pool.smaller_windows(made.only("a", model)) == smaller


# Asking again


def test_ready_at_is_the_first_that_is_up(bench):
    """One that rests is ready at the end of its rest, one that does not is ready now; one that is down never."""
    made = bench("a", "b", "c")
    made.report(made.only("a"), outcome.RATE_LIMIT, retry_after_s=9.0)
    made.report(made.only("b"), outcome.RATE_LIMIT, retry_after_s=4.0)
    now = made.clock()
    assert made.pool.ready_at(now, None, frozenset()) == now
    made.trip("c")
    assert made.pool.ready_at(now, None, frozenset()) == now + 4.0
    assert made.pool.ready_at(now, None, frozenset("b")) == now + 9.0
    assert made.pool.ready_at(now, None, frozenset("ab")) is None


# Events


def test_events_tell_the_story_in_order(bench):
    """Opening, half-opening and closing; all down after the last, recovered with the first."""
    made = bench("a", "b", failure_threshold=1)
    made.trip("a")
    assert made.events() == [("breaker_opened", "a")]
    made.trip("b")
    assert made.events() == [("breaker_opened", "b"), ("all_down", None)]
    made.clock.advance(30.0)
    trial = made.begin()
    name = trial.endpoint.name
    assert made.events() == [("breaker_half_opened", name)]
    made.report(trial, outcome.SERVER_ERROR)
    assert made.events() == [("breaker_opened", name)]
    trial = made.begin()
    made.report(trial)
    other = trial.endpoint.name
    assert made.events() == [
        ("breaker_half_opened", other),
        ("breaker_closed", other),
        ("recovered", None),
    ]


def test_an_opening_says_why_and_for_how_long(bench):
    """The event's reason holds the count, the last failure and the time of the next try."""
    made = bench("a", "b")
    made.trip("a")
    event = made.pool.outbox[-1]
    assert (event.old, event.new) == ("closed", "open")
    assert event.reason == "3 consecutive failures (last: server_error); next try in 30.0 s"


def test_health_changes_are_told_once(bench):
    """Each change of status is one event, a status that stays is none; all down and recovered come by probes too."""
    made = bench("a")
    made.probe("a", "++")
    assert made.events() == [("health_changed", "a")]
    made.probe("a", "---")
    assert made.events() == [("health_changed", "a"), ("all_down", None)]
    made.probe("a", "+")
    assert made.events() == []
    made.probe("a", "+")
    assert made.events() == [("health_changed", "a"), ("recovered", None)]


def test_a_drained_endpoint_does_not_keep_the_pool_up(bench, endpoint):
    """With only a drained one left, all are down."""
    made = bench("a", endpoint("d", weight=0))
    made.trip("a")
    assert made.events()[-1] == ("all_down", None)


def test_probes_that_recover_open_a_breaker_half(bench):
    """UNHEALTHY to HEALTHY makes an open breaker half-open early; a probe that never failed says nothing."""
    made = bench("a", "b")
    made.trip("a")
    made.probe("a", "+++")
    assert made.breaker("a") == "open"
    made.probe("a", "---")
    made.probe("a", "+")
    assert made.breaker("a") == "open"
    made.probe("a", "+")
    assert made.breaker("a") == "half_open"
    assert made.choose("b").endpoint.name == "a"


@pytest.mark.parametrize(
    ("order", "state", "event"),
    [("force_open", "forced_open", "breaker_opened"), ("disable", "disabled", "breaker_closed")],
)
def test_orders_by_hand(bench, order, state, event):
    """An order changes the state, tells it, and is undone by reset."""
    made = bench("a", "b")
    made.pool.control("a", order, made.clock())
    assert made.breaker("a") == state
    assert made.events() == [(event, "a")]
    assert ("a" in made.picks(4)) is (order == "disable")
    made.pool.control("a", "reset", made.clock())
    assert made.breaker("a") == "closed"
    assert "a" in made.picks(4)


def test_an_order_for_nobody_is_refused(bench):
    """An unknown name is an error that lists the known ones."""
    with pytest.raises(ConfigurationError, match=r"^endpoint: 'z' .*a, b"):
        bench("a", "b").pool.control("z", "reset", 0.0)


def test_a_key_that_works_again_is_used_at_once(bench):
    """A call begun before a probe found the key refused answers: the endpoint is back in the next choice."""
    made = bench("a", "b")
    earlier = made.only("a")
    made.probe("a", "+", key_refused=True)
    assert made.picks(2) == "bb"
    made.report(earlier)
    assert sorted(made.picks(2)) == ["a", "b"]


# Snapshots


def test_a_snapshot_says_how_everybody_is(bench, endpoint):
    """In the caller's order, each in one clause, and immutable."""
    made = bench(endpoint("x", priority=1), "a", "b")
    made.probe("x", "+", latency_ms=12.0)
    made.trip("a")
    made.choose()
    snapshot = made.pool.snapshot(made.clock())
    assert list(snapshot) == ["x", "a", "b"]
    assert str(snapshot) == "x healthy 12 ms, a open for 30.0 s (server_error), b unknown"
    assert snapshot["b"].in_flight == 1
    assert snapshot["a"].retry_at == made.clock() + 30.0
    assert [state.eligible for state in snapshot.values()] == [True, False, True]
    with pytest.raises((AttributeError, TypeError)):
        snapshot["a"].reason = "other"


# What cannot be a pool


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ([], "the list is empty"),
        (None, "a list of Endpoint"),
        (3, "a list of Endpoint"),
        (["http://127.0.0.1"], "a list of Endpoint"),
        ([Endpoint("a", "http://h/v1"), Endpoint("a", "http://i/v1")], "each name only once"),
        ([[Endpoint("a", "http://h/v1")]], "unpacked with"),
    ],
)
def test_endpoints_that_cannot_be_a_pool(endpoints, said):
    """An empty list, two of a name, something else: a clear error at once."""
    with pytest.raises(ConfigurationError, match=f"^endpoints: .*{said}"):
        pool_of(endpoints)


def pool_of(endpoints, **options):
    """Make a pool with the usual numbers."""
    return EndpointPool(
        endpoints,
        **{
            "balancer": "weighted",
            "breaker": BreakerConfig(),
            "health": HealthConfig(),
            "budget": RetryBudget(),
            "chance": lambda: 0.0,
            **options,
        },
    )


def test_one_endpoint_needs_no_list():
    """A single `Endpoint` is a pool of one."""
    assert pool_of(Endpoint("a", "http://h/v1")).begin(0.0, None).endpoint.name == "a"


@pytest.mark.parametrize("returned", [None, "a", 0])
def test_a_balancer_that_returns_something_else_is_told(returned):
    """A custom balancer's slip is a clear error and takes no permit."""
    pool = pool_of([Endpoint("a", "http://h/v1")], balancer=SimpleNamespace(pick=lambda _: returned))
    with pytest.raises(ConfigurationError, match=r"^balancer: .*one of the candidates"):
        pool.begin(0.0, None)
    assert pool.nodes["a"].in_flight == 0


# Whatever happens

NAMES = ("a", "b", "c", "x", "d")
RESULTS = [
    *[SUCCEEDED] * 3,
    *[Outcome(outcome.SERVER_ERROR, "HTTP 500")] * 4,
    Outcome(outcome.REJECTED, "HTTP 400"),
    Outcome(outcome.RATE_LIMIT, "HTTP 429"),
    Outcome(outcome.RATE_LIMIT, "HTTP 429", retry_after_s=3.0),
    Outcome(outcome.KEY_REFUSED, "HTTP 401", retry_after_s=5.0),
    Outcome(outcome.UNREACHABLE, "connect refused"),
]
ROOMS = [
    *[None] * 4,
    Room(None, little=True, reset_s=5.0),
    Room(0.0, little=True, reset_s=60.0),
    Room(2.0, little=False, reset_s=3.0),
    Room(100.0, little=False, reset_s=3.0),
]


class PoolUnderFire(RuleBasedStateMachine):
    """Random calls, results, probes, orders and time: what must hold always does."""

    @initialize(
        permits=st.integers(1, 2), balancer=st.sampled_from(["weighted", "round_robin", "least_busy"])
    )
    def begin_with(self, permits, balancer):
        """Make a pool of two tiers with one drained and one small endpoint."""
        url = "http://127.0.0.1:1/v1"
        self.now = 0.0
        self.permits = permits
        self.out = []
        self.done = []
        self.pool = EndpointPool(
            [
                Endpoint("a", url, weight=3),
                Endpoint("b", url, max_concurrency=2),
                Endpoint("c", url, models=["m"]),
                Endpoint("x", url, priority=1),
                Endpoint("d", url, weight=0),
            ],
            balancer=balancer,
            breaker=BreakerConfig(half_open_permits=permits, half_open_lease=20.0, recovery_timeout=10.0),
            health=HealthConfig(),
            budget=RetryBudget(),
            chance=lambda: 0.0,
        )

    def tier(self, name, model):
        """Tell how good a choice an endpoint is, by looking at the node and its rate limit alone."""
        node = self.pool.nodes[name]
        scarce = self.now < self.pool.roster.rooms.until(name, model)
        return node.priority, scarce, node.health.status is HealthStatus.DEGRADED

    def eligible(self, model, exclude):
        """Name those that may be chosen, by looking at the nodes alone."""
        self.pool.expire(self.now)
        return [
            name
            for name, node in self.pool.nodes.items()
            if name not in exclude
            and node.endpoint.serves(model) is not None
            and node.usable(self.now)
            and self.now >= self.pool.roster.rests.until(name, model)
        ]

    @rule(model=st.sampled_from([None, "m", "n"]), exclude=st.sets(st.sampled_from(NAMES), max_size=3))
    def choose(self, model, exclude):
        """Somebody of the best tier is chosen, if and only if somebody is eligible."""
        may = self.eligible(model, exclude)
        tiers = {name: self.tier(name, model) for name in may}  # as before the call that is granted
        best = min(tiers.values(), default=None)
        attempt = self.pool.choose(self.now, model, frozenset(exclude))
        assert (attempt is None) is (not may)
        if attempt is not None:
            name = attempt.endpoint.name
            assert name in may
            assert name not in exclude
            assert name != "d"
            assert tiers[name] == best
            assert attempt.alternatives == len(may) - 1
            self.out.append(attempt)

    @rule(model=st.sampled_from([None, "m", "n"]))
    def begin(self, model):
        """A fresh call gets somebody, unless all are drained, busy or forced open."""
        may = self.eligible(model, ())
        forced = [n for n, node in self.pool.nodes.items() if node.breaker.state.name.value == "forced_open"]
        attempt = self.pool.begin(self.now, model)
        if may:
            assert attempt.endpoint.name in may
        if attempt is not None:
            assert attempt.endpoint.name not in forced
            assert attempt.endpoint.weight > 0
            self.out.append(attempt)

    @rule(model=st.sampled_from([None, "m", "n"]), conversation=st.integers(0, 2))
    def begin_at_home(self, model, conversation):
        """A conversation stays where it lives while that is eligible, and begins at one of the best."""
        may = self.eligible(model, ())
        home = self.pool.roster.homes.of(conversation, model)
        tiers = {name: self.tier(name, model) for name in may}
        attempt = self.pool.begin(self.now, model, conversation)
        if may:
            name = attempt.endpoint.name
            assert name in may
            assert attempt.alternatives == len(may) - 1
            if home in may and not tiers[home][1]:
                assert name == home
            elif home not in may:
                assert tiers[name] == min(tiers.values())
        if attempt is not None:
            self.out.append(attempt)

    @rule(name=st.sampled_from(NAMES))
    def choose_same(self, name):
        """The same is given if it is usable, and never otherwise."""
        usable = self.pool.nodes[name].usable(self.now)
        attempt = self.pool.choose_same(self.now, "m", name)
        assert (attempt is not None) is usable
        if attempt is not None:
            self.out.append(attempt)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), result=st.sampled_from(RESULTS), room=st.sampled_from(ROOMS))
    def report(self, data, result, room):
        """A result comes back, in any order, with or without what is left of the rate limit."""
        attempt = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.pool.report(attempt, result, self.now, room)
        self.done.append(attempt)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data):
        """A call is cancelled."""
        attempt = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.pool.release(attempt)
        self.done.append(attempt)

    @precondition(lambda self: self.done)
    @rule(data=st.data(), result=st.sampled_from(RESULTS))
    def report_again(self, data, result):
        """A second result of the same attempt changes nothing that can be seen."""
        attempt = data.draw(st.sampled_from(self.done[-5:]))
        before = repr(self.pool.snapshot(self.now)), len(self.pool.outbox), self.budget_left()
        self.pool.report(attempt, result, self.now)
        self.pool.release(attempt)
        assert (repr(self.pool.snapshot(self.now)), len(self.pool.outbox), self.budget_left()) == before

    def budget_left(self):
        """Read the budget."""
        return self.pool.budget.tokens

    @rule(name=st.sampled_from(NAMES), alive=st.booleans(), slow=st.booleans(), refused=st.booleans())
    def probe(self, name, alive, slow, refused):
        """A probe comes back."""
        latency_ms = (900.0 if slow else 5.0) if alive else None
        self.pool.probed(ProbeResult(name, alive, "seen", latency_ms, None, alive and refused), self.now)

    @rule(name=st.sampled_from(NAMES), order=st.sampled_from(["force_open", "reset", "reset", "disable"]))
    def control(self, name, order):
        """Somebody gives an order."""
        self.pool.control(name, order, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 3.0, 5.0, 10.0, 20.0, 100.0]))
    def advance(self, seconds):
        """Time passes."""
        self.now += seconds

    @invariant()
    def in_flight_is_what_is_out(self):
        """Each node counts exactly the attempts that were not settled."""
        if hasattr(self, "pool"):
            for name, node in self.pool.nodes.items():
                assert node.in_flight == sum(a.endpoint.name == name for a in self.out)

    @invariant()
    def no_more_trials_than_permits(self):
        """Of the present generation no more trials are out, on a lease that runs, than there are permits."""
        if hasattr(self, "pool"):
            for name, node in self.pool.nodes.items():
                trials = [
                    a
                    for a in self.out
                    if a.endpoint.name == name
                    and a.grant.trial
                    and a.grant.generation == node.breaker.generation
                    and a.started + 20.0 > self.now
                ]
                assert len(trials) <= self.permits

    @invariant()
    def the_bulkhead_holds(self):
        """Never more in flight than allowed."""
        if hasattr(self, "pool"):
            assert self.pool.nodes["b"].in_flight <= 2


TestPoolUnderFire = PoolUnderFire.TestCase
TestPoolUnderFire.settings = settings(max_examples=150, stateful_step_count=50)


def test_equals_begin_anew_when_one_comes_back() -> None:
    """Their order is drawn by chance, and nobody is owed anything: a fleet that saw the same outage does not move in step."""
    draws = iter([0.0, 0.9, 0.5, 0.1])  # a's jitter when it opens, then a place for each
    made = EndpointPool(
        [Endpoint(name, "http://127.0.0.1:1/v1") for name in "abc"],
        balancer="weighted",
        breaker=BreakerConfig(failure_threshold=1),
        health=HealthConfig(),
        budget=RetryBudget(),
        chance=lambda: next(draws),
    )
    made.report(made.choose(0.0, None), Outcome(outcome.SERVER_ERROR, "HTTP 500"), 0.0)
    owing = [made.choose(1.0, None).endpoint.name for _ in range(3)]
    assert sorted(owing) == ["b", "b", "c"] or sorted(owing) == ["b", "c", "c"]
    made.report(made.choose_same(40.0, None, "a"), SUCCEEDED, 40.0)
    assert [node.name for node in made.roster.by_priority] == ["c", "b", "a"]
    assert vars(made.balancer).keys() == vars(WeightedRoundRobin()).keys()
    assert [made.choose(60.0, None).endpoint.name for _ in range(3)] == ["c", "b", "a"]
