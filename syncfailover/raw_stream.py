"""A stream as the bytes that come, for clients that decode events themselves: it is whole, or it raises."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, Sequence

from .errors import FailoverError, StreamInterrupted
from .runtime.failover import Run
from .runtime.open_stream import BROKEN, CLOSED, ENDED, OPEN, OpenStream

#: What ends an event.
_BOUNDARIES = (b"\n\n", b"\r\n\r\n", b"\r\r")


class RawStream(OpenStream):
    """The bytes of a stream whose first content has come.

    A client that iterates gets all bytes up to the stream's end, `[DONE]` among them where the endpoint sends it.
    Leaving it early ends the connection at once. It belongs to one thread at a time; `close()` may be called from any.

    Args:
        run: the call under way.
        assembly: puts the pieces together, for the text that had come when the stream broke.
        interrupted: makes of our error the one that the reader gets.

    """

    def __init__(self, run: Run, assembly: Any, interrupted: Callable[[FailoverError], Exception]) -> None:
        super().__init__(run)
        self._assembly = assembly
        self._interrupted = interrupted
        self._at_boundary = True  # whether what was handed on ends with an event

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over what comes, as it comes."""
        events = self._events
        held, events.held_parts = events.held_parts, []
        try:
            yield self._passed_on(b"".join(held), events.held)
            while self._state is OPEN and not events.over:
                found = self._pull()
                part = self._passed_on(events.part, found)
                if part:
                    yield part
            self._end_as(ENDED)
            if events.broken is not None or not events.progress.whole:
                error = self._unusable()
                raise self._interrupted(error) from error
        except GeneratorExit:  # perhaps by the collector, which may run anywhere
            self._drop()
            raise
        finally:
            self._end_as(CLOSED)

    # Inside

    def _passed_on(self, part: bytes, found: Sequence[Dict[str, Any]]) -> bytes:
        """Return bytes as the reader gets them, and end the stream if they are the last.

        An error at their end may echo a key. Garbage at their end stays here: the reader would raise for it in words of
        its own, where the interruption is to be told; what it `found` before is written anew.
        """
        broken = self._events.broken
        if broken is not None and broken.payload is None and part:
            found = found if self._at_boundary else ()
            part = b"".join(b"data: %b\n\n" % json.dumps(item).encode() for item in found)
        for payload in found:
            self._assembly.add(payload)
        if broken is None:
            self._at_boundary = part.endswith(_BOUNDARIES)
            return part
        self._end_as(BROKEN)  # now: a reader who raises for that error may never come back
        shown: bytes = broken.blotted(part)
        return shown

    def _end_as(self, state: str) -> None:
        """End the stream, unless it has ended."""
        if self._state is OPEN:
            self._state = state
        self._end()

    def _settle(self) -> None:
        """Let everybody know how it ended; a reader need not go on once the answer is whole."""
        if self._state is BROKEN:
            error = self._error = self._run.broke(self._events.broken, restart=False).error
            if isinstance(error, StreamInterrupted):
                error.text = self._assembly.text
        else:
            super()._settle()
