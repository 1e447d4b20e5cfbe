"""HTTP/1.1 as bytes: what a request looked like, and what a response will look like.

No socket appears here. A malformed request raises :class:`MalformedRequestError`; everything that can be parsed is accepted,
because this is the far end of somebody else's test.
"""

from __future__ import annotations

import http.client
import json
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

from .sse import Events

_RECEIVE_BYTES = 65536
_COMPACT = json.JSONEncoder(separators=(",", ":"))
_NO_HEADERS: Mapping[str, object] = {}


class MalformedRequestError(ValueError):
    """What arrived is not HTTP/1.1, so the connection cannot go on."""


class Message(NamedTuple):
    """One request as it arrived. Header names are in lower case."""

    method: str
    path: str
    version: str
    headers: Dict[str, str]
    body: bytes

    @property
    def is_last(self) -> bool:
        """Whether the client expects the connection to close after the answer."""
        if self.method == "HEAD":  # no answer here leaves its body out: closing keeps the framing honest
            return True
        wish = self.headers.get("connection", "").lower()
        return wish != "keep-alive" if self.version == "HTTP/1.0" else wish == "close"


class Response(NamedTuple):
    """One response before it becomes bytes. Its own headers win over the ones that are written by default."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, object] = _NO_HEADERS
    content_type: str = "application/json"
    events: Optional[Events] = None  # the body once more, where it is a stream

    def head(self, **framing: object) -> bytes:
        """Write status line and headers; ``framing`` says how the body ends (``content_length=12``)."""
        given = {name.lower() for name in self.headers}
        defaults = {"content_type": self.content_type, **framing}
        lines = [f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, 'Unknown')}"]
        for key, value in defaults.items():
            name = key.replace("_", "-")
            if name not in given:
                lines.append(f"{name.title()}: {value}")
        lines.extend(f"{name}: {value}" for name, value in self.headers.items())
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def encode(self, *, is_last: bool = False) -> bytes:
        """Write the whole response with the length that it has, and say so if the connection ends with it."""
        framing = {"connection": "close"} if is_last else {}
        return self.head(content_length=len(self.body), **framing) + self.body


def json_bytes(value: object) -> bytes:
    """Write compact JSON, as providers do."""
    return _COMPACT.encode(value).encode()


def as_stream(events: Events, headers: Optional[Mapping[str, object]] = None) -> Response:
    """Make a response of the events of a stream."""
    body = b"".join(event.encode() for event in events.all())
    return Response(200, body, headers or _NO_HEADERS, "text/event-stream; charset=utf-8", events)


def as_response(status: int, body: Any, headers: Optional[Mapping[str, object]] = None) -> Response:
    """Make a response of what a test wrote down: bytes and text go out as they are, anything else as JSON."""
    given = headers or _NO_HEADERS
    if isinstance(body, bytes):
        return Response(status, body, given, "text/plain")
    if isinstance(body, str):
        return Response(status, body.encode(), given, "text/plain; charset=utf-8")
    return Response(status, json_bytes(body), given)


class MessageReader:
    """Cut a byte stream into requests. What follows one request is kept for the next.

    :param receive: ``socket.recv`` or its like.
    """

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._buffer = b""

    def read(self) -> Optional[Message]:
        """Wait for one whole request; ``None`` when the stream ends before one is complete.

        Raises :class:`MalformedRequestError` when the stream is not HTTP.
        """
        try:
            head = self._until(b"\r\n\r\n").decode("latin-1")
            start, *lines = head.split("\r\n")
            method, path, version = start.split(" ")
            headers = _headers(lines)
            body = self._body(headers)
        except EOFError:
            return None
        except ValueError as error:
            raise MalformedRequestError(f"not an HTTP/1.1 request: {error}") from error
        return Message(method, path, version, headers, body)

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self._exactly(int(headers.get("content-length", "0")))
        parts = []
        while True:
            size = int(self._until(b"\r\n").split(b";")[0], 16)
            if not size:
                break
            parts.append(self._exactly(size))
            self._until(b"\r\n")
        while self._until(b"\r\n"):  # trailers, until the empty line
            pass
        return b"".join(parts)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._fill()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        if len(self._buffer) < size:
            parts, missing = [self._buffer], size - len(self._buffer)
            self._buffer = b""
            while missing > 0:
                self._fill()
                parts.append(self._buffer)
                missing -= len(self._buffer)
                self._buffer = b""
            self._buffer = b"".join(parts)
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _fill(self) -> None:
        data = self._receive(_RECEIVE_BYTES)
        if not data:
            raise EOFError
        self._buffer += data


def _headers(lines: List[str]) -> Dict[str, str]:
    headers: Dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"header without a colon: {line!r}")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
