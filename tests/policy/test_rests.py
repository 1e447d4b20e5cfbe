"""Pairs of endpoint and model that are left alone for a while."""

import pytest

from syncfailover.policy.rests import Rests
from syncfailover.testing import ManualClock


@pytest.fixture
def clock():
    """Stand in for the pool's time of decision."""
    return ManualClock(1000.0)


@pytest.fixture
def rests(clock):
    """Make a set of rests that is empty."""
    return Rests(clock)


def test_nobody_rests_at_first(rests):
    """A pair that was never added may be asked."""
    assert rests.until("a", "m") == 0.0


def test_a_pair_rests_and_nobody_else(rests):
    """Another model of the endpoint and another endpoint of the model go on."""
    rests.add("a", "m", 1000.0, 30.0)
    assert rests.until("a", "m") == 1030.0
    assert rests.until("a", "n") == 0.0
    assert rests.until("b", "m") == 0.0
    assert rests.until("a", None) == 0.0


@pytest.mark.parametrize(("second_s", "until"), [(5.0, 1030.0), (60.0, 1061.0)])
def test_the_later_end_counts(rests, second_s, until):
    """A second rest never shortens the first: max(old, new)."""
    rests.add("a", "m", 1000.0, 30.0)
    rests.add("a", "m", 1001.0, second_s)
    assert rests.until("a", "m") == until


def test_without_a_time_the_rest_doubles_each_time_in_a_row(rests, clock):
    """Half a second, one, two, four, eight and never more."""
    lengths = []
    for _ in range(7):
        now = clock()
        rests.add("a", "m", now, 0.0)
        lengths.append(rests.until("a", "m") - now)
        clock.advance(lengths[-1])
    assert lengths == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_very_long_row_overflows_nothing(rests, clock):
    """The ten-thousandth rest in a row is as long as the fifth."""
    for _ in range(10_000):
        rests.add("a", "m", clock(), 0.0)
    assert rests.until("a", "m") == clock() + 8.0


def test_an_answer_ends_the_rest_and_the_row(rests, clock):
    """After a call begun during the rest has succeeded the pair may be asked, and the next rest is a first one."""
    rests.add("a", "m", 1000.0, 0.0)
    rests.add("a", "m", 1000.0, 0.0)
    rests.end("a", "m", 1000.5)
    assert rests.until("a", "m") == 0.0
    rests.add("a", "m", 1001.0, 0.0)
    assert rests.until("a", "m") == 1001.5


def test_an_answer_to_an_older_call_ends_nothing(rests):
    """A call that was under way when the rest began says nothing about the time after it."""
    rests.add("a", "m", 1000.0, 30.0)
    rests.end("a", "m", 999.0)
    assert rests.until("a", "m") == 1030.0


def test_ending_a_rest_that_is_none_does_nothing(rests):
    """A success of a pair that does not rest is the usual case."""
    rests.end("a", "m", 0.0)
    rests.add("b", "m", 1000.0, 1.0)
    rests.end("a", "m", 0.0)
    assert rests.until("b", "m") == 1001.0


def test_no_rest_is_longer_than_six_hours(rests):
    """A server that asks for a year gets six hours."""
    rests.add("a", "m", 1000.0, 365 * 86400.0)
    assert rests.until("a", "m") == 1000.0 + 6 * 3600.0


def test_old_pairs_are_forgotten(rests, clock):
    """After six hours nothing of a pair is left, so that memory is bounded in time."""
    rests.add("a", "m", 1000.0, 0.0)
    clock.advance(6 * 3600.0 + 1.0)
    assert rests.until("a", "m") == 0.0
    rests.add("a", "m", clock(), 0.0)
    assert rests.until("a", "m") == clock() + 0.5


def test_pairs_are_bounded_in_number(rests):
    """Model names come from callers and may be without number; the latest are remembered."""
    for number in range(10_000):
        rests.add("a", f"model-{number}", 1000.0, 30.0)
    known = sum(rests.until("a", f"model-{number}") > 0 for number in range(10_000))
    assert known == 4096
    assert rests.until("a", "model-9999") == 1030.0


def test_when_a_rest_is_over_one_goes_first(rests, clock):
    """One call has the pair to itself; the others follow when it was answered, or after two seconds."""
    rests.add("a", "m", 1000.0, 5.0)
    clock.advance(5.0)
    assert rests.take("a", "m", 1005.0)
    assert rests.until("a", "m") == 1007.0
    assert not rests.take("a", "m", 1007.0)
    assert rests.end("a", "m", 1005.0)
    assert rests.until("a", "m") == 0.0


def test_whoever_went_first_and_was_refused_rests_as_long_as_asked(rests, clock):
    """The two seconds of the trial do not count then."""
    rests.add("a", "m", 1000.0, 5.0)
    clock.advance(5.0)
    assert rests.take("a", "m", 1005.0)
    rests.add("a", "m", 1005.1, 1.0)
    assert rests.until("a", "m") == pytest.approx(1006.1)


def test_long_after_a_rest_nobody_waits_for_another(rests, clock):
    """Only those who come just when a rest is over would come all at once."""
    rests.add("a", "m", 1000.0, 5.0)
    clock.advance(60.0)
    assert not rests.take("a", "m", 1060.0)
    assert not rests.take("a", "n", 1060.0)
