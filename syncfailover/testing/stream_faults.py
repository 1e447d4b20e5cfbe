"""What endpoints do to a stream: paces, codings, and the ways in which it breaks.

Asked for no stream, each of them answers with the fault that is nearest to it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, Iterator, Mapping, Optional

from .answer import Answer, End
from .faults import ErrorBody, Fault, GarbageJson, Hang, Ok, Reply, Truncate, openai_error
from .flow import Flow, Step
from .sse import DONE, Event, Events, comment
from .wire import Response, as_response, json_bytes


@dataclasses.dataclass(frozen=True)
class Stream(Fault):
    r"""Stream well, in the variation that you ask for. Asked for no stream, reply as ``Ok`` does.

    :param tokens: that many tokens, ``token0 token1 ...``, instead of the upstream's text.
    :param text: the text, instead of the upstream's.
    :param interval_s: seconds between two tokens.
    :param first_token_s: seconds before the first token; headers and role have been sent by then.
    :param comments_every_s: seconds between comments (``: keep-alive``) in the pauses; ``None`` for none.
    :param done: whether ``data: [DONE]`` comes last.
    :param finish_reason: the stream's ``finish_reason``; with ``None`` no chunk has one.
    :param usage: what the last chunk reports, if the request asks for it, instead of plausible counts.
    :param hold: whether to go silent after the last event, instead of ending the body.
    :param newline: the end of line: ``"\n"``, ``"\r\n"`` or ``"\r"``.
    :param space: whether ``data:`` is followed by a space.
    :param coding: how the body is sent: ``"chunked"``, ``"gzip"`` (in chunks, each flushed), under a
        ``"content-length"``, or until the connection's ``"close"``.
    :param headers: response headers to add.
    """

    tokens: Optional[int] = None
    text: Optional[str] = None
    interval_s: float = 0.0
    first_token_s: float = 0.0
    comments_every_s: Optional[float] = None
    done: bool = True
    finish_reason: Optional[str] = "stop"
    usage: Optional[Mapping[str, Any]] = None
    hold: bool = False
    newline: str = "\n"
    space: bool = True
    coding: str = "chunked"
    headers: Optional[Mapping[str, object]] = None

    def answer(self, reply: Reply) -> Answer:
        """Write the events at their pace."""
        text = _counted(self.tokens) if self.text is None else self.text
        whole = reply(Ok(text, usage=self.usage, finish_reason=self.finish_reason, headers=self.headers))
        if whole.events is None:
            return Answer(whole)
        steps = list(self._steps(whole.events))
        whole = whole._replace(body=b"".join(step.data for step in steps))
        if self.hold:
            steps.append(Step(b"", math.inf))
        return Answer(Flow(whole, steps, self.coding), End.CLOSE if self.coding == "close" else End.KEEP)

    def _steps(self, events: Events) -> Iterator[Step]:
        pause_s = self.first_token_s
        for event in events.opening:
            yield Step(self._encode(event))
        for event in events.tokens:
            yield from _waiting(pause_s, self._encode(event), self.comments_every_s, self.newline)
            pause_s = self.interval_s
        for event in events.closing:
            if self.done or event != DONE:
                yield Step(self._encode(event))

    def _encode(self, event: Event) -> bytes:
        return event.encode(self.newline, space=self.space)


@dataclasses.dataclass(frozen=True)
class _Break(Fault):
    """Stream well at first: what all the others here have in common."""

    after: int = 1
    tokens: Optional[int] = None
    interval_s: float = 0.0

    def answer(self, reply: Reply) -> Answer:
        """Write the first tokens, and then what the fault is about."""
        whole = reply(Ok(_counted(self.tokens)))
        if whole.events is None:
            return self._without_stream().answer(reply)
        return self._broken(whole, whole.events)

    def _without_stream(self) -> Fault:
        """Say what comes nearest to it where no stream was asked for."""
        raise NotImplementedError

    def _broken(self, whole: Response, events: Events) -> Answer:
        """Say what to do, given what should have been done."""
        raise NotImplementedError

    def _begin(self, events: Events) -> Iterator[Step]:
        paces = itertools.chain([0.0], itertools.repeat(self.interval_s))
        yield from map(_step, events.opening)
        yield from map(_step, events.tokens[: self.after], paces)


@dataclasses.dataclass(frozen=True)
class StreamCut(_Break):
    """Break a stream off, without ``finish_reason`` and ``[DONE]``. Asked for no stream, cut the reply short.

    :param after: how many tokens come first; with 0 the stream has begun, but said nothing.
    :param tokens: how many it would have had, instead of the upstream's text.
    :param interval_s: seconds between two tokens.
    :param how: a ``"reset"``, or a close of the connection where more ``"chunked"`` coding or a longer
        ``"content-length"`` had been promised, or nothing (``"close"``), in which case only the events can tell.
    """

    how: str = "reset"

    def _without_stream(self) -> Fault:
        return Truncate(how=self.how)

    def _broken(self, whole: Response, events: Events) -> Answer:
        coding = "chunked" if self.how == "reset" else self.how
        end = End.RESET if self.how == "reset" else End.CLOSE
        return Answer(Flow(whole, self._begin(events), coding, is_complete=False), end)


@dataclasses.dataclass(frozen=True)
class StreamStall(_Break):
    """Go silent in mid-stream, with the connection open. Asked for no stream, never answer.

    :param after: how many tokens come first; with 0 the stream has begun, but said nothing.
    :param tokens: how many it would have had, instead of the upstream's text.
    :param interval_s: seconds between two tokens.
    :param comments_every_s: seconds between the comments that still come; ``None`` for utter silence.
    """

    comments_every_s: Optional[float] = None

    def _without_stream(self) -> Fault:
        return Hang()

    def _broken(self, whole: Response, events: Events) -> Answer:
        silence = _waiting(math.inf, b"", self.comments_every_s)
        return Answer(Flow(whole, itertools.chain(self._begin(events), silence)), End.CLOSE)


@dataclasses.dataclass(frozen=True)
class StreamError(_Break):
    """Report an error in mid-stream and end it well. Asked for no stream, send the error alone.

    :param after: how many tokens come first; with 0 the stream has begun, but said nothing.
    :param tokens: how many it would have had, instead of the upstream's text.
    :param interval_s: seconds between two tokens.
    :param body: the event's data; by default an error as OpenAI writes it.
    :param done: whether ``data: [DONE]`` follows, as with vLLM.
    :param event: the event's name; by default it has one where all have.
    :param status: the HTTP status, which was sent before anybody knew.
    """

    body: Any = None
    done: bool = False
    event: Optional[str] = None
    status: int = 200

    def _without_stream(self) -> Fault:
        return ErrorBody(_failure() if self.body is None else self.body, self.status)

    def _broken(self, whole: Response, events: Events) -> Answer:
        end = [self._error(events), DONE] if self.done else [self._error(events)]
        steps = itertools.chain(self._begin(events), map(_step, end))
        return Answer(Flow(whole._replace(status=self.status), steps))

    def _error(self, events: Events) -> Event:
        name = "error" if self.event is None and events.are_typed else self.event
        if self.body is not None:
            return Event(as_response(self.status, self.body).body, name)
        if not events.are_typed:
            return Event(json_bytes(_failure()), name)
        number = len(events.opening) + min(self.after, len(events.tokens))
        error = {**_failure()["error"], "type": "error", "code": "server_error", "sequence_number": number}
        return Event(json_bytes(error), name)


@dataclasses.dataclass(frozen=True)
class StreamGarbage(_Break):
    """Send an event that is no JSON, then go on well. Asked for no stream, send broken JSON.

    :param after: how many tokens come first; with 0 the stream has begun, but said nothing.
    :param tokens: how many it would have had, instead of the upstream's text.
    :param interval_s: seconds between two tokens.
    :param data: the event's data.
    """

    data: bytes = b'{"choices": [{"del'

    def _without_stream(self) -> Fault:
        return GarbageJson()

    def _broken(self, whole: Response, events: Events) -> Answer:
        rest = map(_step, itertools.chain(events.tokens[self.after :], events.closing))
        return Answer(Flow(whole, itertools.chain(self._begin(events), [_step(Event(self.data))], rest)))


def _counted(tokens: Optional[int]) -> Optional[str]:
    return None if tokens is None else " ".join(f"token{number}" for number in range(tokens))


def _failure() -> Any:
    return openai_error(500, "The fake upstream was told to fail in the middle.")


def _step(event: Event, pause_s: float = 0.0) -> Step:
    return Step(event.encode(), pause_s)


def _waiting(
    seconds: float, data: bytes, comments_every_s: Optional[float], newline: str = "\n"
) -> Iterator[Step]:
    """Wait that long, with comments if they are wanted, and write."""
    if comments_every_s is not None:
        while seconds > comments_every_s:
            yield Step(comment(newline), comments_every_s)
            seconds -= comments_every_s
    yield Step(data, seconds)
