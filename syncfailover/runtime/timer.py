"""A thread that does things later, unless they are called off first: most are."""

from __future__ import annotations

import logging
import threading
import weakref
from heapq import heapify, heappop, heappush
from time import monotonic
from typing import List, Protocol, Tuple

from . import process

logger = logging.getLogger(__name__)

#: Entries at which those called off are looked for the first time: few, so that what they hold stays in the cache.
_SWEEP_AT = 64
#: Seconds between two looks at least: what is a little late costs less than a thread that never sleeps.
_SLACK_S = 0.002


class Later(Protocol):
    """Something to do at its time."""

    #: Whether there is nothing to do any more.
    off: bool

    def fire(self) -> None:
        """Do it; on the timer's thread, so it had better be quick."""


class Timer:
    """Fires what is due. Its thread starts with the first entry and ends when the timer is closed or dropped.

    What is to be done later must not know the timer, or one that is dropped would not go away.
    """

    def __init__(self) -> None:
        self._reset()
        process.register(self)

    def _reset(self) -> None:
        self._clockwork = _Clockwork()
        self._finalizer = weakref.finalize(self, self._clockwork.close)
        self._finalizer.atexit = False

    def add(self, due: float, later: Later) -> bool:
        """Fire `later` at `due` on the monotonic clock; False where no thread can be had."""
        process.entered()
        return self._clockwork.add(due, later)

    def close(self) -> None:
        """End the thread; what is due later is not fired."""
        process.entered()
        self._finalizer()

    end_threads = close

    def after_fork(self) -> None:
        """Forget the parent's thread and what it was to do; one that was closed stays so."""
        closed = not self._finalizer.alive
        self._finalizer.detach()
        self._clockwork.disown()
        self._reset()
        if closed:
            self._finalizer()


class _Clockwork:
    """What the thread knows; it does not know the timer, so that one can be dropped."""

    def __init__(self) -> None:
        # Reentrant, for the collector may drop a timer, and so close it, in whatever thread holds this lock.
        self._changed = threading.Condition(threading.RLock())
        # All guarded by _changed.
        self._entries: List[Tuple[float, int, Later]] = []
        self._count = 0
        self._wakes_at = 0.0
        self._sweep_at = _SWEEP_AT
        self._running = self._closed = False

    def add(self, due: float, later: Later) -> bool:
        with self._changed:
            if not self._running and not self._start():
                return False
            if len(self._entries) >= self._sweep_at:
                self._sweep()
            self._count += 1
            heappush(self._entries, (due, self._count, later))
            if due < self._wakes_at:
                self._changed.notify()
        return True

    def close(self) -> None:
        with self._changed:
            self._closed, self._running = True, False
            self._changed.notify()

    def disown(self) -> None:
        """Do nothing more: unlike a thread, a greenlet of gevent goes on in a forked child."""
        self._closed = True

    def _start(self) -> bool:
        """Hold the lock when calling this."""
        if self._closed:
            return False
        try:
            process.start_thread(self._run, "syncfailover-timer")
        except process.NoThread:  # nothing is done later then
            return False
        self._running, self._wakes_at = True, float("inf")
        return True

    def _run(self) -> None:
        while not self._closed:
            _fire(self._next())  # keeping none of them
        with self._changed:
            self._entries.clear()

    def _next(self) -> List[Later]:
        """Take out what is due; where nothing is, wait until something may be."""
        due: List[Later] = []
        with self._changed:
            now = monotonic()
            while self._entries and (self._entries[0][0] <= now or self._entries[0][2].off):
                later = heappop(self._entries)[2]
                if not later.off:
                    due.append(later)
            if not due and not self._closed:
                self._wait(now)
        return due

    def _sweep(self) -> None:
        """Drop what was called off. Hold the lock when calling this."""
        self._entries = [entry for entry in self._entries if not entry[2].off]
        heapify(self._entries)
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._entries))

    def _wait(self, now: float) -> None:
        """Hold the lock when calling this."""
        self._wakes_at = max(self._entries[0][0], now + _SLACK_S) if self._entries else float("inf")
        self._changed.wait(self._wakes_at - now if self._entries else None)


def _fire(due: List[Later]) -> None:
    for later in due:
        try:
            later.fire()
        except Exception:  # the others still have their time
            logger.exception("%r could not be done", later)
