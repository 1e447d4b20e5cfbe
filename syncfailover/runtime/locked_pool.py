"""The pool under a lock: its own methods for many threads, and what happens around them.

Whoever changes something marks what was seen as out of date, wakes those who wait for a change, and delivers the events
after the lock is released.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, AbstractSet, Any, Callable, Optional, TypeVar

from ..policy.health import ProbeResult
from ..policy.line import Ticket
from ..policy.node import Attempt
from ..policy.outcome import Outcome
from ..policy.pool import EndpointPool
from ..policy.rate_limit import Room
from . import process
from .dispatch import Dispatcher
from .leftovers import Leftovers
from .queue import Queue
from .state_log import log_change

if TYPE_CHECKING:
    from .peers import Peers

Result = TypeVar("Result")

_NOBODY: AbstractSet[str] = frozenset()


class LockedPool:
    """What the failover loop, the monitor and a `Course` ask.

    Args:
        pool: guarded by the lock from now on.
        clock: seconds, monotonic.

    """

    def __init__(self, pool: EndpointPool, clock: Callable[[], float]) -> None:
        # Everything in the pool is guarded by _lock.
        self._pool = pool
        self.clock = clock
        self._outbox = pool.outbox
        self._lines = pool.lines
        self._dispatcher = Dispatcher(self._outbox, log_change)
        self.on = self._dispatcher.on
        self.wants = self._dispatcher.wants
        self.emit = self._dispatcher.tell
        self._leftovers = Leftovers()
        self.clear_up = self._leftovers.clear_up
        self._dirty = False  # set under _lock; a reader that sees it too late sees a snapshot a moment older
        self._inherited = False  # of a parent process, and nothing was learned since
        #: Those with whom all this is shared; None for nobody.
        self.peers: Optional[Peers] = None
        self._make_locks()
        process.register(self)

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue = Queue(self._lock, self._pool, self.clock)

    def begin(
        self, now: float, model: Optional[str], affinity: Any = None, *, wait_until: Optional[float] = None
    ) -> Optional[Attempt]:
        """Choose for a fresh call; where nobody is eligible, one that may wait gets None, any other fails open."""
        process.entered()
        if self._leftovers:
            self._leftovers.clear_up()
        with self._lock:
            attempt = self._pool.begin(now, model, affinity, wait_until=wait_until)
            self._dirty = True
            if self._outbox:
                self._changed.notify_all()
        if self._outbox:
            self._tell(attempt)
        return attempt

    def choose(
        self,
        now: float,
        model: Optional[str],
        exclude: AbstractSet[str] = _NOBODY,
        within: Optional[int] = None,
    ) -> Optional[Attempt]:
        """Choose among the eligible that are not excluded."""
        with self._lock:
            attempt = self._pool.choose(now, model, exclude, within)
            self._dirty = True
            if self._outbox:
                self._changed.notify_all()
        if self._outbox:
            self._tell(attempt)
        return attempt

    def choose_same(self, now: float, model: Optional[str], name: str) -> Optional[Attempt]:
        """Choose one endpoint once more."""
        with self._lock:
            attempt = self._pool.choose_same(now, model, name)
            self._dirty = True
            self._changed.notify_all()
        self._tell(attempt)
        return attempt

    def is_usable(self, name: str, now: float) -> bool:
        """Tell whether this one may be asked at all."""
        with self._lock:
            return self._pool.is_usable(name, now)

    def report(
        self, attempt: Attempt, outcome: Outcome, now: Optional[float] = None, room: Optional[Room] = None
    ) -> None:
        """Let the result of an attempt change what is known; only the first report of an attempt counts."""
        process.entered()
        if now is None:
            now = self.clock()
        with self._lock:
            self._pool.report(attempt, outcome, now, room)
            self._dirty, self._inherited = True, False
            if self._outbox:
                self._changed.notify_all()
            if self._lines:
                self._queue.call_next()
        if self._outbox:
            self._drain()

    def release(self, attempt: Attempt) -> None:
        """Give back an attempt without a verdict."""
        process.entered()
        with self._lock:
            self._pool.release(attempt)
            self._dirty = True
            self._changed.notify_all()
            self._queue.call_next()

    def clear_up_later(
        self, attempt: Attempt, outcome: Outcome, room: Optional[Room], leftover: Callable[[], None]
    ) -> None:
        """Settle an attempt that the collector found, and do the rest at the next call.

        The collector may run in a thread that holds the lock; where nobody holds it, the permit is free at once.
        Listeners hear of it with the rest.
        """
        self._leftovers.add(leftover)
        if not self._lock.locked():
            with self._lock:
                self._pool.report(attempt, outcome, self.clock(), room)
                self._dirty = True
                self._queue.call_next()

    def wait_turn(self, ticket: Ticket, until: float) -> Optional[Attempt]:
        """Wait in line until it is this ticket's turn; None when its time is over, or where the line is full."""
        try:
            self._queue.stand(ticket, until, self._dispatcher.drain)
        except BaseException:
            if ticket.attempt is not None:  # its turn came just then
                self.release(ticket.attempt)
            raise
        self._dirty = True
        self._tell(ticket.attempt)
        return ticket.attempt

    def waiting(self) -> int:
        """Count the callers that stand in line now."""
        return len(self._lines)

    def probed(self, result: ProbeResult) -> None:
        """Let a probe change what is known."""
        if self._leftovers:
            self._leftovers.clear_up()
        self._inherited = False
        self.decide(lambda pool: pool.probed(result, self.clock()))

    def decide(self, what: Callable[[EndpointPool], Result]) -> Result:
        """Change what is known, and tell whoever waits for a change."""
        process.entered()
        with self._lock:
            result = what(self._pool)
            self._dirty = True
            self._changed.notify_all()
            self._queue.call_next()
        self._drain()
        return result

    def look(self, what: Callable[[EndpointPool], Result]) -> Result:
        """Ask the pool something that changes nothing which anybody waits for."""
        with self._lock:
            return what(self._pool)

    def _drain(self) -> None:
        """Deliver events, to peers first."""
        if self.peers is not None and self._outbox:
            self.peers.hurry()
        self._dispatcher.drain()

    def last_success(self, name: str) -> Optional[float]:
        """Return when a call to this endpoint last succeeded, on the registry's clock."""
        return self._pool.nodes[name].last_success

    def probed_at(self, name: str) -> Optional[float]:
        """Return when this endpoint was last probed, by whomever, on the registry's clock."""
        return self._pool.nodes[name].health.probed_at

    def failing(self, now: float) -> AbstractSet[str]:
        """Name those who have failed a moment ago, while nobody answered."""
        with self._lock:
            return self._pool.failing(now)

    def was_just_out(self, now: float, model: Optional[str], since: float) -> bool:
        """Tell whether somebody has just found out, and after `since`, that everybody fails."""
        with self._lock:
            return self._pool.was_just_out(now, model, since)

    def withdraw_retry(self, now: float) -> bool:
        """Take one retry from the budget that all calls share."""
        with self._lock:
            return self._pool.withdraw_retry(now)

    def ready_at(self, now: float, model: Optional[str], exclude: AbstractSet[str]) -> Optional[float]:
        """Return when the first that is up may be asked."""
        with self._lock:
            return self._pool.ready_at(now, model, exclude)

    def may_recover(self, now: float, model: Optional[str], exclude: AbstractSet[str], until: float) -> bool:
        """Tell whether waiting until then could help."""
        with self._lock:
            return self._pool.may_recover(now, model, exclude, until)

    def smaller_windows(self, attempt: Attempt) -> AbstractSet[str]:
        """Name those whose context window is no larger."""
        return self._pool.smaller_windows(attempt)

    def serves(self, model: Optional[str]) -> bool:
        """Tell whether any endpoint serves the model."""
        return self._pool.serves(model)

    def _tell(self, attempt: Attempt | None) -> None:
        """Deliver events; where a listener is interrupted, the permit that came with them is given back."""
        try:
            self._drain()
        except BaseException:
            if attempt is not None:
                self.release(attempt)
            raise

    def after_fork(self) -> None:
        """Replace the locks in a forked child; the parent's calls are not the child's."""
        if self._lock.locked():  # another thread was changing something, and caches bear no half of a change
            self._pool.roster.forget_pairs()
        self._make_locks()
        self._leftovers.forget()
        self._dispatcher.after_fork()
        self._dirty = self._inherited = True
