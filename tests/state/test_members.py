"""An account that is as large as those who use it are many."""

from pathlib import Path

import pytest

from syncfailover.state.sqlite import SqliteStore
from syncfailover.state.store import MEMBER_S, Account


class SetStore(SqliteStore):
    """A file whose clock is set by hand."""

    time = 1_000_000.0

    def now(self) -> float:
        """Read it."""
        return self.time


@pytest.fixture
def store(tmp_path: Path):
    """A file that is new."""
    store = SetStore(str(tmp_path / "health.db"))
    yield store
    store.close()


def account(member: str, change: float = 0.0) -> Account:
    """A budget of ten that earns one per second, for each member."""
    return Account("retries", change, 10.0, 1.0, member)


def test_what_one_may_keep_and_earn_two_may_twice(store: SetStore) -> None:
    """An account begins with what one may keep; with a second member it earns twice as much, and may hold twice as much."""
    assert store.settle([account("a", -10.0)]) == {"retries": 0.0}
    assert store.settle([account("b")]) == {"retries": 0.0}
    store.time += 3.0
    assert store.settle([account("a")]) == {"retries": 6.0}
    store.time += 20.0
    assert store.settle([account("b")]) == {"retries": 20.0}


def test_a_member_that_says_nothing_is_forgotten(store: SetStore) -> None:
    """Whoever was killed counts for half a minute; the account shrinks to what those who are left may keep."""
    for member in "ab":
        store.settle([account(member)])
    store.time += 20.0
    assert store.settle([account("a")]) == {"retries": 20.0}
    store.time += MEMBER_S - 10.0
    assert store.settle([account("a")]) == {"retries": 10.0}


def test_to_be_counted_takes_a_write_now_and_then_only(store: SetStore, tmp_path: Path) -> None:
    """A process that has nothing to tell writes twice in the time for which it counts."""
    other = SetStore(str(tmp_path / "health.db"))
    store.settle([account("a")])
    other.has_news()
    written = 0
    for _ in range(int(MEMBER_S)):
        store.time += 1.0
        store.settle([account("a")])
        written += other.has_news()
    other.close()
    assert 1 <= written <= 2
