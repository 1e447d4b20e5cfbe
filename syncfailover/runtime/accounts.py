"""What all processes together have left: of the retry budget, and of the money that calls may cost."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import Any, Callable, Dict, Protocol, Sequence
from uuid import uuid4
from weakref import WeakKeyDictionary

from ..policy.pool import EndpointPool
from ..policy.retry import RetryBudget
from ..state.store import Account, Store, StoreError

#: USD; sums of floating point numbers differ by less.
_CENT_PART = 1e-6


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
        self._member = uuid4().hex
        #: What is to be written once more; of whoever talks to the store alone, as is what follows.
        self._changes: Dict[str, float] = {}
        #: What all have spent, and of that what this process has written.
        self._total_usd = self._own_usd = 0.0
        #: Whose money counts, and how much of it was written.
        self._spenders: WeakKeyDictionary[Spender, float] = WeakKeyDictionary()
        #: What others have spent; replaced whole, read without a lock.
        self.others_usd = 0.0
        self._lock = threading.Lock()  # guards _spenders

    def spend(self, metrics: Spender) -> None:
        """Count what these calls cost."""
        with self._lock:
            self._spenders.setdefault(metrics, 0.0)

    def owe(self, registry: Owner) -> bool:
        """Tell whether there is something to tell."""
        return bool(self._changes or registry.retry_budget.untold or self._due_usd())

    def settle(self, registry: Owner, store: Store) -> None:
        """Tell what was earned and spent here, and hear what there is in all.

        Raises:
            StoreError: nothing is lost, it is told the next time.

        """
        budget, due = registry.retry_budget, self._due_usd()
        retries = self._changes.pop(self._retries, 0.0) + registry.look(lambda _pool: budget.tell())
        usd = self._changes.get(self._usd, 0.0) + sum(due.values())
        # As large as those of all processes together: what each of them earns and may keep, a fleet does, too.
        accounts = [Account(self._retries, retries, budget.capacity, budget.per_second, self._member)]
        if self._spenders:
            accounts.append(Account(self._usd, usd))
        try:
            found = store.settle(accounts)
        except StoreError:
            self._changes[self._retries] = retries
            raise
        registry.look(lambda _pool: budget.hear(found[self._retries]))
        if self._usd in found:
            with self._lock:
                for metrics, more in due.items():
                    self._spenders[metrics] += more
            self._changes.pop(self._usd, None)
            self._count(usd, found[self._usd])

    def _due_usd(self) -> Dict[Spender, float]:
        """Return what was spent and not written yet."""
        with self._lock:
            spenders = list(self._spenders.items())
        due = {metrics: float(metrics.spent_usd()) - written for metrics, written in spenders}
        return {metrics: usd for metrics, usd in due.items() if usd > 0.0}

    def _count(self, usd: float, total: float) -> None:
        """Take in what all have spent, `usd` of which was written just now."""
        if (
            total < self._total_usd + usd - _CENT_PART
        ):  # the store has lost what there was: each tells his part again
            self._changes[self._usd], self._own_usd = self._own_usd, 0.0
        self._own_usd += usd
        self._total_usd = total
        self.others_usd = max(0.0, total - self._own_usd)

    def after_fork(self) -> None:
        """Begin from nothing: what the parent spent it tells itself."""
        self._lock = threading.Lock()
        self._member = uuid4().hex
        self._changes = {}
        self._total_usd = self._own_usd = 0.0
        self._spenders = WeakKeyDictionary(dict.fromkeys(self._spenders, 0.0))
