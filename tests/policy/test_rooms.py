"""Rate awareness in the pool: away from who has little left, within a priority, and back when it is full again."""

from collections import Counter
from typing import Any

import pytest

from syncfailover.policy import outcome
from syncfailover.policy.outcome import SUCCEEDED, Outcome
from syncfailover.policy.rate_limit import Room
from syncfailover.policy.rooms import Rooms

LITTLE = Room(0.0, little=True, reset_s=10.0)


def hear(made: Any, name: str, room: Room, rule: outcome.Rule = outcome.OK, model: str = "m") -> None:
    """Let one endpoint's reply say what is left."""
    result = SUCCEEDED if rule is outcome.OK else Outcome(rule, rule.name)
    made.pool.report(made.only(name, model), result, made.clock(), room)


@pytest.mark.parametrize("balancer", ["weighted", "round_robin", "least_busy", "lowest_latency", "cheapest"])
def test_a_peer_with_more_left_is_asked_first(bench: Any, balancer: str) -> None:
    """Until the reset nobody else is, with whatever balancer; then both are again."""
    made = bench("a", "b", balancer=balancer)
    hear(made, "a", LITTLE)
    assert made.picks(6, "m") == "bbbbbb"
    made.clock.advance(9.9)
    assert made.picks(2, "m") == "bb"
    made.clock.advance(0.1)
    assert "a" in made.picks(6, "m")


def test_with_little_left_everywhere_all_are_asked(bench: Any) -> None:
    """It orders, and refuses nobody."""
    made = bench("a", "b")
    hear(made, "a", LITTLE)
    hear(made, "b", LITTLE)
    assert Counter(made.picks(6, "m")) == {"a": 3, "b": 3}


def test_a_lower_priority_is_not_used_for_that(bench: Any, endpoint: Any) -> None:
    """The emergency exit is for failures."""
    made = bench("a", "b", endpoint("x", priority=1))
    hear(made, "a", LITTLE)
    hear(made, "b", LITTLE)
    assert "x" not in made.picks(6, "m")


def test_who_has_more_left_comes_before_who_is_healthier(bench: Any) -> None:
    """Slow beats refused."""
    made = bench("a", "b")
    made.probe("b", "+", latency_ms=900.0)
    hear(made, "a", LITTLE)
    assert made.picks(3, "m") == "bbb"


def test_it_is_about_one_model(bench: Any) -> None:
    """Another model has a limit of its own."""
    made = bench("a", "b")
    hear(made, "a", LITTLE)
    assert made.picks(2, "m") == "bb"
    assert sorted(made.picks(2, "n")) == ["a", "b"]


@pytest.mark.parametrize(
    "rule", [outcome.RATE_LIMIT, outcome.OVERLOADED, outcome.SERVER_ERROR, outcome.REJECTED]
)
def test_a_refusal_says_it_too(bench: Any, rule: outcome.Rule) -> None:
    """The headers of a 429, 503, 500 or 400 count as those of an answer."""
    made = bench("a", "b")
    hear(made, "a", LITTLE, rule)
    made.clock.advance(9.0)  # whatever rests is over
    assert made.picks(3, "m") == "bbb"


def test_a_later_reply_with_more_left_brings_it_back(bench: Any) -> None:
    """Somebody was given a larger limit."""
    made = bench("a", "b")
    hear(made, "a", LITTLE)
    made.clock.advance(1.0)
    hear(made, "a", Room(500.0, little=False, reset_s=10.0))
    assert "a" in made.picks(2, "m")


def test_an_earlier_call_s_reply_does_not(bench: Any) -> None:
    """Replies come in any order: one to a call from before says what was left before."""
    made = bench("a", "b")
    earlier = made.only("a", "m")
    made.clock.advance(1.0)
    hear(made, "a", LITTLE)
    made.pool.report(earlier, SUCCEEDED, made.clock(), Room(50.0, little=False, reset_s=10.0))
    assert made.picks(3, "m") == "bbb"


def test_calls_that_leave_are_counted_before_they_are_answered(bench: Any) -> None:
    """Five are left and one is kept in reserve: of twelve calls at once four go there."""
    made = bench("a", "b")
    hear(made, "a", Room(5.0, little=False, reset_s=10.0))
    hear(made, "b", Room(500.0, little=False, reset_s=10.0))
    under_way = [made.choose(model="m") for _ in range(12)]
    assert Counter(attempt.endpoint.name for attempt in under_way) == {"a": 4, "b": 8}


def test_what_was_heard_is_worth_nothing_after_the_reset(bench: Any) -> None:
    """Then it is full: calls are no longer counted against it."""
    made = bench("a", "b")
    hear(made, "a", Room(5.0, little=False, reset_s=10.0))
    made.clock.advance(10.0)
    under_way = [made.choose(model="m") for _ in range(12)]
    assert Counter(attempt.endpoint.name for attempt in under_way) == {"a": 6, "b": 6}


def test_a_reset_by_hand_forgets_it(bench: Any) -> None:
    """As it does all else that keeps calls away."""
    made = bench("a", "b")
    hear(made, "a", LITTLE)
    made.pool.control("a", "reset", made.clock())
    assert "a" in made.picks(2, "m")


def test_little_left_is_neither_down_nor_refused(bench: Any) -> None:
    """Its status says nothing of it, and a single endpoint serves on."""
    made = bench("a")
    hear(made, "a", LITTLE)
    assert made.picks(3, "m") == "aaa"
    assert made.pool.snapshot(made.clock())["a"].eligible
    assert made.events() == []


def test_models_without_number_are_not_remembered_for_ever() -> None:
    """Names come from callers; beyond some thousand the oldest knowledge goes."""
    rooms = Rooms()
    for number in range(10_000):
        rooms.note("a", f"m{number}", LITTLE, 0, 0.0, 0.0)
    assert len(rooms._left) <= 4096
    assert rooms.until("a", "m9999") == 10.0


# Busy is not down


def test_a_full_bulkhead_is_busy_and_not_down(bench: Any, endpoint: Any) -> None:
    """No event, no breaker moved, and the status says what it is."""
    made = bench(endpoint("a", max_concurrency=1), endpoint("b", max_concurrency=1))
    under_way = [made.choose(model="m") for _ in range(2)]
    assert made.begin("m") is None
    assert (
        str(made.pool.snapshot(made.clock()))
        == "a not used (busy (1 in flight)), b not used (busy (1 in flight))"
    )
    assert made.events() == []
    assert (made.breaker("a"), made.breaker("b")) == ("closed", "closed")
    assert made.pool.downtimes_s(made.clock() + 9.0) == {"a": 0.0, "b": 0.0}
    made.report(under_way[0])
    assert made.begin("m").endpoint.name == "a"
