"""Events to callbacks: in order, outside every lock, and whatever a callback does to itself.

Changes of state are first written to the log by whoever caused them, and then told to listeners on a thread of their
own, for which the cause waits a moment: a listener that is quick has heard of a change before the call goes on, one
that blocks holds up nobody but the listeners after it. Events of one call are told on that call's own thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any, Callable, Deque, Dict, Generic, List, TypeVar

from ..events import EVENTS, Event
from ..validation import one_of, reject
from . import process

logger = logging.getLogger(__name__)

#: Seconds that whoever caused a change waits for its listeners.
_PATIENCE_S = 0.1
#: Changes kept for listeners that are slow; beyond, the oldest are dropped.
_PENDING = 1000

Callback = Callable[[Event], Any]
Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """A queue that is delivered in order, by whichever thread comes first; the others go on with their work.

    Whoever decides appends to `queue` under its own lock, which fixes the order, and calls `drain` after releasing
    it. A delivery that blocks holds up only the thread that delivers; what it raises is logged.
    """

    def __init__(self, deliver: Callable[[Item], None], queue: Deque[Item]) -> None:
        self._deliver = deliver
        self.queue = queue
        self._lock = threading.Lock()
        self._draining = False  # guarded by _lock

    def drain(self) -> None:
        """Deliver what is queued, unless another thread is doing so."""
        while self.queue and self._claim():
            self._deliver_claimed()

    def drain_aside(self, patience_s: float) -> None:
        """Do the same on a thread of its own, and wait for it that many seconds at most."""
        if not self.queue or not self._claim():
            return
        try:
            aside = process.start_thread(self._deliver_aside, "syncfailover-events")
        except process.NoThread:
            self._deliver_claimed()
        else:
            aside.join(patience_s)

    def _claim(self) -> bool:
        with self._lock:
            claimed, self._draining = not self._draining, True
        return claimed

    def _deliver_claimed(self) -> None:
        try:
            self._deliver_all()
        finally:
            with self._lock:
                self._draining = False

    def _deliver_aside(self) -> None:
        self._deliver_claimed()
        self.drain()  # what came between the last look and the end of the claim

    def after_fork(self) -> None:
        """Forget a thread of the parent that was delivering, and what the parent delivers itself."""
        self.queue.clear()
        self._lock = threading.Lock()
        self._draining = False

    def _deliver_all(self) -> None:
        while True:
            try:
                item = self.queue.popleft()
            except IndexError:
                return
            try:
                self._deliver(item)
            except Exception:  # a listener's fault is not the caller's
                logger.exception("a listener raised on %s", item)


class Dispatcher:
    """The log, the callbacks of `client.on`, and the outboxes that feed them.

    Args:
        queue: changes of state, in order.
        log: writes a line for each.

    """

    def __init__(self, queue: Deque[Event], log: Callable[[Event], None]) -> None:
        self._log = log
        self._changes = Outbox(self._log_and_pass_on, queue)
        self._pending: Outbox[Event] = Outbox(self._call, deque(maxlen=_PENDING))
        self._warned = False  # a second warning does no harm
        self._lock = threading.Lock()
        self._callbacks: Dict[str, List[Callback]] = {}  # replaced whole under _lock, read without it

    def drain(self) -> None:
        """Log what has changed, and tell the listeners."""
        self._changes.drain()
        self._pending.drain_aside(_PATIENCE_S)

    def _log_and_pass_on(self, event: Event) -> None:
        try:
            self._log(event)
        finally:
            if event.name in self._callbacks:
                self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        pending = self._pending.queue
        if len(pending) == _PENDING and not self._warned:
            self._warned = True
            names = sorted(
                {repr(callback) for callbacks in self._callbacks.values() for callback in callbacks}
            )
            logger.warning("a listener blocks; the oldest events are dropped (%s)", ", ".join(names))
        pending.append(event)

    def on(self, event: str, callback: Callback) -> Callable[[], None]:
        """Call `callback(event)` for each event of that name; return a function that ends it.

        Raises:
            ConfigurationError: an unknown event, or a callback that cannot be called.

        """
        process.entered()
        one_of("event", event, EVENTS)
        if not callable(callback):
            raise reject("callback", callback, "a callable that takes the event")
        with self._lock:
            self._callbacks = {**self._callbacks, event: [*self._callbacks.get(event, ()), callback]}
        return lambda: self._off(event, callback)

    def wants(self, event: str) -> bool:
        """Tell whether anybody listens."""
        return event in self._callbacks

    def tell(self, event: Event) -> None:
        """Deliver an event of one call on that call's own thread: a slow listener holds up nobody else."""
        self._call(event)

    def after_fork(self) -> None:
        """Replace the locks in a forked child."""
        self._lock = threading.Lock()
        self._changes.after_fork()
        self._pending.after_fork()

    def _call(self, event: Event) -> None:
        for callback in self._callbacks.get(event.name, ()):
            try:
                callback(event)
            except (Exception, SystemExit):  # the next listener still hears of it
                logger.exception("listener %r for event %r raised", callback, event.name)

    def _off(self, event: str, callback: Callback) -> None:
        process.entered()
        with self._lock:
            left = [known for known in self._callbacks.get(event, ()) if known is not callback]
            self._callbacks = {name: cbs for name, cbs in {**self._callbacks, event: left}.items() if cbs}
