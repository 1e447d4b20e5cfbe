"""A server's clock, read off its replies."""

import pytest

from syncfailover.state.server_clock import ServerClock
from syncfailover.state.store import StoreError
from syncfailover.testing import ManualClock


def test_it_is_not_known_before_a_reply() -> None:
    """There is no guess: who has heard nothing knows nothing."""
    with pytest.raises(StoreError, match="not known"):
        ServerClock(ManualClock()).now()


def test_the_first_reply_tells_it() -> None:
    """The server's time lies half way between question and answer, as far as anybody knows."""
    clock = ManualClock(100.0)
    server = ServerClock(clock)
    server.note(1_000_000.0, sent=99.8, received=100.0)
    assert server.now() == pytest.approx(1_000_000.1)
    clock.advance(5.0)
    assert server.now() == pytest.approx(1_000_005.1)


@pytest.mark.parametrize("took_s", [0.001, 0.1, 3.0])
def test_a_reply_that_agrees_changes_nothing(took_s: float) -> None:
    """Whatever a reply took, the time stays as it is if that could be right: it goes on evenly."""
    clock = ManualClock(100.0)
    server = ServerClock(clock)
    server.note(1_000_000.0, sent=100.0, received=100.0)
    for early in (0.0, 0.3, 1.0):
        clock.advance(10.0)
        before = server.now()
        server.note(before - early * took_s, sent=clock() - took_s, received=clock())
        assert server.now() == before


def test_a_reply_that_contradicts_changes_as_little_as_it_takes() -> None:
    """A server that is ahead, or behind, is followed to the edge of what its reply proves."""
    clock = ManualClock(100.0)
    server = ServerClock(clock)
    server.note(1_000.0, sent=100.0, received=100.0)
    server.note(1_060.0, sent=99.9, received=100.0)
    assert server.now() == pytest.approx(1_060.0)
    server.note(1_000.0, sent=99.9, received=100.0)
    assert server.now() == pytest.approx(1_000.1)


def test_a_slow_reply_spoils_nothing() -> None:
    """A reply after ten seconds does not move a clock that quick ones have set."""
    clock = ManualClock(100.0)
    server = ServerClock(clock)
    server.note(1_000.0, sent=100.0, received=100.001)
    before = server.now()
    server.note(1_000.0, sent=95.0, received=105.0)
    assert server.now() == before


def test_a_drifting_clock_is_followed() -> None:
    """A clock here that gains a second in a thousand stays within a reply's uncertainty."""
    clock = ManualClock(0.0)
    server = ServerClock(clock)
    for second in range(1000):
        here = second * 1.001
        clock.advance(here - clock())
        server.note(5_000.0 + second, sent=here - 0.002, received=here)
        assert abs(server.now() - (5_000.0 + second)) < 0.0041
