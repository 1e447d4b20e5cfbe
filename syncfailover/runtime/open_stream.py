"""A stream that somebody reads, and its one end.

Its reader comes to the end or goes away, another thread closes it, the collector finds it, or the process is forked:
whoever is first ends it, and to all others it has ended.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, TypeVar

from ..errors import ClientClosed, FailoverError
from ..policy.outcome import GIVEN_UP, SUCCEEDED
from . import process
from .attempt import room_in
from .failover import Run

Told = TypeVar("Told")

#: What a stream is: still coming, read to its end, closed before that, broken, or another process's.
OPEN, ENDED, CLOSED, BROKEN, FOREIGN = "open", "ended", "closed", "broken", "the parent's"


class OpenStream:
    """What those who read a call's stream have in common.

    It belongs to one thread at a time; `close()` may be called from any.

    Args:
        run: the call under way, which has begun.

    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._events: Any = run.events
        self._state = OPEN
        self._error: Optional[FailoverError] = None  # what broke it
        self._reading = False
        self._ends = [True]  # whoever pops it ends the stream: two threads may want to
        process.register(self)

    def close(self) -> None:
        """End the connection at once, unless all was read; calling it again does nothing."""
        process.entered()
        if self._state is not OPEN:
            return
        self._state = CLOSED
        if self._reading:
            self._events.abort()  # the thread that reads does the rest
        else:
            self._end()

    def __del__(self) -> None:
        """Free what a dropped stream holds."""
        if self.__dict__.get("_ends"):
            self._drop()

    def after_fork(self) -> None:
        """Leave it to the process that began it: two readers of one connection would get half of it each."""
        self._ends.clear()
        if self._state is OPEN:
            self._state = FOREIGN

    def _pull(self) -> List[Dict[str, Any]]:
        """Wait for more to come, which a `close()` in another thread ends."""
        process.entered()
        if self._state is FOREIGN:
            raise self._unusable()
        self._reading = True
        try:
            found: List[Dict[str, Any]] = self._events.pull()
        except BaseException:  # a signal: where the body was left, nobody can go on
            self._reading = False
            if self._state is OPEN:
                self._state = CLOSED
            self._end()
            raise
        self._reading = False
        return found

    def _claim_end(self) -> bool:
        """Tell the one caller who is to end the stream that it is he: a reader and a stop button may meet."""
        try:
            return self._ends.pop()
        except IndexError:
            return False

    def _end(self) -> None:
        """Free what it holds and tell how it ended, unless that is done."""
        if self._claim_end() and self._events is not None:
            self._told(self._settle)
            self._events.release()

    def _told(self, tell: Callable[[], Told]) -> Told:
        """Let everybody know how it ended; whoever is interrupted in that keeps neither permit nor connection."""
        try:
            return tell()
        except BaseException:
            self._state = CLOSED
            self._events.close()
            self._run.let_go()
            raise

    def _drop(self) -> None:
        """Free what nobody will read; the collector may run anywhere, so no lock is taken here."""
        process.entered()
        if self._state is OPEN:
            self._state = CLOSED
        if self._claim_end() and self._events is not None:
            events, run = self._events, self._run
            events.close()
            outcome = SUCCEEDED if events.is_answered else GIVEN_UP
            left = room_in(events.response.raw.headers, events.progress.usage)
            run.registry.clear_up_later(run.tries[-1].attempt, outcome, left, self._settle)

    def _settle(self) -> None:
        """Let everybody know how it ended; a reader need not go on once the answer is there."""
        if self._events.is_answered:
            self._run.finish(self._events.said())
        else:
            self._run.abandon()

    def _unusable(self) -> FailoverError:
        """Return the error for whoever reads on after it was closed or has broken."""
        if self._error is not None:
            return self._error
        if self._state is FOREIGN:
            return ClientClosed("this stream belongs to the process that this one was forked from")
        return ClientClosed(f"this stream was closed before its end{self._so_far}")

    @property
    def _so_far(self) -> str:
        """How far it had come, in words that follow others."""
        return ""
