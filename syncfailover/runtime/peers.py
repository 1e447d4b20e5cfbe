"""Peers: the registries of other processes with the same endpoints, met in a store.

A daemon thread writes what was found out here, reads what others found out, and holds the leases that say who probes
which endpoint. No call ever waits for the store, but the first of a process, which gives it a moment: so a program that
runs for a second knows what the last one learned. A store that cannot be used is warned of once, and tried again; until
it can, everything goes on as without it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from time import monotonic
from typing import Any, Callable, Dict, List, Optional, Protocol, Set
from uuid import uuid4

from ..policy.entry import Entry, Poisoned, decoded, encoded, gist
from ..policy.pool import EndpointPool
from ..policy.sharing import Gossip
from ..state.address import store_of
from ..state.store import Record, Store, StoreError
from . import process
from .accounts import Accounts, Owner

logger = logging.getLogger(__name__)

#: Seconds that the first call of a process gives the store, at most.
_FIRST_S = 0.3
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
#: Seconds that a program which ends gives the thread to write what it has found out.
_FAREWELL_S = 0.2
_NEVER = float("-inf")


class Registry(Owner, Protocol):
    """What peers need of a registry."""

    clock: Callable[[], float]
    chance: Callable[[], float]
    probe_interval: float
    #: Its monitor, if there is one.
    monitor: Optional[Callable[[], object]]

    def decide(self, what: Callable[[EndpointPool], Any]) -> Any:
        """Change what is known under its lock, and tell whoever waits for a change."""


def peers_at(state: Any, registry: Registry, pool: EndpointPool) -> Peers:
    """Return the peers of a registry that meet at `state`; see `store_of` for what it may be and what is raised."""
    return Peers(registry, Gossip(pool, registry.chance), store_of(state))


class Peers:
    """What a registry and its peers tell each other.

    Args:
        registry: whose; held weakly.
        gossip: what is told and believed; the registry's lock guards it.
        store: where they meet; one thread at a time uses it.

    """

    def __init__(self, registry: Registry, gossip: Gossip, store: Store) -> None:
        self._registry = weakref.ref(registry)
        self._interval = min(registry.probe_interval, _LONGEST_INTERVAL_S)
        self._chance = registry.chance
        self._clock = registry.clock
        self.gossip = gossip
        self.store = store
        self.accounts = Accounts(sorted(gossip.identities.values()))
        self._reset()
        process.register(self)
        _everyone.add(self)

    def _reset(self) -> None:
        self._owner = uuid4().hex
        self._lock = threading.Lock()  # guards _thread
        self._thread: Optional[threading.Thread] = None
        self._closed = False
        self._wake = threading.Event()
        self._settled = threading.Event()  # the store was read once, or cannot be
        self._idle = threading.Event()  # a cycle has ended since this was cleared
        # Written by whoever talks, one thread at a time; what others read is replaced whole.
        self._leases: Dict[str, int] = {}
        self._leased_until = self._lease_at = self._read_at = self._settle_at = _NEVER
        self._down_since: Optional[float] = None
        self._alone_at = float("inf")  # from when on this process probes as without a store
        self._retry_s = _RETRY_S
        self._has_news = True
        self._is_open = False
        self._told: Set[str] = set()  # the kinds of trouble that were warned of

    def __repr__(self) -> str:
        return f"<Peers {self.store.kind} {self.state}>"

    @property
    def state(self) -> str:
        """Whether peers can be met: `shared`, or `alone` while the store cannot be used."""
        return "shared" if self._is_open and self._down_since is None else "alone"

    # What others ask

    def start(self, patience_s: float) -> None:
        """Start the thread if it does not run, and give it a moment to read.

        Args:
            patience_s: seconds to wait at most; nobody waits a second time.

        Raises:
            NoThread: none can be had.

        """
        with self._lock:
            if self._thread is None:
                self._closed, wake = False, self._wake
                self._alone_at = self._clock() + _LOST * self._lease_s
                ref = weakref.ref(self, lambda _ref: wake.set())
                self._thread = process.start_thread(_talk, "syncfailover-peers", ref, wake, self.store)
        self._settled.wait(min(patience_s, _FIRST_S))
        self._settled.set()

    def may_probe(self, name: str) -> bool:
        """Tell whether it is for this process to probe an endpoint: nobody else does, as far as is known."""
        now = self._clock()
        if now >= self._alone_at:  # the store is down, or whoever waits for it does so for too long
            return True
        return self.gossip.identities[name] in self._leases and now < self._leased_until

    def hurry(self) -> None:
        """Have the thread write at once what was found out."""
        self._wake.set()

    def close(self) -> None:
        """Write what is left, give up the leases and end the thread, within a second."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            wake, self._wake = self._wake, threading.Event()
        wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def farewell(self, until: float) -> None:
        """Give the thread until then to write what the program has found out before it ends."""
        while self._thread is not None and self._down_since is None and self.gossip.has_news():
            self._idle.clear()
            self._wake.set()
            if not self._idle.wait(max(0.0, until - monotonic())):
                return

    def after_fork(self) -> None:
        """Leave the parent's connection to the parent; the child opens its own on first use."""
        self.store.forsake()
        self._reset()
        self.accounts.after_fork()

    # Talking, which the thread does, or a call where none can run

    def talk(self) -> float:
        """Tell what was found out, hear what others did, renew the leases; return the seconds until the next time."""
        registry = self._registry()
        if registry is None:
            return 0.0
        try:
            self._talk(registry)
        except StoreError as error:
            self._fail(str(error))
        else:
            self._recover()
            self._alone_at = self._clock() + _LOST * self._lease_s
        self._settled.set()
        self._idle.set()
        if self._down_since is not None:
            return self._retry_s * (0.75 + 0.5 * self._chance())  # or all would come at once
        return min(self.store.look_s, max(0.0, self._lease_at - self._clock()))

    def talk_inline(self) -> None:
        """Talk within a call, if that takes milliseconds whatever happens."""
        if self.store.is_quick and not self._closed:
            self.talk()

    def ends(self, wake: threading.Event) -> bool:
        """Tell whether the thread that this wakes is to end; it says what it knows, and gives up its leases, before."""
        if wake is self._wake:
            return False
        registry = self._registry()
        if self._is_open and self._down_since is None:
            try:
                if registry is not None:
                    self._tell(registry, self.store.now() - self._clock())
                self.store.release(list(self._leases), self._owner)
            except StoreError as error:
                logger.debug("state: %s", error)
        return True

    def _talk(self, registry: Registry) -> None:
        store = self.store
        store.open(self._on_news)
        self._is_open = True
        now = self._clock()
        offset = store.now() - now
        self._tell(registry, offset)
        if now >= self._lease_at:
            self._renew(registry, now)
        if self._has_news or now >= self._read_at or store.has_news():
            self._has_news, self._read_at = False, now + self._interval
            self._hear(registry, offset)
        if now >= self._settle_at:
            self._settle_at = now + self._interval / 2
            self.accounts.settle(registry, store)

    def _tell(self, registry: Registry, offset: float) -> None:
        now = self._clock()
        told = registry.look(lambda _pool: self.gossip.tell(now, offset))
        if not told:
            self.gossip.written()
            return
        try:
            self.store.write([_record(entry) for entry in told], self._leases)
        except StoreError:
            registry.look(lambda _pool: self.gossip.retell())
            raise
        self.gossip.written()

    def _hear(self, registry: Registry, offset: float) -> None:
        entries: List[Entry] = []
        shared_now = self._clock() + offset
        for endpoint, kind, data in self.store.read(list(self.gossip.identities.values())):
            try:
                entries.append(decoded(endpoint, kind, data, shared_now))
            except Poisoned as error:
                self._warn("poisoned", "state: %s: an entry is ignored: %s", self.store.kind, error)
        now = self._clock()
        if registry.decide(lambda _pool: self.gossip.hear(entries, now, offset)):
            self._warn("poisoned", "state: %s: an entry is ignored: its endpoint is unknown", self.store.kind)

    def _renew(self, registry: Registry, now: float) -> None:
        """Take, or renew, the leases of all endpoints that nobody else probes, if this process probes at all."""
        self._lease_at = now + _RENEW * self._interval
        monitor: Any = None if registry.monitor is None else registry.monitor()
        if monitor is None or not monitor.running:
            return
        before = self._leases if now < self._leased_until else {}
        self._leases = self.store.lease(list(self.gossip.identities.values()), self._owner, self._lease_s)
        self._leased_until = now + self._lease_s
        if set(self._leases) - set(before):
            monitor.hurry()

    @property
    def _lease_s(self) -> float:
        return max(_SHORTEST_LEASE_S, _LAST * self._interval)

    def _on_news(self) -> None:
        self._has_news = True
        self._wake.set()

    def _fail(self, why: str) -> None:
        self._warn("down", "state: %s; going on without it, and trying again", why)
        if self._down_since is None:
            self._down_since, self._retry_s = self._clock(), _RETRY_S
            self._alone_at = min(self._alone_at, self._down_since + self._lease_s)
        else:
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        self.store.close()

    def _recover(self) -> None:
        if self._down_since is None:
            return
        logger.info("state: %s can be used again", self.store.kind)
        self._down_since, self._has_news = None, True
        registry = self._registry()
        if registry is not None:
            registry.look(lambda _pool: self.gossip.retell())
        self._wake.set()

    def _warn(self, what: str, message: str, *values: Any) -> None:
        """Warn once of each kind of trouble."""
        if what not in self._told:
            self._told.add(what)
            logger.warning(message, *values)


def _record(entry: Entry) -> Record:
    return Record(entry.endpoint, entry.kind, entry.at, entry.until, encoded(entry), gist(entry))


def _talk(ref: Callable[[], Optional[Peers]], wake: threading.Event, store: Store) -> None:
    """Run the thread until the peers are closed or gone."""
    try:
        while True:
            peers = ref()
            if peers is None or peers.ends(wake):
                return
            wake.clear()  # what comes from here on is seen the next time
            wait_s = peers.talk()
            del peers  # or it could not be collected while this waits
            wake.wait(wait_s)
    finally:
        store.close()


#: All of this process.
_everyone: weakref.WeakSet[Peers] = weakref.WeakSet()


@atexit.register
def _say_farewell() -> None:
    until = monotonic() + _FAREWELL_S
    for peers in list(_everyone):
        peers.farewell(until)
