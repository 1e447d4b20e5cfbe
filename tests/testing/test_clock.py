"""ManualClock: time under command."""

import threading

import pytest

from syncfailover.testing import ManualClock


def test_it_starts_where_told_and_stays_there():
    """A clock reads its start until it is moved."""
    clock = ManualClock(start=5.0)
    assert [clock(), clock()] == [5.0, 5.0]


def test_advance_moves_it(manual_clock):
    """Advancing by seconds adds them to the reading."""
    manual_clock.advance(2.5)
    assert manual_clock() == 1002.5
    assert repr(manual_clock) == "<ManualClock at 1002.5 s>"


def test_sleep_moves_it_and_is_recorded(manual_clock):
    """Sleeping takes no time at all, and every sleep is remembered in order."""
    manual_clock.sleep(0.5)
    manual_clock.sleep(0)
    manual_clock.sleep(8)
    assert manual_clock() == 1008.5
    assert manual_clock.sleeps == [0.5, 0, 8]


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_time_never_goes_back(manual_clock, seconds):
    """A negative duration raises, names itself, and changes nothing."""
    with pytest.raises(ValueError, match=f"seconds: {seconds}"):
        manual_clock.advance(seconds)
    with pytest.raises(ValueError, match="seconds"):
        manual_clock.sleep(seconds)
    assert manual_clock() == 1000.0
    assert manual_clock.sleeps == []


def test_no_second_is_lost_between_threads(manual_clock):
    """Many threads that sleep at once add up."""
    threads = [threading.Thread(target=lambda: [manual_clock.sleep(1) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert manual_clock() == 5000.0
    assert len(manual_clock.sleeps) == 4000
