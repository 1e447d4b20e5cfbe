"""Many things done by a few threads: results in order, errors as values.

The thread that asks reads the things, as few ahead as are needed, and hears of each that is done; the workers share two
queues with it and nothing else. They are made as they are needed, and end before `run` does. Only when the asking
thread is interrupted they are not waited for: what they are in the middle of ends by itself, unheard.
"""

from __future__ import annotations

import queue
import threading
from time import monotonic
from typing import Any, Callable, Generic, Iterable, Iterator, List, NamedTuple, Optional, TypeVar

from . import process

Thing = TypeVar("Thing")

#: Seconds for which an interrupted map waits for what is under way.
MOMENT_S = 0.5
#: Seconds between looks whether anybody is still there; also how late Ctrl-C is heard where it cannot end a wait (Windows).
_LOOK_S = 0.5


class _Outcome(NamedTuple):
    """What came of one thing."""

    place: int
    result: Any
    #: What nobody handles as an error: it ends the whole.
    fatal: Optional[BaseException] = None


class Mapper(Generic[Thing]):
    """Calls a function for each of many things.

    Args:
        function: called on several threads at once. What it returns is a result, and so is an `Exception` that it raises;
            any other exception ends the whole and is raised by `run`.
        concurrency: threads, at most.
        tell: called without arguments for each thing that is done, on the asking thread.

    """

    def __init__(
        self, function: Callable[[Thing], Any], concurrency: int, tell: Callable[[], object]
    ) -> None:
        self._function = function
        self._concurrency = concurrency
        self._tell = tell
        # Looked up now: gevent replaces them, perhaps after this module was imported.
        self._todo: Any = queue.SimpleQueue()
        self._done: Any = queue.SimpleQueue()
        self._stopped = False  # written by the asking thread alone
        self._threads: List[threading.Thread] = []
        self._under_way = 0
        #: Seconds that the end may take; None for as long as it does.
        self._patience: Optional[float] = MOMENT_S
        self._results: List[Any] = []

    def run(self, things: Iterable[Thing]) -> List[Any]:
        """Return what came of each thing, in order. It can be called once.

        At most twice as many things as threads are read ahead of those that are done.

        Raises:
            Exception: what reading the things raised, once all that was under way is done.
            BaseException: what interrupted this thread or a worker (`KeyboardInterrupt`, `SystemExit`, whatever a signal
                handler raises), after a moment.

        """
        iterator = iter(things)
        try:
            while self._read(iterator):
                while self._under_way >= 2 * self._concurrency or not self._done.empty():
                    self._take()
            while self._under_way:
                self._take()
            self._patience = None
        finally:
            self._stop()
        return self._results

    def _read(self, things: Iterator[Thing]) -> bool:
        """Hand out the next thing; tell whether there was one."""
        try:
            thing = next(things)
        except StopIteration:
            return False
        except Exception:
            self._patience = None
            raise
        self._give(thing)
        return True

    def _give(self, thing: Thing) -> None:
        place = len(self._results)
        self._results.append(None)
        self._under_way += 1
        if self._has_workers():
            self._todo.put((place, thing))
        else:
            self._done.put(self._outcome(place, thing))

    def _has_workers(self) -> bool:
        """Start another worker where one is missing; tell whether there is any."""
        if len(self._threads) < self._concurrency:
            try:
                name = f"syncfailover-map-{len(self._threads) + 1}"
                self._threads.append(process.start_thread(self._work, name))
            except process.NoThread as why:
                process.warn_of_no_threads(str(why), "map does with those that it has")
                self._concurrency = max(1, len(self._threads))
        return bool(self._threads)

    def _take(self) -> None:
        """Wait until something is done."""
        while True:
            try:
                done = self._done.get(timeout=_LOOK_S)
                break
            except queue.Empty:
                if not any(thread.is_alive() for thread in self._threads):
                    raise RuntimeError(
                        "the threads of this map are not there any more: was it forked?"
                    ) from None
        self._under_way -= 1
        if done.fatal is not None:
            raise done.fatal
        self._results[done.place] = done.result
        self._tell()

    def _stop(self) -> None:
        """Have the workers end after what they are doing, and wait for that."""
        self._stopped = True
        self._todo.put(None)
        until = None if self._patience is None else monotonic() + self._patience
        for thread in self._threads:
            while thread.is_alive() and (until is None or monotonic() < until):
                thread.join(_LOOK_S if until is None else max(0.0, min(_LOOK_S, until - monotonic())))

    def _work(self) -> None:
        while True:
            job = self._todo.get()
            if job is None or self._stopped:
                # The next one ends by it, too: an interrupt may have kept a worker from being counted.
                self._todo.put(None)
                return
            self._done.put(self._outcome(*job))
            del job  # the next may be long in coming

    def _outcome(self, place: int, thing: Thing) -> _Outcome:
        try:
            return _Outcome(place, self._function(thing))
        except Exception as error:  # noqa: BLE001 - a value to whoever asked
            return _Outcome(place, error)
        except BaseException as error:  # noqa: BLE001 - raised again by the asking thread
            return _Outcome(place, None, error)
