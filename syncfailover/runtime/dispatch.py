"""Events to callbacks: in order, outside every lock, and whatever a callback does to itself."""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Deque, Dict, Generic, List, TypeVar

from ..events import EVENTS, Event
from ..validation import one_of, reject

logger = logging.getLogger(__name__)

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
        while self.queue:
            with self._lock:
                if self._draining:
                    return
                self._draining = True
            try:
                self._deliver_all()
            finally:
                with self._lock:
                    self._draining = False

    def after_fork(self) -> None:
        """Forget a thread of the parent that was delivering."""
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
    """The callbacks of `client.on`, and the outbox that feeds them."""

    def __init__(self, queue: Deque[Event]) -> None:
        self._outbox = Outbox(self._call, queue)
        self._lock = threading.Lock()
        self._callbacks: Dict[str, List[Callback]] = {}  # replaced whole under _lock, read without it
        self.drain = self._outbox.drain

    def on(self, event: str, callback: Callback) -> Callable[[], None]:
        """Call `callback(event)` for each event of that name; return a function that ends it.

        Raises:
            ConfigurationError: an unknown event, or a callback that cannot be called.

        """
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
        self._outbox.after_fork()

    def _call(self, event: Event) -> None:
        for callback in self._callbacks.get(event.name, ()):
            try:
                callback(event)
            except Exception:  # the next listener still hears of it
                logger.exception("listener %r for event %r raised", callback, event.name)

    def _off(self, event: str, callback: Callback) -> None:
        with self._lock:
            left = [known for known in self._callbacks.get(event, ()) if known is not callback]
            self._callbacks = {name: cbs for name, cbs in {**self._callbacks, event: left}.items() if cbs}
