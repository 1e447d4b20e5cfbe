"""What is said to a store, and heard from it, cycle by cycle: news, leases, accounts, and what to do when it is away.

A store that cannot be used is warned of once, and tried again; until it can, everything goes on as without it.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Dict, List, Optional, Protocol, Sequence, Set
from uuid import uuid4

from ..policy.entry import Entry, Poisoned, decoded, encoded, gist
from ..policy.pool import EndpointPool
from ..policy.sharing import Gossip
from ..state.store import Record, Store, StoreBusy, StoreError
from .accounts import Accounts, Owner

logger = logging.getLogger(__name__)

#: Of the probe interval: how often leases are renewed, or asked for, and how long they last. Whoever is killed is
#: replaced, and its endpoints are probed, within two intervals.
_RENEW, _LAST = 0.3, 0.9
#: Seconds; a lease shorter than that is lost to a busy machine.
_SHORTEST_LEASE_S = 0.5
#: Seconds; where probes are rarer than that, leases and looks are not.
_LONGEST_INTERVAL_S = 240.0
#: Leases that are lost in a row before a process that hears nothing from the store goes on as without it.
_LOST = 2
#: Seconds between two tries with a store that cannot be used: the first, and at most.
_RETRY_S, _LONGEST_RETRY_S = 0.5, 5.0
#: Seconds between two tries with a store that others are busy with, and after which that is no moment any more.
BUSY_RETRY_S, _LONGEST_BUSY_S = 0.05, 1.0
#: Seconds between two settlements of accounts, at most: so much later a budget is known to be used up.
_SETTLE_S = 1.0
#: Seconds that the clock of peers may drift from one cycle to the next; what is more was a change by hand.
_DRIFT_S = 1.0
_NEVER = float("-inf")


class Registry(Owner, Protocol):
    """What peers need of a registry."""

    clock: Callable[[], float]
    chance: Callable[[], float]
    probe_interval: float

    def decide(self, what: Callable[[EndpointPool], Any]) -> Any:
        """Change what is known under its lock, and tell whoever waits for a change."""


class Monitor(Protocol):
    """What peers need of a monitor."""

    @property
    def running(self) -> bool:
        """Whether its thread is there to probe."""

    def hurry(self) -> None:
        """Probe whoever was not probed for an interval."""


class Talk:
    """One process's talk with a store. One thread at a time is in `cycle` or `end`; whoever asks takes no lock.

    Args:
        registry: whose; not kept.
        gossip: what is told and believed; the registry's lock guards it.
        store: where peers meet.
        news: is set when there is something to read.

    """

    def __init__(self, registry: Registry, gossip: Gossip, store: Store, news: threading.Event) -> None:
        self._interval = min(registry.probe_interval, _LONGEST_INTERVAL_S)
        self._lease_s = max(_SHORTEST_LEASE_S, _LAST * self._interval)
        self._clock, self._chance = registry.clock, registry.chance
        self._gossip = gossip
        self._endpoints = list(gossip.identities.values())
        self._store = store
        self.accounts = Accounts(sorted(self._endpoints))
        self.forget(news)

    def forget(self, news: threading.Event) -> None:
        """Begin anew, in another process."""
        #: Is set when there is something to read.
        self.news = news
        self._owner = uuid4().hex
        self._is_open = False
        self._told: Set[str] = set()  # the kinds of trouble that were warned of
        self._offset: Optional[float] = None  # what the clock of peers is ahead of ours
        self._busy_since: Optional[float] = None
        self._down_since: Optional[float] = None
        self._retry_s = _RETRY_S
        self._alone_at = _NEVER  # from when on this process probes as without a store
        self._begin()

    def _begin(self) -> None:
        self._has_news = True
        self._leases: Dict[str, int] = {}  # replaced whole
        self._leased_until = self._lease_at = self._read_at = self._settle_at = _NEVER

    # What others ask

    @property
    def is_open(self) -> bool:
        """Whether the store is in use."""
        return self._is_open and self._down_since is None

    @property
    def is_down(self) -> bool:
        """Whether the store cannot be used."""
        return self._down_since is not None

    def may_probe(self, name: str) -> bool:
        """Tell whether it is for this process to probe an endpoint: nobody else does, as far as is known."""
        now = self._clock()
        if now >= self._alone_at:  # the store is down, or whoever waits for it does so for too long
            return True
        return self._gossip.identities[name] in self._leases and now < self._leased_until

    def expect(self) -> None:
        """Let others probe for a while: a thread will find out if they do."""
        self._alone_at = self._clock() + _LOST * self._lease_s

    def owes(self, registry: Registry) -> bool:
        """Tell whether there is something to tell."""
        return self._gossip.has_news() or self.accounts.owe(registry)

    def on_news(self) -> None:
        """Read at the next opportunity."""
        self._has_news = True
        self.news.set()

    def settle_soon(self) -> None:
        """Settle the accounts in the next cycle."""
        self._settle_at = _NEVER

    # One thread at a time

    def cycle(self, registry: Registry, monitors: Optional[Sequence[Monitor]]) -> Optional[float]:
        """Tell what was found out, hear what others did, renew the leases.

        Args:
            registry: whose.
            monitors: those that would probe; None where a call talks, which cannot renew a lease in time.

        Returns:
            the seconds until the next cycle; None where others are busy with the store, and it is for a moment only.

        """
        try:
            self._talk(registry, monitors or ())
        except StoreBusy as error:
            if self._is_busy_for_a_moment():
                return None
            self._fail(registry, str(error))
        except StoreError as error:
            self._fail(registry, str(error))
        except Exception as error:  # a thread that ended would leave this process deaf
            logger.debug("state: %s", self._store.kind, exc_info=True)
            self._fail(registry, f"{self._store.kind}: {type(error).__name__}")
        else:
            self._recover(registry)
            if monitors is not None:
                self.expect()
        if self._down_since is not None:
            return self._retry_s * (0.75 + 0.5 * self._chance())  # or all would come at once
        return min(self._store.look_s, max(0.0, self._lease_at - self._clock()))

    def end(self, registry: Optional[Registry]) -> None:
        """Tell what is left, give up the leases, and close the store."""
        if self.is_open:
            try:
                if registry is not None:
                    self._tell(registry, self._store.now() - self._clock())
                    self.accounts.settle(registry, self._store)
                if self._leases:
                    self._store.release(list(self._leases), self._owner)
            except StoreError as error:
                logger.debug("state: %s", error)
        self._begin()
        self._is_open = False
        self._store.close()

    def _talk(self, registry: Registry, monitors: Sequence[Monitor]) -> None:
        store = self._store
        store.open(self.on_news)
        self._is_open = True
        now = self._clock()
        offset = store.now() - now
        if self._offset is not None and abs(offset - self._offset) > _DRIFT_S:
            registry.look(lambda _pool: self._gossip.retell())  # what was told has another time now
        self._offset = offset
        self._tell(registry, offset)
        if now >= self._lease_at:
            self._renew(monitors, now)
        if self._has_news or now >= self._read_at or store.has_news():
            self._has_news, self._read_at = False, now + self._interval
            self._hear(registry, offset)
        if now >= self._settle_at:
            self._settle_at = now + min(self._interval / 2, _SETTLE_S)
            self.accounts.settle(registry, store)

    def _tell(self, registry: Registry, offset: float) -> None:
        now = self._clock()
        told = registry.look(lambda _pool: self._gossip.tell(now, offset))
        if told:
            try:
                self._store.write([_record(entry) for entry in told], self._leases)
            except StoreError:
                registry.look(lambda _pool: self._gossip.retell())
                raise
        self._gossip.written()

    def _hear(self, registry: Registry, offset: float) -> None:
        entries: List[Entry] = []
        shared_now = self._clock() + offset
        for endpoint, kind, data in self._store.read(self._endpoints):
            try:
                entries.append(decoded(endpoint, kind, data, shared_now))
            except Poisoned as error:
                self._warn("poisoned", "state: %s: an entry is ignored: %s", self._store.kind, error)
        now = self._clock()
        if registry.decide(lambda _pool: self._gossip.hear(entries, now, offset)):
            self._warn(
                "poisoned", "state: %s: an entry is ignored: its endpoint is unknown", self._store.kind
            )

    def _renew(self, monitors: Sequence[Monitor], now: float) -> None:
        """Take, or renew, the leases of all endpoints that nobody else probes, if this process probes at all."""
        self._lease_at = now + _RENEW * self._interval
        if not monitors:
            return
        before = self._leases if now < self._leased_until else {}
        self._leases = self._store.lease(self._endpoints, self._owner, self._lease_s)
        self._leased_until = now + self._lease_s
        if set(self._leases) - set(before):
            for monitor in monitors:
                monitor.hurry()

    # Trouble

    def _is_busy_for_a_moment(self) -> bool:
        now = self._clock()
        if self._busy_since is None:
            self._busy_since = now
        return self._down_since is None and now < self._busy_since + _LONGEST_BUSY_S

    def _fail(self, registry: Registry, why: str) -> None:
        self._warn("down", "state: %s; going on without it, and trying again", why)
        now = self._clock()
        if self._down_since is None:
            self._down_since, self._retry_s = now, _RETRY_S
            self._alone_at = min(self._alone_at, now + self._lease_s)
        else:
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        registry.look(lambda _pool: self._gossip.postpone(now))
        self._store.close()

    def _recover(self, registry: Registry) -> None:
        self._busy_since = None
        if self._down_since is not None:
            logger.info("state: %s can be used again", self._store.kind)
            self._down_since = None
            registry.look(lambda _pool: self._gossip.retell())
            self.on_news()

    def _warn(self, what: str, message: str, *values: Any) -> None:
        """Warn once of each kind of trouble."""
        if what not in self._told:
            self._told.add(what)
            logger.warning(message, *values)


def _record(entry: Entry) -> Record:
    return Record(entry.endpoint, entry.kind, entry.at, entry.until, encoded(entry), gist(entry))
