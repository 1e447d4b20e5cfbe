"""The httpx door, for httpx and httpx2: a client keeps its URLs, and what it sends goes through the failover loop.

    transport = FailoverTransport(client, "https://api.openai.com/v1")
    http = httpx.Client(transport=transport, timeout=None)

Neither library is imported here: a request brings its own, and gets a response of the same.
"""

from __future__ import annotations

import sys
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, NoReturn, Optional, Type, Union

from ..api.chat import CHAT
from ..api.responses import RESPONSES
from ..api.text import TEXT
from ..client import FailoverClient
from ..endpoint import Endpoint
from ..endpoint_fields import base_url, origin
from ..errors import ConfigurationError, DeadlineExceeded, FailoverError
from ..policy.node import Attempt
from ..policy.paths import expected_of, progress_of
from ..policy.progress import Progress, progress_maker
from ..policy.received import LATE, SILENT, Received
from ..prepared import HOME, JsonBody, address, kept_at_home
from ..raw_stream import RawStream
from ..runtime.attempt_clock import AttemptClock
from ..runtime.event_stream import begin_stream
from ..runtime.exchange import exchange, key_unavailable
from ..runtime.failover import Call, Run
from ..runtime.registry import Registry
from ..runtime.target import EndpointRequest
from ..runtime.timeouts import Timeouts
from ..validation import reject
from .answer import Answer, unserved

#: Headers of a request that say how the caller would have sent it, or to whose account; each endpoint has its own.
_NOT_SENT = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "openai-organization",
        "openai-project",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
#: How headers begin by which the openai package tells of the machine that it runs on.
_TELLTALE = "x-stainless-"
#: By the path, what puts the pieces of a stream together.
_ASSEMBLIES = {kind.path: kind.form.assembly for kind in (CHAT, RESPONSES, TEXT)}


class FailoverTransport:
    """A transport for `httpx.Client` and `httpx2.Client`: URLs under its prefix go to whichever endpoint can answer.

    An HTTP error that no endpoint could cure comes back as the last response; a good status with an error in it comes
    back with the status that it means. No response at all raises the library's own `ReadTimeout`, `ReadError` or
    `ConnectError`, whose `__cause__` says what was tried. A JSON request with `"stream": true` is answered when the
    first content has come; a stream that breaks after it raises `ReadError` or `ReadTimeout`.

    The client's `timeout` bounds the whole call: its `read` is the total, its `connect` that of each connection. Pass
    `timeout=None` to the httpx client to have that of the `FailoverClient`; httpx's own default is 5 seconds.

    Args:
        client: a `FailoverClient` to share, endpoints, or an `EndpointRegistry`.
        prefix: the URLs that this transport serves; what follows it is appended to an endpoint's base URL. Left out, it
            is a made-up one, for relative URLs: make the httpx client with `base_url=transport.prefix`.
        options: as for `FailoverClient`, if `client` is none.

    Raises:
        ConfigurationError: an argument that cannot work.

    """

    def __init__(
        self,
        client: Union[FailoverClient, Iterable[Endpoint], Registry],
        prefix: str = HOME,
        **options: Any,
    ) -> None:
        self.prefix = base_url(prefix, "prefix") + "/"
        self.origin = origin(self.prefix)
        self._owns_client = not isinstance(client, FailoverClient)
        if isinstance(client, FailoverClient):
            for name in options:  # without the value: it may be a key
                words = "no options here: the FailoverClient that was passed has its own"
                raise ConfigurationError(f"{name}: is not allowed; expected {words}", field=name)
            self.client = client
        else:
            endpoints: Any = client
            self.client = FailoverClient(endpoints, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prefix} {self.client!r}>"

    def handle_request(self, request: Any) -> Any:
        """Send a request to endpoints until one answers; httpx calls it.

        Raises:
            ConfigurationError: a URL outside the prefix, or a timeout that cannot be kept.
            ClientClosed: after `close()` of the client.

        """
        lib = _library_of(request.__class__)
        url = str(request.url)
        if not url.startswith(self.prefix):
            raise self.beyond(url.split("?", 1)[0])
        caller = self.client._caller
        caller.check_open()
        body = JsonBody(request.read())
        if body.model is not None and not caller.registry.serves(body.model):
            return unserved(lib, body.model)
        timeouts = _timeouts(caller.terms.timeouts, request.extensions.get("timeout"))
        spent_s = caller.monitor.start(timeouts.total)
        door = _HttpxDoor(self, request, url[len(self.prefix) :], body, timeouts.stall)
        call = Call(body.model, door.expects, timeouts, request.method, streams=door.kind is not None)
        run = Run(caller.registry, door, call, caller.terms, spent_s)
        done = run.begin()
        if done.error is not None:
            return self._failed(lib, request, run, done.error)
        answer = Answer(lib, done.received, done.ledger)
        if run.events is not None:
            interrupted = partial(self.interruption, lib, request)
            return answer.made(_stream_kind(lib)(run, door.assembly(), interrupted))
        return answer.as_events() if door.awaits_chunks else answer.whole()

    def handle_async_request(self, *_request: Any) -> NoReturn:
        """Refuse to serve an `AsyncClient`, which calls this.

        Raises:
            ConfigurationError: always.

        """
        message = "transport: it is synchronous only; give it to an httpx.Client, not to an httpx.AsyncClient"
        raise ConfigurationError(message, field="transport")

    __aenter__ = aclose = handle_async_request

    def beyond(self, url: str) -> ConfigurationError:
        """Make the error for a URL outside the prefix.

        Args:
            url: without its query.

        """
        return reject(
            "url",
            url,
            f"one that begins with {self.prefix}, or a relative one and a client with base_url=transport.prefix",
        )

    def interruption(self, lib: Any, request: Any, error: FailoverError) -> Exception:
        """Make what a stream that breaks raises to its reader.

        Args:
            lib: the module `httpx` or `httpx2`.
            request: what was asked.
            error: what broke it.

        """
        kind = lib.ReadTimeout if isinstance(error, DeadlineExceeded) else lib.ReadError
        made: Exception = kind(str(error), request=request)
        return made

    def _failed(self, lib: Any, request: Any, run: Run, error: FailoverError) -> Any:
        """Return the last response where there is one, else raise."""
        last = run.tries[-1] if run.tries else None
        if last is not None and last.received.fault is None:
            return Answer(lib, last.received, run.ledger).refused(last.outcome, error)
        silent = last is not None and last.received.fault in (SILENT, LATE)
        late = silent or isinstance(error, DeadlineExceeded)
        sent = any(attempt.maybe_billed for attempt in run.ledger)
        kind = lib.ReadTimeout if late else lib.ReadError if sent else lib.ConnectError
        raise kind(str(error), request=request) from error

    def close(self) -> None:
        """Close the client, if it was made here; httpx calls it when its own client is closed."""
        if self._owns_client:
            self.client.close()

    def __enter__(self) -> FailoverTransport:
        """Use as a context manager that closes at the end."""
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]] = None,
        error: Optional[BaseException] = None,
        trace: Optional[TracebackType] = None,
    ) -> None:
        """Close."""
        self.close()


class _HttpxDoor:
    """Sends one httpx request to the endpoint of an attempt."""

    hedges = True

    def __init__(
        self, transport: FailoverTransport, request: Any, path: str, body: JsonBody, stall_s: Optional[float]
    ) -> None:
        self._transports = transport.client._caller.transports
        self._origin = transport.origin
        self._method: str = request.method
        self._content: bytes = request.read()
        self._body = body
        self._stall_s = stall_s
        self.path = path
        self._headers: Dict[str, str] = {
            name: value
            for name, value in request.headers.items()  # whose names httpx gives in lower case
            if name not in _NOT_SENT and not name.startswith(_TELLTALE)
        }
        payload = body.payload
        #: Which kind of stream is asked for; None for none.
        self.kind: Optional[Type[Progress]] = None
        if payload is not None and payload.get("stream") is True:
            self.kind = progress_of(path)
        self.expects = expected_of(path) if self.kind is None else self.kind.expects
        if self._method not in ("GET", "POST"):
            self.expects = None
        #: Whether a chat that comes whole is to be made a stream.
        self.awaits_chunks = self.kind is not None and path.split("?", 1)[0] == CHAT.path
        #: Makes what puts the pieces of a stream together.
        self.assembly: Callable[[], Any] = _ASSEMBLIES.get(path.split("?", 1)[0], CHAT.form.assembly)

    def send(self, attempt: Attempt, connect_s: float) -> Received:
        """Send to the attempt's endpoint, with its URL and its key."""
        endpoint = attempt.endpoint
        transport = self._transports[endpoint.name]
        model = endpoint.serves(attempt.model)
        target = transport.target(self.path, model)
        headers = self._headers.copy()
        address(headers, endpoint, target, self._origin)
        try:
            secrets = transport.authorize(headers, target)
        except Exception as error:  # noqa: BLE001 - the caller's callable may raise anything
            return key_unavailable(error)
        content = self._body.for_endpoint(model, transport)
        content = self._content if content is None else content
        if content or self._method not in ("GET", "HEAD"):
            headers["Content-Length"] = str(len(content))
        # What packs a stream holds it back; else whatever can be read here.
        streams = self.kind is not None
        headers["Accept-Encoding"] = "identity" if streams else target.headers["Accept-Encoding"]
        request = EndpointRequest.to(target, self._method, headers, content or None)
        clock = AttemptClock.of(attempt, connect_s, streams=streams)
        if self.kind is None:
            return kept_at_home(exchange(transport, request, clock, secrets))
        progress = progress_maker(self.kind, self._body.payload or {})
        read = begin_stream(progress, attempt, self._stall_s)
        return kept_at_home(exchange(transport, request, clock, secrets, read))


def _timeouts(ours: Timeouts, asked: Optional[Dict[str, Optional[float]]]) -> Timeouts:
    """Return the times of a call; httpx names four, each for one operation, and only two of them can be meant."""
    asked = asked or {}
    read, connect = asked.get("read"), asked.get("connect")
    if read == connect:
        return ours if read is None or read == ours.total else ours.changed(read)
    return ours.changed(
        ours._replace(
            total=ours.total if read is None else read, connect=ours.connect if connect is None else connect
        )
    )


@lru_cache(maxsize=64)
def _library_of(kind: Any) -> Any:
    """Return the library whose request this is, the module `httpx` or `httpx2`."""
    for base in kind.__mro__:
        lib = sys.modules.get(base.__module__.partition(".")[0])
        if getattr(lib, "Request", None) is base:
            return lib
    raise reject("request", kind, "a Request of httpx or httpx2")


@lru_cache(maxsize=8)
def _stream_kind(lib: Any) -> Any:
    """Return the kind of stream that a library expects, whose bytes come from an endpoint."""
    return type("FailoverStream", (RawStream, lib.SyncByteStream), {})
