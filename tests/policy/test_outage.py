"""Who fails while nobody is answered."""

import pytest

from syncfailover.policy.outage import Outage


@pytest.fixture
def outage():
    """Five failures in a row: the last of one at 12, of the other at 11."""
    made = Outage()
    for name, now in (("a", 8.0), ("a", 9.0), ("a", 10.0), ("b", 11.0), ("a", 12.0)):
        made.failed(name, now)
    return made


def test_four_in_a_row_are_chance():
    """It takes a fifth one, wherever it goes."""
    made = Outage()
    for _ in range(4):
        made.failed("a", 10.0)
    assert made.failing(10.0) == set()
    made.failed("b", 10.0)
    assert made.failing(10.0) == {"a", "b"}


def test_of_nobody_nothing_is_said(outage):
    """Where nobody could be asked anyway."""
    assert not outage.was_just_total([], 12.0, 0.0)


def test_one_answer_ends_it(outage):
    """From whomever."""
    outage.answered()
    assert outage.failing(12.0) == set()
    assert not outage.was_just_total(["a", "b"], 12.0, 0.0)


def test_a_probe_clears_its_own_endpoint(outage):
    """The other one still fails."""
    outage.alive("a")
    outage.alive("a")
    assert outage.failing(12.0) == {"b"}


def test_a_failure_is_old_after_ten_seconds(outage):
    """Each by its latest."""
    assert outage.failing(21.0) == {"a", "b"}
    assert outage.failing(21.5) == {"a"}
    assert outage.failing(22.5) == set()


def test_just_now_is_a_fifth_of_a_second(outage):
    """By the latest failure of any, and what one has seen oneself is no news."""
    assert outage.was_just_total(["a", "b"], 12.1, 11.9)
    assert not outage.was_just_total(["a", "b"], 12.3, 11.9)
    assert not outage.was_just_total(["a", "b"], 12.1, 12.0)
    assert not outage.was_just_total(["a", "b", "c"], 12.1, 11.9)
    assert not Outage().was_just_total(["a"], 12.1, 0.0)
