"""Streams: a reply that is read while it comes, and that is whole or honestly broken.

A stream is whole when its provider says so (see `policy/progress.py`). What breaks after the first content is told to
the caller, or the answer begins anew at another endpoint; nothing is ever put together of two answers.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Generator,
    Generic,
    Iterator,
    NamedTuple,
    Optional,
    Sequence,
    Type,
    TypeVar,
)

from .completion.reply import ApiObject, ApiReply
from .errors import StreamInterrupted
from .events import AttemptRecord
from .runtime import process
from .runtime.failover import Done, Run
from .runtime.open_stream import BROKEN, CLOSED, ENDED, FOREIGN, OPEN, OpenStream
from .validation import reject

Reply = TypeVar("Reply", bound=ApiReply)


class Form(NamedTuple):
    """What a kind of stream is made of."""

    #: Makes of a JSON object what the caller gets.
    chunk: Callable[[Dict[str, Any]], Any]
    #: Puts the pieces together again.
    assembly: Callable[[], Any]
    #: Makes the whole reply.
    reply: Callable[..., Any]
    #: Makes a whole reply's JSON one chunk, for providers that answer whole although a stream was asked for.
    chunk_of: Callable[[Dict[str, Any]], Dict[str, Any]]
    #: Makes the chunk that says that the answer begins anew.
    restart: Callable[[Dict[str, Any]], Dict[str, Any]]


def story(done: Done) -> Dict[str, Any]:
    """Return what a reply tells of the call behind it."""
    last = done.ledger[-1]
    return {
        "endpoint": last.endpoint,
        "latency_ms": done.latency_ms,
        "cost_usd": last.cost_usd,
        "attempts": done.ledger,
    }


class ApiStream(OpenStream, Iterator[Any], Generic[Reply]):
    """The pieces of a reply, as they come; made by a call with `stream=True`, once the first content is there.

    Iterate over it, or take the whole answer with `collect()`. Leaving the loop early, `close()`, leaving the `with`
    block or dropping it ends the connection at once. It belongs to one thread at a time; `close()` may be called from
    any.
    """

    def __init__(self, run: Run, done: Done, form: Form, *, restarts: bool, shows_usage: bool) -> None:
        super().__init__(run)
        self._form = form
        self._restarts = self._asked_to_restart = restarts
        self._shows_usage = shows_usage
        self._pending: Deque[Dict[str, Any]] = deque()
        self._assembly = form.assembly()
        self._reply: Optional[Reply] = None
        #: Milliseconds from the call's beginning to the first content.
        self.first_token_ms = done.latency_ms
        self._take(done)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.endpoint} {self._state}, {len(self.text)} characters>"

    def __reduce__(self) -> Any:
        """Refuse to be pickled: it holds a connection."""
        raise TypeError(f"a {type(self).__name__} cannot be pickled; its collect() gives a reply that can")

    # Reading

    def __iter__(self) -> Generator[Any, None, None]:
        """Iterate over the pieces; leaving the loop early closes the stream."""
        try:
            chunk = self._next()
            while chunk is not None:
                yield chunk
                chunk = self._next()
        except GeneratorExit:  # perhaps by the collector, which may run anywhere
            self._drop()
            raise
        finally:
            self.close()

    def __next__(self) -> Any:
        """Wait for the next piece; unlike a loop, this leaves the stream open."""
        chunk = self._next()
        if chunk is None:
            raise StopIteration
        return chunk

    def collect(self) -> Reply:
        """Read to the end and return the whole reply; again and again the same one.

        Where the stream breaks it begins anew at another endpoint, whatever `on_break` says.

        Raises:
            StreamInterrupted: it broke, and no endpoint could begin anew.
            ClientClosed: it was closed before its end.

        """
        self._restarts = True
        try:
            while self._advance():
                while self._pending:
                    self._assembly.add(self._pending.popleft())
        except BaseException:
            self.close()
            raise
        if self._reply is None:
            raise self._unusable()
        return self._reply

    def text_deltas(self) -> Iterator[str]:
        """Iterate over the pieces of the text, of the first choice's where there are several.

        Raises:
            ConfigurationError: with `on_break="restart"`, for a text cannot say that it begins anew.

        """
        if self._asked_to_restart:
            raise reject("on_break", "restart", "'raise' for text_deltas(): iterate over the chunks instead")
        return (text for text in map(self._added, self) if text)

    @staticmethod
    def _added(chunk: Any) -> str:
        """Return what a piece adds to the text."""
        text: str = chunk.text
        return text

    # What is known of it

    @property
    def text(self) -> str:
        """The text so far, the first choice's where there are several."""
        text: str = self._assembly.text
        return text

    @property
    def reply(self) -> Optional[Reply]:
        """The whole reply; None before the end."""
        return self._reply

    @property
    def usage(self) -> Any:
        """The usage; None before it has come, which is at the end."""
        usage = self._assembly.usage
        return None if usage is None else ApiObject(usage)

    @property
    def attempts(self) -> Sequence[AttemptRecord]:
        """The ledger so far: every attempt of the call, the last one being what is read now."""
        self._run.registry.clear_up()  # a loop that was left is told of when somebody looks
        return self._run.ledger

    @property
    def endpoint(self) -> str:
        """Name of the endpoint that it comes from."""
        return self._run.ledger[-1].endpoint

    # The end

    def __enter__(self) -> Any:
        """Use as a context manager that closes at the end."""
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Close."""
        self.close()

    # Inside

    def _next(self) -> Any:
        """Return the next piece, None at the end."""
        pending = self._pending
        while True:
            if pending:
                if self._state in (CLOSED, FOREIGN):
                    raise self._unusable()
                payload = pending.popleft()
                self._assembly.add(payload)
                if self._shows_usage or payload.get("choices") or not payload.get("usage"):
                    return self._form.chunk(payload)
            elif not self._advance():
                return None

    def _advance(self) -> bool:
        """Wait for more to come; False at the end."""
        process.entered()
        if self._state is not OPEN:
            if self._state is ENDED:
                return False
            raise self._unusable()
        if self._pending:
            return True
        events = self._events
        if events is None or (events.over and events.broken is None):
            self._finish()
            return False
        if events.broken is not None:
            self._recover()
            return True
        self._pending.extend(self._pull())
        if self._state is CLOSED:  # by another thread
            self._end()
            raise self._unusable()
        return True

    def _take(self, done: Done) -> None:
        """Begin to read what the run has brought."""
        self._events = self._run.events
        if self._events is not None:
            self._pending.extend(self._events.held)
            self._events.held, self._events.held_parts = [], []
        else:
            payload = {} if done.received is None else done.received.payload
            self._pending.append(self._form.chunk_of(payload))
            self._whole = payload, done

    def _finish(self) -> None:
        """Take in that it is whole."""
        if not self._claim_end():
            return
        if self._events is None:  # it came whole, and was counted when it came
            payload, done = self._whole
        else:
            payload = self._assembly.whole()
            done = self._told(lambda: self._run.finish(payload))
        self._reply = self._form.reply(payload, **story(done))
        self._state = ENDED
        if self._events is not None:
            self._events.release()

    def _recover(self) -> None:
        """Begin anew elsewhere, or raise."""
        if not self._claim_end():  # closed just now, by another thread
            raise self._unusable()
        self._events.close()
        done = self._told(lambda: self._run.broke(self._events.broken, restart=self._restarts))
        if done.error is None:
            self._begin_anew(done)
            return
        self._state = BROKEN
        error = self._error = done.error
        if isinstance(error, StreamInterrupted):
            error.text = self.text
        raise error

    def _begin_anew(self, done: Done) -> None:
        self._assembly = self._form.assembly()
        self._take(done)
        self._pending.appendleft(self._form.restart(self._pending[0] if self._pending else {}))
        self._ends.append(True)
        if self._state is CLOSED:  # by another thread, meanwhile
            self._end()
            raise self._unusable()

    @property
    def _so_far(self) -> str:
        hint = "leaving the loop closes it; next(stream) takes one chunk and leaves it open"
        return f", after {len(self.text)} characters of text: {hint}"
