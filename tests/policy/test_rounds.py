"""When probes are due, hang, are excused by a freeze, and are not: no clock but the one in the test."""

from typing import List

import pytest

from syncfailover.policy.rounds import GRACE_S, Rounds

INTERVAL_S, TIMEOUT_S = 2.0, 1.0
LATE_S = TIMEOUT_S + GRACE_S


def rounds_of(names: str = "abc", chance: float = 0.5) -> Rounds:
    """Make the rounds of some endpoints, that began at 0; every chance is the same."""
    made = Rounds(names, INTERVAL_S, TIMEOUT_S, lambda: chance)
    made.begin(0.0)
    return made


def send(rounds: Rounds, name: str, now: float) -> int:
    """Send the probe of one endpoint."""
    turn = rounds.take_turn(name, now)
    rounds.sent(name, turn, now)
    return turn


@pytest.mark.parametrize(("chance", "first", "then"), [(0.0, 0.0, 1.9), (0.5, 1.0, 2.0), (1.0, 2.0, 2.1)])
def test_the_first_probe_comes_within_an_interval_the_next_after_it(
    chance: float, first: float, then: float
) -> None:
    """At a random time in it, and then every interval, give or take 5 %."""
    rounds = rounds_of("a", chance)
    assert rounds.next_at(0.0) == first
    assert rounds.due(first) == ["a"]
    assert rounds.next_at(first) == pytest.approx(first + then)


def test_who_is_being_probed_is_not_probed_again() -> None:
    """A probe under way keeps its endpoint from another one, however much that is due; the others are not held up."""
    rounds = rounds_of()
    assert rounds.due(1.0) == ["a", "b", "c"]
    send(rounds, "a", 1.0)
    rounds.hurry(1.5, "abc")
    assert rounds.due(1.5) == ["b", "c"]


def test_a_probe_that_is_not_back_hangs() -> None:
    """It is given up on a moment after its time, once; what it brings later is no news."""
    rounds = rounds_of("a")
    turn = send(rounds, "a", 1.0)
    assert rounds.give_up(1.0 + LATE_S - 0.01) == []
    assert rounds.give_up(1.0 + LATE_S) == ["a"]
    assert rounds.give_up(9.0) == []
    assert not rounds.take_in("a", turn, 9.0, alive=True)


def test_a_probe_that_waits_for_a_helper_hangs_nowhere() -> None:
    """Its time counts from when it was sent."""
    rounds = rounds_of("a")
    turn = rounds.take_turn("a", 0.0)
    assert rounds.give_up(5.0) == []
    assert rounds.next_at(5.0) <= 5.0 + LATE_S
    rounds.sent("a", turn, 6.0)
    assert rounds.give_up(6.0 + LATE_S - 0.01) == []
    assert rounds.give_up(6.0 + LATE_S) == ["a"]


def test_results_count_once_and_in_their_turn() -> None:
    """The result of an older turn changes nothing, nor does a second one of the same."""
    rounds = rounds_of("a")
    old = send(rounds, "a", 0.0)
    rounds.give_up(LATE_S)
    new = send(rounds, "a", 2.0)
    rounds.sent("a", old, 2.5)
    assert not rounds.take_in("a", old, 2.5, alive=True)
    assert rounds.take_in("a", new, 2.5, alive=True)
    assert not rounds.take_in("a", new, 2.5, alive=True)


def test_three_failures_tell_within_three_intervals_and_a_timeout() -> None:
    """After a failure the next probe comes a little sooner, be it refused or hung."""
    rounds, failed, now = rounds_of("a", chance=1.0), 0, 2.0
    while failed < 3:
        rounds.due(now)
        send(rounds, "a", now)
        failed += len(rounds.give_up(now + LATE_S))
        last, now = now + LATE_S, rounds.next_at(now)
        assert now == pytest.approx(last - LATE_S + 0.95 * INTERVAL_S)
    assert last - 2.0 <= 3 * INTERVAL_S + TIMEOUT_S


def test_a_failure_that_comes_late_is_left_to_the_next_look() -> None:
    """An answer that comes late is an answer; a failure may be that of a process that was frozen."""
    rounds = rounds_of("ab")
    turns = [send(rounds, name, 0.0) for name in "ab"]
    assert not rounds.take_in("a", turns[0], 3.0, alive=False)
    assert rounds.take_in("b", turns[1], 3.0, alive=True)
    assert rounds.give_up(3.0) == ["a"]


def test_a_freeze_discards_what_was_under_way() -> None:
    """Nobody hangs for having been frozen; everybody is due, and the results of before count no more."""
    rounds = rounds_of()
    turns = {name: send(rounds, name, 0.0) for name in "ab"}
    assert rounds.thaw(100.0) == []
    assert rounds.give_up(100.0) == []
    assert not rounds.take_in("a", turns["a"], 100.0, alive=False)
    assert not rounds.take_in("b", turns["b"], 100.0, alive=True)
    assert rounds.due(100.0) == ["a", "b", "c"]


def _freeze(rounds: Rounds, now: float) -> List[str]:
    for name in rounds.due(now):
        send(rounds, name, now)
    return rounds.thaw(now + 50.0)


def test_freezes_hide_an_outage_twice_in_a_row() -> None:
    """Who has not answered before the third one hangs; who has answered meanwhile, or failed by itself, begins anew."""
    rounds = rounds_of("ab")
    assert [_freeze(rounds, now) for now in (2.0, 52.0, 102.0)] == [[], [], ["a", "b"]]
    assert [_freeze(rounds, now) for now in (152.0, 202.0)] == [[], []]
    (_, turn) = rounds.due(252.0), send(rounds, "a", 252.0)
    assert rounds.take_in("a", turn, 252.1, alive=True)
    send(rounds, "b", 252.0)
    assert rounds.thaw(300.0) == ["b"]
    assert [_freeze(rounds, now) for now in (302.0, 352.0)] == [[], []]


def test_who_is_due_while_it_is_probed_does_not_keep_the_thread_awake() -> None:
    """The next look is when the probe hangs or another endpoint is due, not at once and again."""
    rounds = rounds_of("a")
    send(rounds, "a", 1.0)
    rounds.hurry(1.5, "a")
    assert rounds.next_at(1.5) == 1.0 + LATE_S


def test_who_is_back_has_the_others_that_failed_probed_at_once() -> None:
    """They may be back, too; whoever never failed is left alone, and a second good answer hurries nobody."""
    rounds = rounds_of()
    rounds.due(1.0)
    for name in "ab":
        rounds.take_in(name, send(rounds, name, 1.0), 1.1, alive=False)
    assert rounds.due(1.2) == []
    rounds.take_in("a", send(rounds, "a", 1.2), 1.3, alive=True)
    assert rounds.due(1.3) == ["b"]
    rounds.take_in("b", send(rounds, "b", 1.3), 1.4, alive=False)
    rounds.take_in("a", send(rounds, "a", 1.4), 1.5, alive=True)
    assert rounds.due(1.5) == []
