"""One exchange with an endpoint: a request sent, a reply read, and what went wrong told in words."""

from __future__ import annotations

import codecs
import errno
import http.client
import json
import socket
import ssl
import zlib
from typing import Any, Callable, Optional, Sequence

import requests
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError, ReadTimeoutError

from ..errors import FailoverError
from ..policy.received import NEVER_SENT, RESET, SILENT, TRUNCATED, Received
from .attempt_clock import AttemptClock
from .live_body import LiveBody, await_first_byte
from .target import EndpointResponse
from .transport import EndpointTransport

#: Bytes of a reply at most, decoded: nobody's answer is longer, but a gzip bomb is.
_LARGEST_REPLY = 256 * 1024 * 1024
#: Bytes read at a time where the size is not known.
_PART = 64 * 1024

#: What a connection may raise: urllib3's and http.client's own errors, and what their parsers make of garbage. All else
#: comes from somebody else, such as a task queue's signal for its time limit, and is none of the endpoint's doing.
WIRE_ERRORS = (
    requests.RequestException,
    HTTPError,
    OSError,
    http.client.HTTPException,
    zlib.error,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,  # sizes beyond all numbers
)
#: Of these, what may come before anything is sent, and not from how `send` was called.
_DIALING_ERRORS = (requests.RequestException, HTTPError, OSError)
#: What `send` raises because of how it was called, whichever endpoint is asked.
_CALLERS_MISTAKES = (
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.UnrewindableBodyError,
)


#: How the reply to a request is read.
Reader = Callable[[EndpointResponse, AttemptClock, Sequence[str]], Received]


def exchange(
    transport: EndpointTransport,
    request: requests.PreparedRequest,
    clock: AttemptClock,
    secrets: Sequence[str],
    read: Optional[Reader] = None,
) -> Received:
    """Send one prepared request and read the reply; faults of the wire are described, not raised.

    Args:
        transport: the way to the endpoint.
        request: what to send.
        clock: the attempt's.
        secrets: what must not be shown.
        read: how to read the reply; None for the whole of it.

    """
    clock.query = clock.query or transport.query
    received: Optional[Received] = None
    try:
        timeout: Any = clock  # requests passes a urllib3 Timeout on, but does not say so in its types
        response: Any = transport.send(request, timeout=timeout, stream=True)
        received = (whole if read is None else read)(response, clock, secrets)
    except WIRE_ERRORS as error:
        if not clock.sent and (
            isinstance(error, _CALLERS_MISTAKES) or not isinstance(error, _DIALING_ERRORS)
        ):
            error.__dict__.pop("request", None)  # it holds the key
            raise
        received = fault_of(error, clock, secrets)  # also what http.client raises on numbers that are none
        forget_frames(error)
    finally:
        if clock.kill_switch is not None and (received is None or received.stream is None):
            clock.kill_switch.let_go()
    return received


def whole(
    response: EndpointResponse,
    clock: AttemptClock,
    secrets: Sequence[str],
    *,
    largest: int = _LARGEST_REPLY,
) -> Received:
    """Read a reply to its end; its body has at most `largest` bytes, decoded."""
    return _received(response, _read(response.raw, clock, largest), secrets)


def whole_of(
    response: EndpointResponse, body: LiveBody, first: bytes, clock: AttemptClock, secrets: Sequence[str]
) -> Received:
    """Read a reply to its end whose `first` bytes were taken already."""
    return _received(response, _joined(body.read, clock, _LARGEST_REPLY, first), secrets)


def first_byte(response: EndpointResponse, clock: AttemptClock, secrets: Sequence[str]) -> Received:
    """Wait for the first byte of a good reply's body and leave all of it unread; a bad reply is read to its end."""
    if response.status_code >= 400:
        return whole(response, clock, secrets)
    await_first_byte(response.raw)
    return Received(response.status_code, response.headers, response=response)


def _received(response: EndpointResponse, body: bytes, secrets: Sequence[str]) -> Received:
    response.take(body)
    return Received(
        response.status_code,
        response.raw.headers,
        body,
        _parsed(body),
        response=response,
        secrets=secrets,
    )


def _read(raw: Any, clock: AttemptClock, largest: int) -> bytes:
    """Read a body, at once where its size is known and small, else in parts that neither bound is lost on."""
    announced = getattr(raw, "length_remaining", None)
    if announced is not None and announced <= _PART and "content-encoding" not in raw.headers:
        body: bytes = raw.read(decode_content=True)
        return body
    try:
        return _joined(lambda: raw.read(_PART, decode_content=True), clock, largest)
    except _Unbounded:
        raw.close()
        raise


class _Unbounded(HTTPError):
    """A reply that is longer, or takes longer, than it may."""


def _joined(read: Callable[[], bytes], clock: AttemptClock, largest: int, first: bytes = b"") -> bytes:
    """Read parts until there are no more."""
    parts, size = [first], len(first)
    while True:
        part = read()
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > largest:
            raise _Unbounded(f"reply of more than {largest} bytes")
        if clock.expired:
            raise _Unbounded("out of time")


def key_unavailable(error: Exception) -> Received:
    """Describe a key callable that failed; its message may hold the key, so only its type is told."""
    return Received(fault=NEVER_SENT, detail=f"api_key callable raised {type(error).__name__}")


#: What of a request's headers may be seen in an error.
_HARMLESS = ("Accept", "Accept-Encoding", "Content-Length", "Content-Type", "User-Agent")


def without_key(error: FailoverError) -> FailoverError:
    """Take from the request behind an error what may hold a key: headers, and the URL's query."""
    response = error.response
    if response is not None and response.request is not None:
        sent, shown = response.request, requests.PreparedRequest()
        shown.method, shown.body = sent.method, sent.body
        shown.url = response.url = (sent.url or "").split("?", 1)[0]
        shown.headers = CaseInsensitiveDict(
            {name: sent.headers[name] for name in _HARMLESS if name in sent.headers}
        )
        response.request = error.request = shown
    return error


def _parsed(body: bytes) -> Any:
    if body.startswith(codecs.BOM_UTF8):
        body = body[3:]
    if body.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def fault_of(error: Exception, clock: AttemptClock, secrets: Sequence[str]) -> Received:
    """Name the fault by how far the request got, and describe it in a few words."""
    late = isinstance(error, (requests.ReadTimeout, ReadTimeoutError)) or (clock.sent and clock.expired)
    if late and clock.dialed and not clock.sent:
        detail = f"TLS: no handshake within {min(clock.connect_s, clock.timeout_s):.1f} s"
        return Received(fault=NEVER_SENT, detail=detail, secrets=secrets)
    if late:
        return Received(
            fault=SILENT, detail=f"no complete reply within {clock.timeout_s:.1f} s", secrets=secrets
        )
    words = _words(error, clock)
    if not clock.sent:
        return Received(fault=NEVER_SENT, detail=words, secrets=secrets)
    if clock.answered:
        return Received(fault=TRUNCATED, detail=f"reply cut short: {words}", secrets=secrets)
    return Received(fault=RESET, detail=words, secrets=secrets)


_ERRNO_WORDS = {
    errno.ECONNREFUSED: "connect refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection closed by the server",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
}


def _words(error: BaseException, clock: AttemptClock) -> str:
    """Describe the cause at the bottom of the chain; URLs, which may hold secrets, are not repeated."""
    causes = list(_chain(error))
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {getattr(cause, 'verify_message', '') or getattr(cause, 'reason', '') or 'handshake failed'}"
        if isinstance(cause, OSError) and cause.errno in _ERRNO_WORDS:
            return _ERRNO_WORDS[cause.errno]
        if isinstance(cause, socket.gaierror):
            return f"DNS: {cause.strerror}"
    for kind, words in (
        # urllib3 1.26 compares names itself, and its error is no ssl.SSLError
        (requests.exceptions.SSLError, f"TLS: {causes[-1]}"),
        (requests.ConnectTimeout, f"connect timed out after {min(clock.connect_s, clock.timeout_s):.1f} s"),
        (requests.exceptions.ProxyError, "proxy failed"),
        (http.client.IncompleteRead, "the body ended too soon"),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return words
    bottom = causes[-1]
    if type(bottom) in (HTTPError, _Unbounded):  # our own words
        return str(bottom)
    if isinstance(bottom, ConnectionError):
        return "connection closed without a reply"
    return type(bottom).__name__


def forget_frames(error: BaseException) -> None:
    """Let go of the stack, up to the caller's frames: urllib3's keep their own error, and with it all their locals."""
    known: list[Any] = []
    left: list[Any] = [error]
    while left:
        cause = left.pop()
        if isinstance(cause, BaseException) and all(cause is not other for other in known):
            known.append(cause)
            cause.__traceback__ = None
            left += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


def _chain(error: Optional[BaseException]) -> list[BaseException]:
    """Follow an error to its cause, through urllib3's and requests' ways of wrapping."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        wrapped = getattr(error, "reason", None)
        if not isinstance(wrapped, BaseException):
            wrapped = next((arg for arg in reversed(error.args) if isinstance(arg, BaseException)), None)
        error = wrapped or error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found
