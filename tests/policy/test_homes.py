"""A conversation stays at one endpoint while that is eligible, and nobody else notices."""

from collections import Counter
from typing import Any

import pytest

from syncfailover.policy import outcome
from syncfailover.policy.homes import Homes
from syncfailover.policy.outcome import SUCCEEDED
from syncfailover.policy.rate_limit import Room
from syncfailover.testing import ManualClock

# What is remembered


def test_a_home_is_forgotten_an_hour_after_the_last_call() -> None:
    """Each answer counts the hour anew; after it the conversation is as new."""
    clock = ManualClock(0.0)
    homes = Homes(clock)
    homes.settle(42, "m", "a", 0.0)
    clock.advance(3599.0)
    homes.settle(42, "m", "a", clock())
    clock.advance(3599.0)
    assert homes.of(42, "m") == "a"
    clock.advance(1.5)
    assert homes.of(42, "m") is None


def test_ten_thousand_conversations_are_remembered() -> None:
    """Beyond them the one whose last call is longest ago is forgotten."""
    homes = Homes(ManualClock(0.0))
    for conversation in range(10_000):
        homes.settle(conversation, "m", "a", 0.0)
    homes.settle(0, "m", "a", 0.0)
    homes.settle(10_000, "m", "b", 0.0)
    assert homes.of(0, "m") == "a"
    assert homes.of(1, "m") is None
    assert homes.of(10_000, "m") == "b"
    assert len(homes._homes) == 10_000


def test_an_answer_from_before_the_move_does_not_move_back() -> None:
    """Of two calls of one conversation, the one begun before the other moved it says nothing about its home."""
    clock = ManualClock(0.0)
    homes = Homes(clock)
    homes.settle(1, "m", "a", 0.0)
    clock.advance(10.0)
    homes.settle(1, "m", "b", 5.0)
    homes.settle(1, "m", "a", 4.0)
    assert homes.of(1, "m") == "b"
    homes.settle(1, "m", "a", 11.0)
    assert homes.of(1, "m") == "a"


# Where a call goes


def talk(made: Any, conversation: int = 42, model: str = "m") -> str:
    """Make one call of a conversation, and succeed; return who served it."""
    attempt = made.pool.begin(made.clock(), model, conversation)
    made.report(attempt)
    return str(attempt.endpoint.name)


@pytest.mark.parametrize("balancer", ["weighted", "round_robin", "least_busy", "lowest_latency", "cheapest"])
def test_the_same_conversation_stays(bench: Any, balancer: str) -> None:
    """Whatever the balancer would say, it goes where it was answered last."""
    made = bench("a", "b", "c", balancer=balancer)
    homes = {conversation: talk(made, conversation) for conversation in range(6)}
    for _ in range(5):
        assert {conversation: talk(made, conversation) for conversation in homes} == homes


@pytest.mark.parametrize("balancer", ["weighted", "round_robin"])
def test_the_balance_of_other_callers_is_as_without(bench: Any, endpoint: Any, balancer: str) -> None:
    """Calls at home between theirs change not one of the balancer's picks."""
    fleet = endpoint("a", weight=3), endpoint("b")
    made, alone = bench(*fleet, balancer=balancer), bench(*fleet, balancer=balancer)
    assert talk(made) == alone.picks(1, "m")  # its first call is chosen as any other
    mixed = ""
    for _ in range(400):
        mixed += made.picks(1, "m")
        assert talk(made) == "a"
    assert mixed == alone.picks(400, "m")


def test_least_busy_counts_the_load_of_conversations(bench: Any) -> None:
    """Calls at home are load like any other: who has them under way is asked less."""
    made = bench("a", "b", balancer="least_busy")
    home = talk(made)
    under_way = [made.pool.begin(made.clock(), "m", 42) for _ in range(4)]
    assert {attempt.endpoint.name for attempt in under_way} == {home}
    other = "ab".replace(home, "")
    assert made.picks(6, "m") == other * 6


@pytest.mark.parametrize("why", ["breaker", "forced", "unhealthy", "key", "rate limit", "missing model"])
def test_it_moves_and_stays_moved(bench: Any, why: str) -> None:
    """Whatever takes its home away, it moves once, and does not go back when that is over."""
    made = bench("a", "b")
    home = talk(made)
    if why == "breaker":
        made.trip(home, model="m")
    elif why == "forced":
        made.pool.control(home, "force_open", made.clock())
    elif why == "unhealthy":
        made.probe(home, "---")
    elif why == "key":
        made.report(made.only(home, "m"), outcome.KEY_REFUSED)
    elif why == "rate limit":
        made.report(made.only(home, "m"), outcome.RATE_LIMIT, retry_after_s=5.0)
    else:
        made.report(made.only(home, "m"), outcome.MODEL_MISSING)
    moved = talk(made)
    assert moved != home
    made.clock.advance(700.0)
    made.pool.control(home, "reset", made.clock())
    made.probe(home, "++")
    assert [talk(made) for _ in range(3)] == [moved] * 3


def test_only_who_answers_becomes_the_home(bench: Any) -> None:
    """A new conversation whose first endpoint fails lives where it was answered."""
    made = bench("a", "b")
    first = made.pool.begin(made.clock(), "m", 42)
    made.report(first, outcome.SERVER_ERROR)
    second = made.choose(first.endpoint.name, model="m")
    second.affinity = 42
    made.report(second)
    assert talk(made) == second.endpoint.name


def test_from_a_home_that_is_only_busy_it_comes_back(bench: Any, endpoint: Any) -> None:
    """With its bulkhead full another one serves, this time."""
    made = bench(endpoint("a", max_concurrency=1, weight=100), "b", balancer="weighted")
    assert talk(made) == "a"
    under_way = made.pool.begin(made.clock(), "m", 42)
    assert under_way.endpoint.name == "a"
    assert talk(made) == "b"
    made.report(under_way)
    assert talk(made) == "a"


def test_from_a_home_that_is_busy_and_down_it_moves(bench: Any, endpoint: Any) -> None:
    """Being busy does not hide that its key rests."""
    made = bench(endpoint("a", max_concurrency=1, weight=100), "b", balancer="weighted")
    assert talk(made) == "a"
    under_way = made.pool.begin(made.clock(), "m", 42)
    made.probe("a", "+", key_refused=True)
    assert talk(made) == "b"
    made.pool.release(under_way)
    made.probe("a", "+")
    assert talk(made) == "b"


def test_from_a_home_with_little_left_it_comes_back(bench: Any) -> None:
    """A peer serves until the rate limit is full again; without such a peer its home does, all the same."""
    made = bench("a", "b")
    home = talk(made)
    made.pool.report(made.only(home, "m"), SUCCEEDED, made.clock(), Room(0.0, little=True, reset_s=10.0))
    other = "ab".replace(home, "")
    assert talk(made) == other
    made.pool.report(made.only(other, "m"), SUCCEEDED, made.clock(), Room(0.0, little=True, reset_s=10.0))
    assert talk(made) == home
    made.clock.advance(10.0)
    assert talk(made) == home


def test_little_left_never_sends_it_to_a_lower_priority(bench: Any, endpoint: Any) -> None:
    """The emergency exit is no peer."""
    made = bench("a", endpoint("x", priority=1))
    assert talk(made) == "a"
    made.pool.report(made.only("a", "m"), SUCCEEDED, made.clock(), Room(0.0, little=True, reset_s=10.0))
    assert talk(made) == "a"


def test_it_has_a_home_for_each_model(bench: Any, endpoint: Any) -> None:
    """A prompt cache knows one model: asking another one that the home does not serve moves nothing."""
    made = bench(endpoint("a", models=["m"], weight=9), endpoint("b", models=["n", "m"]), balancer="weighted")
    assert [talk(made, model=model) for model in "mnmn"] == ["a", "b", "a", "b"]


def test_a_drained_endpoint_is_no_home(bench: Any, endpoint: Any) -> None:
    """Weight 0 takes no conversation."""
    made = bench(endpoint("a", weight=0), "b")
    assert {talk(made, conversation) for conversation in range(5)} == {"b"}


def test_without_a_conversation_nothing_is_remembered(bench: Any) -> None:
    """`affinity=None` is a call as any other, and the number 0 is a conversation."""
    made = bench("a", "b")
    assert Counter(made.picks(10)) == {"a": 5, "b": 5}
    assert len(made.pool.roster.homes._homes) == 0
    assert len({talk(made, 0) for _ in range(4)}) == 1


def test_alternatives_are_counted_without_those_who_had_their_try(bench: Any) -> None:
    """From home, too, an attempt is told how many others there are."""
    made = bench("a", "b", "c")
    home = talk(made)
    other = min({"a", "b", "c"} - {home})
    attempt = made.pool._choose_home(made.clock(), "m", 42, frozenset({other}))
    assert (attempt.endpoint.name, attempt.alternatives) == (home, 1)


def test_a_conversation_lives_where_it_was_answered_in_an_outage(bench: Any) -> None:
    """Also a call that found everybody down, and was answered all the same, gives its conversation a home."""
    made = bench("a", "b")
    made.trip("a", "b")
    attempt = made.pool.begin(made.clock(), "m", 42)
    made.report(attempt, outcome.OK)
    assert made.pool.roster.homes.of(42, "m") == attempt.endpoint.name
