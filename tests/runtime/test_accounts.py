"""What all processes together have left: each tells what it adds, and hears what there is."""

import gc
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List

import pytest

from syncfailover.policy.retry import RetryBudget
from syncfailover.runtime.accounts import Accounts
from syncfailover.state.sqlite import SqliteStore
from syncfailover.state.store import Account, StoreError


class Process:
    """A registry and its accounts, as far as they matter here."""

    def __init__(self, **budget: Any) -> None:
        self.retry_budget = RetryBudget(**{"per_second": 0.0, "capacity": 10.0, **budget})
        self.accounts = Accounts(["a", "b"])

    def look(self, what: Any) -> Any:
        """Do something under the lock that there would be."""
        return what(None)

    def settle(self, store: Any) -> None:
        """Tell and hear."""
        self.accounts.settle(self, store)

    def retry(self, times: int) -> None:
        """Take so many retries."""
        for _ in range(times):
            assert self.retry_budget.withdraw(0.0)


class Spent:
    """Counts what calls have cost."""

    def __init__(self, usd: str = "0") -> None:
        self.usd = Decimal(usd)

    def spent_usd(self) -> Decimal:
        """Return it."""
        return self.usd


class Away:
    """A store that cannot be used."""

    def settle(self, accounts: Iterable[Account]) -> Dict[str, float]:
        """Fail."""
        raise StoreError("away")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A file that is new."""
    store = SqliteStore(str(tmp_path / "health.db"))
    yield store
    store.close()


@pytest.fixture
def processes(store: SqliteStore) -> List[Process]:
    """Two processes that have met already."""
    made = [Process(), Process()]
    for _ in range(2):
        for one in made:
            one.settle(store)
    return made


def test_retries_are_taken_from_what_all_have(store: SqliteStore, processes: List[Process]) -> None:
    """What one has used up, the other has not either."""
    one, two = processes
    one.retry(10)
    one.settle(store)
    two.settle(store)
    assert two.retry_budget.tokens == pytest.approx(0.0)
    assert not two.retry_budget.withdraw(0.0)


def test_what_calls_earn_is_for_all(store: SqliteStore, processes: List[Process]) -> None:
    """Twenty calls of one are four retries of another."""
    one, two = processes
    one.retry(10)
    one.settle(store)
    for _ in range(20):
        two.settle(store)
        two.retry_budget.deposit()
    two.settle(store)
    one.settle(store)
    assert one.retry_budget.tokens == pytest.approx(4.0, abs=0.3)


def test_money_adds_up(store: SqliteStore, processes: List[Process]) -> None:
    """Each knows what the others have spent, beside what it knows itself."""
    one, two = processes
    mine, yours = Spent("0.25"), Spent("1.5")
    one.accounts.spend(mine)
    two.accounts.spend(yours)
    for process in (one, two, one):
        process.settle(store)
    assert (one.accounts.others_usd, two.accounts.others_usd) == (1.5, 0.25)
    mine.usd += 1
    one.settle(store)
    two.settle(store)
    assert (one.accounts.others_usd, two.accounts.others_usd) == (1.5, 1.25)


def test_who_has_no_budget_of_money_keeps_no_account(store: SqliteStore, processes: List[Process]) -> None:
    """Nothing is read or written of it."""
    assert processes[0].accounts.others_usd == 0.0
    assert not any("usd" in name for (name,) in store._connection().execute("SELECT name FROM accounts"))


def test_what_a_client_spent_that_is_gone_stays_spent(store: SqliteStore, processes: List[Process]) -> None:
    """And so it does for whoever is left in the same process."""
    one, two = processes
    gone, left = Spent("2"), Spent("0")
    for metrics in (gone, left):
        one.accounts.spend(metrics)
    one.settle(store)
    del gone, metrics
    gc.collect()
    left.usd += 1
    one.settle(store)
    yours = Spent()
    two.accounts.spend(yours)
    two.settle(store)
    assert two.accounts.others_usd == 3.0


def test_nothing_is_lost_or_told_twice_while_a_store_is_away(
    store: SqliteStore, processes: List[Process]
) -> None:
    """It is told when it is back."""
    one, two = processes
    mine, yours = Spent("0.5"), Spent()
    one.accounts.spend(mine)
    two.accounts.spend(yours)
    for _ in range(3):
        one.retry(1)
        with pytest.raises(StoreError):
            one.settle(Away())
    assert one.accounts.owe(one)
    one.settle(store)
    assert not one.accounts.owe(one)
    two.settle(store)
    assert two.accounts.others_usd == 0.5
    assert two.retry_budget.tokens == pytest.approx(7.0)


def test_a_store_that_was_emptied_is_told_everything_again(
    store: SqliteStore, processes: List[Process]
) -> None:
    """Each tells its own part, and nobody counts twice."""
    one, two = processes
    mine, yours = Spent("1"), Spent("2")
    one.accounts.spend(mine)
    two.accounts.spend(yours)
    for process in (one, two):
        process.settle(store)
    store._connection().execute("DELETE FROM accounts")
    mine.usd += Decimal("0.5")
    for _ in range(3):
        for process in (one, two):
            process.settle(store)
    assert (one.accounts.others_usd, two.accounts.others_usd) == (2.0, 1.5)


def test_a_child_begins_from_nothing(store: SqliteStore, processes: List[Process]) -> None:
    """What the parent had spent is the parent's to tell, and counts as that of another one."""
    one, two = processes
    spent = Spent("1")
    one.accounts.spend(spent)
    one.settle(store)
    one.accounts.after_fork()
    spent.usd = Decimal(0)  # as metrics do
    one.settle(store)
    assert one.accounts.others_usd == 1.0
    spent.usd += 2
    one.settle(store)
    yours = Spent()
    two.accounts.spend(yours)
    two.settle(store)
    assert two.accounts.others_usd == 3.0


def test_those_with_other_endpoints_have_other_accounts(store: SqliteStore) -> None:
    """Peers are who shares all endpoints, in whatever order."""
    one, same, other = Process(), Process(), Process()
    other.accounts = Accounts(["a", "c"])
    spent = [Spent("1") for _ in range(3)]
    for process, metrics in zip((one, same, other), spent):
        process.accounts.spend(metrics)
        process.settle(store)
    one.settle(store)
    assert (one.accounts.others_usd, other.accounts.others_usd) == (1.0, 0.0)
