"""`Timeouts`: what it is made of, checked when it is made."""

import pickle
from typing import Any

import pytest

from syncfailover import ConfigurationError, Timeouts


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"total": -1}, "timeout.total: -1 is not allowed; expected a finite number greater than 0"),
        ({"total": None}, "timeout.total: None"),
        ({"connect": 0}, "timeout.connect: 0"),
        ({"read": float("inf")}, "timeout.read: inf"),
        ({"first_token": True}, "timeout.first_token: True"),
        ({"stall": "5"}, "timeout.stall: '5'"),
        ({"stall": 0}, "timeout.stall: 0"),
    ],
    ids=repr,
)
def test_a_time_that_cannot_work_is_named_when_it_is_given(fields: Any, message: str) -> None:
    """Whether a new one is made or one is changed, the error names field, value and what is allowed."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        Timeouts(**fields)
    assert caught.value.field == message.partition(":")[0]
    with pytest.raises(ConfigurationError, match=message):
        Timeouts()._replace(**fields)


def test_it_is_a_named_tuple() -> None:
    """It compares, unpacks, pickles, shows its fields and cannot be changed."""
    timeouts = Timeouts(60, stall=5.0)
    total, _connect, _read, _first_token, stall = timeouts
    assert (total, stall) == (60, 5.0)
    assert timeouts == Timeouts(60.0, 3.0, None, None, 5.0) == (60, 3, None, None, 5)
    assert pickle.loads(pickle.dumps(timeouts)) == timeouts  # noqa: S301 - our own
    assert type(timeouts._replace(total=1)) is type(timeouts.changed(1)) is Timeouts
    assert repr(timeouts) == "Timeouts(total=60, connect=3.0, read=None, first_token=None, stall=5.0)"
    with pytest.raises(AttributeError):
        timeouts.total = 5  # type: ignore[misc]
    with pytest.raises(AttributeError):
        timeouts.other = 5  # type: ignore[attr-defined]


def test_a_call_changes_what_it_names() -> None:
    """A number is another total, a pair other times to connect and to read; what is left out stays."""
    timeouts = Timeouts(60, 2, 10, 5, 6)
    assert timeouts.changed(9) == Timeouts(9, 2, 10, 5, 6)
    assert timeouts.changed((1, None)) == Timeouts(60, 1, None, 5, 6)
    assert timeouts.changed((None, 4)) == Timeouts(60, 2, 4, 5, 6)
    assert timeouts.changed(Timeouts(9)) == Timeouts(9)
