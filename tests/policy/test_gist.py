"""Which part of an entry is news that peers are told at once."""

from typing import Any

import pytest

from syncfailover.policy.entry import BREAKER, HEALTH, KEY, RESTS, STRIKES, Entry, gist


def gist_of(kind: str, **value: Any) -> str:
    """Return the gist of an entry that was made at 100."""
    return gist(Entry("e", kind, 100.0, 200.0, value))


SAME = [
    (HEALTH, {"status": "healthy", "latency_ms": 1.0}, {"status": "healthy", "latency_ms": 2.0}),
    (BREAKER, {"open": True, "until": 130.0}, {"open": True, "until": 140.0}),
    (KEY, {"until": 130.0}, {"until": 140.0}),
    (
        RESTS,
        {"pairs": [["m", 1.0, 130.0, 1], ["n", 1.0, 130.0, 1]]},
        {"pairs": [["n", 2.0, 9.0, 2], ["m", 2.0, 9.0, 2]]},
    ),
    (STRIKES, {"failures": 1}, {"failures": 2}),
]
OTHER = [
    (HEALTH, {"status": "healthy"}, {"status": "unhealthy"}),
    (BREAKER, {"open": True}, {"open": False}),
    (KEY, {"until": 130.0}, {"until": 100.0}),
    (RESTS, {"pairs": [["m", 1.0, 130.0, 1]]}, {"pairs": [["n", 1.0, 130.0, 1]]}),
    (RESTS, {"pairs": [["m", 1.0, 130.0, 1]]}, {"pairs": [["m", 1.0, 0.0, 1]]}),
    (RESTS, {"pairs": [[None, 1.0, 130.0, 1]]}, {"pairs": []}),
]


@pytest.mark.parametrize(("kind", "one", "other"), SAME)
def test_what_can_wait(kind: str, one: Any, other: Any) -> None:
    """Another time, latency or count is no news."""
    assert gist_of(kind, **one) == gist_of(kind, **other)


@pytest.mark.parametrize(("kind", "one", "other"), OTHER)
def test_what_cannot(kind: str, one: Any, other: Any) -> None:
    """Another state is, and stands as one word."""
    assert gist_of(kind, **one) != gist_of(kind, **other)
    for value in (one, other):
        assert gist_of(kind, **value).isalnum()
        assert len(gist_of(kind, **value)) <= 16
