"""One exchange with an endpoint: a request sent, a reply read, and what went wrong told in words."""

from __future__ import annotations

import errno
import json
import socket
import ssl
from typing import Any, Optional, Sequence

import requests
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError, ReadTimeoutError

from ..errors import FailoverError
from ..policy.received import NEVER_SENT, RESET, SILENT, TRUNCATED, Received
from .transport import EndpointTransport
from .wire import AttemptClock

_WIRE_ERRORS = (requests.RequestException, HTTPError, OSError)
#: What `send` raises because of how it was called, whichever endpoint is asked.
_CALLERS_MISTAKES = (
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.UnrewindableBodyError,
)


def exchange(
    transport: EndpointTransport,
    request: requests.PreparedRequest,
    clock: AttemptClock,
    secrets: Sequence[str],
    *,
    stream: bool = False,
) -> Received:
    """Send one prepared request and read the reply; faults of the wire are described, not raised.

    With `stream` the body is left unread.
    """
    try:
        timeout: Any = clock  # requests passes a urllib3 Timeout on, but does not say so in its types
        response: Any = transport.send(request, timeout=timeout, stream=True)
        if stream and response.status_code < 400:
            return Received(response.status_code, response.headers, response=response)
        body = response.raw.read(decode_content=True)
    except _CALLERS_MISTAKES:
        raise
    except _WIRE_ERRORS as error:
        return _fault(error, clock, secrets)
    response.take(body)
    return Received(
        response.status_code,
        response.raw.headers,
        body,
        _parsed(body),
        response=response,
        secrets=secrets,
    )


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
    if body.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _fault(error: Exception, clock: AttemptClock, secrets: Sequence[str]) -> Received:
    """Name the fault by how far the request got, and describe it in a few words."""
    if isinstance(error, (requests.ReadTimeout, ReadTimeoutError)) or (clock.sent and clock.expired):
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
    if any(isinstance(cause, requests.ConnectTimeout) for cause in causes):
        return f"connect timed out after {min(clock.connect_s, clock.timeout_s):.1f} s"
    if any(isinstance(cause, requests.exceptions.ProxyError) for cause in causes):
        return "proxy failed"
    bottom = causes[-1]
    if isinstance(bottom, ConnectionError):
        return "connection closed without a reply"
    return type(bottom).__name__


def _chain(error: Optional[BaseException]) -> list[BaseException]:
    """Follow an error to its cause, through urllib3's and requests' ways of wrapping."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        wrapped = getattr(error, "reason", None)
        if not isinstance(wrapped, BaseException):
            wrapped = next((arg for arg in reversed(error.args) if isinstance(arg, BaseException)), None)
        error = wrapped or error.__cause__ or error.__context__
    return found
