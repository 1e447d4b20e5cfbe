"""Everything that an LLM endpoint has been seen to do to its callers, as values.

A fault only describes. Its :meth:`Fault.answer` returns an :class:`Answer`, which says which bytes to write, how
fast, and how to end; ``FakeUpstream`` carries that out. To add a fault of your own, subclass :class:`Fault`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable, Dict, Mapping, Optional

from .answer import Answer, End, State
from .flow import Flow, Step
from .rules import check_fields
from .wire import Response, as_response


@dataclasses.dataclass(frozen=True)
class Fault:
    """The base of all faults. Faults are equal when their fields are; a bad field raises ``ValueError``."""

    def __post_init__(self) -> None:
        """Refuse a bad field here, in the test's own thread, and not later in a server thread."""
        check_fields(self)

    def answer(self, reply: Reply) -> Answer:
        """Say what to do with a request; ``reply(Ok())`` is what a healthy upstream would have said to it."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Ok(Fault):
    """Reply as a healthy endpoint does.

    :param text: the completion's text, instead of the upstream's.
    :param delay_s: seconds to wait before the first byte.
    :param usage: the completion's ``usage``, instead of plausible counts.
    :param finish_reason: the completion's ``finish_reason``; some providers send ``None``.
    :param headers: response headers to add.
    :param message: the whole ``message`` of the choice, e.g. one with ``tool_calls``.
    """

    text: Optional[str] = None
    delay_s: float = 0.0
    usage: Optional[Mapping[str, Any]] = None
    finish_reason: Optional[str] = "stop"
    headers: Optional[Mapping[str, object]] = None
    message: Optional[Mapping[str, Any]] = None

    def answer(self, reply: Reply) -> Answer:
        """Write the reply in one go, a stream in chunks."""
        whole = reply(self)
        if whole.events is None:
            return Answer(whole, delay_s=self.delay_s)
        steps = (Step(event.encode()) for event in whole.events.all())
        return Answer(Flow(whole, steps), delay_s=self.delay_s)


#: What a healthy upstream says to the request at hand.
Reply = Callable[[Ok], Response]


@dataclasses.dataclass(frozen=True)
class Status(Fault):
    """Answer with any status, body and headers: 429 with ``Retry-After``, 401, 503, ...

    :param body: a dict or a list goes out as JSON, text and bytes as they are; by default an error as OpenAI
        writes it, or nothing below 400.
    :param delay_s: seconds to wait before the first byte.
    """

    code: int
    body: Any = None
    headers: Optional[Mapping[str, object]] = None
    delay_s: float = 0.0

    def answer(self, _reply: Reply) -> Answer:
        """Write the status and keep the connection."""
        body = self.body
        if body is None:
            body = openai_error(self.code) if self.code >= 400 else b""
        return Answer(as_response(self.code, body, self.headers), delay_s=self.delay_s)


@dataclasses.dataclass(frozen=True)
class ErrorBody(Fault):
    """Report an error inside of a success: OpenRouter does so once processing has begun.

    :param body: the whole body; by default ``{"error": {...}}`` as OpenRouter writes it.
    """

    body: Any = None
    status: int = 200

    def answer(self, _reply: Reply) -> Answer:
        """Write the error and keep the connection."""
        body = self.body
        if body is None:
            metadata = {"provider_name": "Fake", "raw": "upstream went away"}
            body = {"error": {"code": 502, "message": "Provider returned error", "metadata": metadata}}
        return Answer(as_response(self.status, body))


@dataclasses.dataclass(frozen=True)
class Html(Fault):
    """Answer with a web page, as captive portals, gateways and maintenance pages do."""

    status: int = 200

    def answer(self, _reply: Reply) -> Answer:
        """Write the page and keep the connection."""
        page = b"<!DOCTYPE html>\n<html><head><title>Just a moment...</title></head><body></body></html>\n"
        return Answer(Response(self.status, page, content_type="text/html; charset=utf-8"))


@dataclasses.dataclass(frozen=True)
class GarbageJson(Fault):
    """Promise JSON with status 200 and break off in mid-string, with a correct length."""

    def answer(self, _reply: Reply) -> Answer:
        """Write the garbage and keep the connection."""
        return Answer(Response(200, b'{"id":"chatcmpl-1","choices":[{"message":{"content":"Hel'))


@dataclasses.dataclass(frozen=True)
class Empty(Fault):
    """Answer 200 with a body of zero bytes."""

    def answer(self, _reply: Reply) -> Answer:
        """Write the head alone and keep the connection."""
        return Answer(Response())


@dataclasses.dataclass(frozen=True)
class Reset(Fault):
    """Read the request, then reset the connection: nobody knows whether it was processed."""

    def answer(self, _reply: Reply) -> Answer:
        """Write nothing."""
        return Answer(end=End.RESET)


@dataclasses.dataclass(frozen=True)
class Hang(Fault):
    """Read the request and never answer.

    :param seconds: close the connection after that long; ``None`` holds it until the client or the upstream goes.
    """

    seconds: Optional[float] = None

    def answer(self, _reply: Reply) -> Answer:
        """Write nothing."""
        return Answer(end=End.CLOSE, delay_s=math.inf if self.seconds is None else self.seconds)


@dataclasses.dataclass(frozen=True)
class Trickle(Fault):
    """Send a good reply so slowly, headers included, that no single read ever times out.

    :param interval_s: seconds between two writes.
    """

    interval_s: float = 0.05
    bytes_per_write: int = 1

    def answer(self, reply: Reply) -> Answer:
        """Write the reply in small pieces."""
        return Answer(reply(Ok()), piece=self.bytes_per_write, interval_s=self.interval_s)


@dataclasses.dataclass(frozen=True)
class Truncate(Fault):
    """Cut the body of a good reply short and close the connection.

    :param fraction: how much of the body is sent, from 0 to below 1.
    :param how: what had been promised: a ``"content-length"``, ``"chunked"`` coding, or nothing (``"close"``),
        in which case the client cannot tell; or a ``"reset"`` of the connection.
    """

    fraction: float = 0.5
    how: str = "content-length"

    def answer(self, reply: Reply) -> Answer:
        """Write the head, part of the body, and end."""
        whole = reply(Ok())
        part = whole.body[: int(len(whole.body) * self.fraction)]
        if self.how == "content-length":
            return Answer(whole.head(content_length=len(whole.body)) + part, End.CLOSE)
        if self.how == "reset":
            return Answer(whole.head(content_length=len(whole.body)) + part, End.RESET)
        if self.how == "close":
            return Answer(whole.head(connection="close") + part, End.CLOSE)
        chunk = b"%x\r\n%b\r\n" % (len(part), part) if part else b""  # an empty chunk would be the end mark
        return Answer(whole.head(transfer_encoding="chunked") + chunk, End.CLOSE)


@dataclasses.dataclass(frozen=True)
class WrongLength(Fault):
    """Promise more bytes than the body has, then close the connection.

    :param extra: how many bytes too many.
    """

    extra: int = 10

    def answer(self, reply: Reply) -> Answer:
        """Write the whole body under a wrong length."""
        whole = reply(Ok())
        return Answer(whole.head(content_length=len(whole.body) + self.extra) + whole.body, End.CLOSE)


@dataclasses.dataclass(frozen=True)
class CloseAfter(Fault):
    """Reply well, promise to keep the connection, and close it: the stale connection in a client's pool."""

    def answer(self, reply: Reply) -> Answer:
        """Write the reply and close behind the client's back."""
        whole = reply(Ok())
        return Answer(
            whole.head(content_length=len(whole.body), connection="keep-alive") + whole.body, End.CLOSE
        )


@dataclasses.dataclass(frozen=True)
class Raw(Fault):
    """Write exactly these bytes.

    :param close: whether to close the connection after them; otherwise it waits for the next request.
    """

    data: bytes
    close: bool = True

    def answer(self, _reply: Reply) -> Answer:
        """Write the bytes."""
        return Answer(self.data, End.CLOSE if self.close else End.KEEP)


@dataclasses.dataclass(frozen=True)
class Redirect(Fault):
    """Send the client elsewhere, where its key must not follow.

    :param location: the URL to go to.
    """

    location: str
    code: int = 302

    def answer(self, _reply: Reply) -> Answer:
        """Write the redirect and keep the connection."""
        return Answer(Response(self.code, headers={"Location": self.location}))


@dataclasses.dataclass(frozen=True)
class Refuse(Fault):
    """Die at this request: it and every live connection are reset, and the port refuses new ones.

    :param for_s: seconds until the upstream revives; ``None`` until ``revive()``.
    """

    for_s: Optional[float] = None

    def answer(self, _reply: Reply) -> Answer:
        """Write nothing."""
        return Answer(end=End.RESET, state=State.REFUSING, for_s=self.for_s)


@dataclasses.dataclass(frozen=True)
class Blackhole(Fault):
    """Drop off the network at this request: it is reset, and from then on the port is silent.

    :param for_s: seconds until the upstream revives; ``None`` until ``revive()``.
    """

    for_s: Optional[float] = None

    def answer(self, _reply: Reply) -> Answer:
        """Write nothing."""
        return Answer(end=End.RESET, state=State.BLACKHOLE, for_s=self.for_s)


def openai_error(status: int, message: Optional[str] = None) -> Dict[str, Any]:
    """Write an error body as OpenAI does."""
    kinds = {401: ("invalid_request_error", "invalid_api_key"), 429: ("requests", "rate_limit_exceeded")}
    fallback = ("server_error" if status >= 500 else "invalid_request_error", None)
    kind, code = kinds.get(status, fallback)
    text = message or f"The fake upstream was told to answer {status}."
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}
