"""A stream as the bytes that come, for clients that decode events themselves: it is whole, or it raises."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Callable, Dict, Iterator, Optional, Sequence

from .errors import ClientClosed, FailoverError
from .runtime import process
from .runtime.exchange import without_key
from .runtime.failover import Run

#: What ends an event.
_BOUNDARIES = (b"\n\n", b"\r\n\r\n", b"\r\r")


class RawStream:
    """The bytes of a stream whose first content has come.

    A client that iterates gets all bytes up to the stream's end, `[DONE]` among them where the endpoint sends it.
    Leaving it early ends the connection at once. It belongs to one thread at a time; `close()` may be called from any.

    Args:
        run: the call under way.
        interrupted: makes of our error the one that the reader gets.

    """

    def __init__(self, run: Run, interrupted: Callable[[FailoverError], Exception]) -> None:
        self._run = run
        self._interrupted = interrupted
        self._events = run.events
        self._failure: Optional[FailoverError] = None
        self._reading = self._aborted = self._is_foreign = False
        self._ends = [True]  # whoever pops it ends the stream: two threads may want to
        self._at_boundary = True  # whether what was handed on ends with an event
        process.register(self)

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over what comes, as it comes."""
        events = self._events
        held, events.held_parts = events.held_parts, []
        try:
            yield self._passed_on(b"".join(held), events.held)
            while self._ends and not events.over and events.broken is None:
                part = self._pull()
                if part:
                    yield part
            if not self._end():
                error = self._error()
                raise self._interrupted(error) from error
        except GeneratorExit:  # perhaps by the collector, which may run anywhere
            self._drop()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """End the connection at once, unless all was read; calling it again does nothing."""
        if self._reading and self._ends:
            self._aborted = True
            self._events.abort()  # the thread that reads does the rest
        else:
            self._end()

    def __del__(self) -> None:
        """Free what a dropped stream holds."""
        if self.__dict__.get("_ends"):
            self._drop()

    def after_fork(self) -> None:
        """Leave it to the process that began it: two readers of one connection would get half of it each."""
        self._is_foreign = bool(self._ends)
        self._ends.clear()

    # Inside

    def _pull(self) -> bytes:
        self._reading = True
        try:
            found = self._events.pull()
        finally:
            self._reading = False
        return self._passed_on(self._events.part, found)

    def _passed_on(self, part: bytes, found: Sequence[Dict[str, Any]]) -> bytes:
        """Return bytes as the reader gets them, and end the stream if they are the last.

        An error at their end may echo a key. Garbage at their end stays here: the reader would raise for it in words of
        its own, where the interruption is to be told; what it `found` before is written anew.
        """
        broken = self._events.broken
        if broken is None:
            self._at_boundary = part.endswith(_BOUNDARIES)
            return part
        self._end()  # now: a reader who raises for that error may never come back
        if broken.payload is None and part:
            sound = found if self._at_boundary else ()
            part = b"".join(b"data: %b\n\n" % json.dumps(item).encode() for item in sound)
        shown: bytes = broken.blotted(part)
        return shown

    def _end(self) -> bool:
        """End the stream, once; tell whether it was whole."""
        events = self._events
        with suppress(IndexError):
            self._ends.pop()
            if events.over and events.broken is None:
                events.release()
            else:
                events.close()
            self._settle()
        is_whole: bool = events.progress.whole and events.broken is None
        return is_whole

    def _settle(self) -> None:
        """Let everybody know how it ended; a reader need not go on once the answer is whole."""
        run, events = self._run, self._events
        if events.broken is not None and not self._aborted:
            error = run.broke(events.broken, restart=False).error
            self._failure = None if error is None else without_key(error)
        elif events.progress.whole:
            run.finish({"usage": events.progress.usage, "model": _model_in(events.held)})
        else:
            run.abandon()

    def _drop(self) -> None:
        """Free what nobody will read, without taking a lock."""
        with suppress(IndexError):
            self._ends.pop()
            self._events.close()
            self._run.registry.clear_up_later(self._run.tries[-1].attempt, self._settle)

    def _error(self) -> FailoverError:
        """Return why there is no more to read."""
        if self._failure is not None:
            return self._failure
        if self._is_foreign:
            return ClientClosed("this stream belongs to the process that this one was forked from")
        return ClientClosed("this stream was closed before its end")


def _model_in(held: Sequence[Dict[str, Any]]) -> Any:
    """Return the model that a stream's first event names."""
    first = held[0] if held else {}
    return (first.get("response") or first).get("model")
