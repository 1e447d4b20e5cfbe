"""Peers: the registries of other processes with the same endpoints, met in a store.

A daemon thread writes what was found out here, reads what others found out, and holds the leases that say who probes
which endpoint. No call ever waits for the store, but the first of a process, which gives it a moment: so a program that
runs for a second knows what the last one learned. Where no thread can run, calls talk, if the store is one that takes no
time.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from time import monotonic
from typing import Any, Callable, List, Optional

from ..policy.pool import EndpointPool
from ..policy.sharing import Gossip
from ..state.address import store_of
from ..state.store import Store
from . import process
from .talk import BUSY_RETRY_S, Monitor, Registry, Talk

#: Seconds that the first call of a process gives the store, at most.
_FIRST_S = 0.3
#: Seconds that a program which ends gives the thread to write what it has found out.
_FAREWELL_S = 0.2
#: Seconds that `close` waits for the thread.
_CLOSE_S = 1.0
_NEVER = float("-inf")


def peers_at(state: Any, registry: Registry, pool: EndpointPool) -> Peers:
    """Return the peers of a registry that meet at `state`; see `store_of` for what it may be and what is raised."""
    return Peers(registry, Gossip(pool, registry.chance), store_of(state))


class Peers:
    """What a registry and its peers tell each other.

    Args:
        registry: whose; held weakly.
        gossip: what is told and believed; the registry's lock guards it.
        store: where they meet.

    """

    def __init__(self, registry: Registry, gossip: Gossip, store: Store) -> None:
        self._registry = weakref.ref(registry)
        self._clock = registry.clock
        self.gossip = gossip
        self.store = store
        self._reset()
        self._talk = Talk(registry, gossip, store, self._wake)
        self.accounts = self._talk.accounts
        self.may_probe = self._talk.may_probe
        process.register(self)
        if isinstance(store, process.Holdable):
            process.register_held(store)
        _everyone.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._thread: Optional[threading.Thread] = None
        self._monitors: weakref.WeakSet[Monitor] = weakref.WeakSet()
        self._closed = False
        self._wake = threading.Event()  # replaced when the thread is to end
        self._talking = threading.Lock()  # held by whoever talks; nobody waits for it but a thread
        self._inline_at = _NEVER  # when a call may talk again; written by whoever holds _talking
        self._settled = threading.Event()  # the store was read once, or cannot be
        self._idle = threading.Event()  # a cycle has ended since this was cleared

    def __repr__(self) -> str:
        return f"<Peers {self.store.kind} {self.state}>"

    @property
    def state(self) -> str:
        """Whether peers can be met: `shared`, or `alone` while the store cannot be used."""
        return "shared" if self._talk.is_open else "alone"

    # What others ask

    def start(self, patience_s: float, monitor: Monitor) -> None:
        """Start the thread if it does not run, and give it a moment to read.

        Args:
            patience_s: seconds to wait at most; nobody waits a second time.
            monitor: who asks; it takes part until it leaves.

        Raises:
            NoThread: none can be had.

        """
        with self._lock:
            self._monitors.add(monitor)
            self._closed = False
            if self._thread is None:
                wake = self._wake
                ref = weakref.ref(self, lambda _ref: wake.set())
                self._thread = process.start_thread(_run, "syncfailover-peers", ref, wake, self.store)
                self._talk.expect()
        self._settled.wait(min(patience_s, _FIRST_S))
        self._settled.set()

    def hurry(self) -> None:
        """Have the thread, or the next call, write at once what was found out."""
        self._wake.set()

    @property
    def hurried(self) -> bool:
        """Whether something is to be written at once."""
        return self._wake.is_set()

    def leave(self, monitor: Monitor) -> None:
        """Take part no more; the last one to leave closes the door."""
        with self._lock:
            self._monitors.discard(monitor)
            if self._monitors:
                return
        self.close()

    def close(self) -> None:
        """Write what is left, give up the leases and end the thread, within a second."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            wake, self._wake = self._wake, threading.Event()
            self._talk.news = self._wake
        wake.set()
        if thread is None:
            self._alone(self._end)
        elif thread is not threading.current_thread():
            thread.join(_CLOSE_S)

    end_threads = close

    def farewell(self, until: float) -> None:
        """Give the thread until then to write what the program has found out before it ends."""
        if self._thread is None:
            if self._talk.is_open:
                self._alone(self._end)
            return
        while not self._talk.is_down and self._owes():
            self._talk.settle_soon()
            self._idle.clear()
            self._wake.set()
            if not self._idle.wait(max(0.0, until - monotonic())):
                return

    def after_fork(self) -> None:
        """Leave the parent's connection to the parent; the child opens its own on first use."""
        self.store.forsake()
        self._reset()
        self._talk.forget(self._wake)
        self.accounts.after_fork()

    # Talking, which the thread does, or a call where none can run

    def talk(self) -> float:
        """Talk to the store once; return the seconds until the next time."""
        with self._lock:
            monitors = [monitor for monitor in self._monitors if monitor.running]
        with self._talking:
            return self._cycle(monitors)

    def talk_inline(self) -> None:
        """Talk within a call, if that takes milliseconds whatever happens, unless another call does."""
        if self.store.is_quick and not self._closed and self._clock() >= self._inline_at:
            self._alone(self._cycle_inline)

    def ends(self, wake: threading.Event) -> bool:
        """Tell whether the thread that this wakes is to end; it says what it knows, and gives up its leases, before."""
        if wake is self._wake:
            return False
        with self._talking:
            self._end()
        return True

    def _owes(self) -> bool:
        registry = self._registry()
        return registry is not None and self._talk.owes(registry)

    def _alone(self, what: Callable[[], None]) -> None:
        """Do something on behalf of a call, unless somebody else talks."""
        if self._talking.acquire(blocking=False):
            try:
                what()
            finally:
                self._talking.release()

    # Hold _talking when calling these

    def _cycle(self, monitors: Optional[List[Monitor]]) -> float:
        registry = self._registry()
        if registry is None:
            return 0.0
        wait_s = self._talk.cycle(registry, monitors)
        if wait_s is None:
            return BUSY_RETRY_S
        self._settled.set()
        self._idle.set()
        return wait_s

    def _cycle_inline(self) -> None:
        self._wake.clear()
        wait_s = self._cycle(None)
        if self._talk.is_down:
            self._inline_at = self._clock() + wait_s
        if self._closed:  # while this talked
            self._end()
        elif process.forks_later():  # or the children could not use it
            self.store.close()

    def _end(self) -> None:
        self._talk.end(self._registry())
        self._settled.clear()


def _run(ref: Callable[[], Optional[Peers]], wake: threading.Event, store: Store) -> None:
    """Run the thread until the peers are closed or gone."""
    while True:
        peers = ref()
        if peers is None:
            store.close()
            return
        if peers.ends(wake):
            return
        wake.clear()  # what comes from here on is seen the next time
        wait_s = peers.talk()
        del peers  # or it could not be collected while this waits
        wake.wait(wait_s)


#: All of this process.
_everyone: weakref.WeakSet[Peers] = weakref.WeakSet()


@atexit.register
def _say_farewell() -> None:
    process.entered()
    until = monotonic() + _FAREWELL_S
    for peers in process.living(_everyone):
        peers.farewell(until)
