"""What all processes together have left: of the retry budget, and of the money that calls may cost."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import Any, Callable, Dict, List, Protocol, Sequence
from weakref import WeakSet

from ..policy.pool import EndpointPool
from ..policy.retry import RetryBudget
from ..state.store import Account, Store, StoreError


class Owner(Protocol):
    """What is needed of a registry."""

    @property
    def retry_budget(self) -> RetryBudget:
        """What its calls share."""

    def look(self, what: Callable[[EndpointPool], Any]) -> Any:
        """Do something under its lock."""


class Spender(Protocol):
    """What is needed of metrics."""

    def spent_usd(self) -> Any:
        """Return what all calls have cost."""


class Accounts:
    """The accounts of one registry and its peers.

    Args:
        endpoints: the identities of its endpoints: peers are those who have the same ones.

    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        group = blake2b("".join(endpoints).encode(), digest_size=8).hexdigest()
        self._retries, self._usd = f"retries:{group}", f"usd:{group}"
        #: What was not written yet; of whoever talks to the store alone.
        self._changes: Dict[str, float] = {}
        #: Whose money counts, and how much of it was written.
        self._spenders: WeakSet[Spender] = WeakSet()
        self._written_usd = 0.0
        #: What others have spent; replaced whole, read without a lock.
        self.others_usd = 0.0
        self._lock = threading.Lock()  # guards _spenders

    def spend(self, metrics: Spender) -> None:
        """Count what these calls cost."""
        with self._lock:
            self._spenders.add(metrics)

    def settle(self, registry: Owner, store: Store) -> None:
        """Tell what was earned and spent here, and hear what there is in all.

        Raises:
            StoreError: nothing is lost, it is told the next time.

        """
        budget = registry.retry_budget
        retries = self._changes.pop(self._retries, 0.0) + registry.look(lambda _pool: budget.tell())
        with self._lock:
            spenders = list(self._spenders)
        spent = sum(float(metrics.spent_usd()) for metrics in spenders)
        accounts: List[Account] = [Account(self._retries, retries, budget.capacity, budget.per_second)]
        if spenders:
            accounts.append(Account(self._usd, spent - self._written_usd))
        try:
            found = store.settle(accounts)
        except StoreError:
            self._changes[self._retries] = retries
            raise
        registry.look(lambda _pool: budget.hear(found[self._retries]))
        if spenders:
            self._written_usd = spent
            self.others_usd = max(0.0, found[self._usd] - spent)

    def after_fork(self) -> None:
        """Begin from nothing: what the parent spent it tells itself."""
        self._lock = threading.Lock()
        self._changes = {}
        self._written_usd = 0.0
