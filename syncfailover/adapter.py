"""The requests door: a `requests.Session` keeps its URLs, and what it sends goes through the failover loop."""

from __future__ import annotations

from typing import Any, Dict, Iterator, Mapping, Optional, Tuple, Type, cast

import requests
from requests.adapters import BaseAdapter
from requests.utils import rewind_body

from .endpoint_fields import base_url, origin
from .policy.node import Attempt
from .policy.paths import expected_of
from .policy.received import UNREPEATABLE, Received
from .prepared import JsonBody, address, kept_at_home
from .runtime.attempt_clock import AttemptClock
from .runtime.exchange import exchange, first_byte, key_unavailable
from .runtime.failover import Call, Done, run
from .runtime.metrics import Metrics
from .runtime.monitor import HealthMonitor
from .runtime.registry import Registry
from .runtime.shared_transports import SharedTransports
from .runtime.target import EndpointRequest
from .runtime.terms import Terms
from .runtime.transport import EndpointTransport, Transports
from .unpickling import reduced
from .validation import reject


class EndpointRegistry(Registry):  # noqa: D101 - the next line
    __doc__ = Registry.__doc__

    def mount(self, session: requests.Session, prefix: str, **options: Any) -> FailoverAdapter:
        """Give an existing session failover for every URL under `prefix`; its URLs stay as they are.

        Args:
            session: any `requests.Session`.
            prefix: for example `https://api.openai.com/v1`; what follows it is appended to an endpoint's base URL.
            options: as for `FailoverAdapter`.

        """
        if not isinstance(session, requests.Session):
            raise reject("session", session, "a requests.Session")
        adapter = FailoverAdapter(self, prefix, **options)
        session.mount(adapter.prefix, adapter)
        return adapter


class FailoverAdapter(BaseAdapter):
    """An adapter for `session.mount`: URLs under its prefix are sent to whichever endpoint can answer.

    An HTTP error that no endpoint could cure comes back as the last response; no response at all raises a subclass
    of `requests.ConnectionError` or `requests.Timeout`. The session's keys and cookies go only to an endpoint of the
    prefix's own origin that has no key itself.

    Args:
        registry: whom to ask for endpoints.
        prefix: the URLs that this adapter is mounted for.
        probe_when: "always", "idle" or "never"; the health monitor starts with the first request.
        terms: those of a client, to share with its counters; None makes them of `options`.
        transports: connections to share; None makes its own.
        monitor: a monitor to share; None makes its own, which `close` ends.
        options: `timeout`, `max_retries`, `queue_timeout`, `hedge_after`, `budget_usd`, as for `FailoverClient`.

    """

    def __init__(
        self,
        registry: Registry,
        prefix: str,
        *,
        probe_when: str = "always",
        terms: Optional[Terms] = None,
        transports: Optional[Transports] = None,
        monitor: Optional[HealthMonitor] = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.registry = registry
        self.prefix = base_url(prefix, "prefix") + "/"
        self.origin = origin(self.prefix)
        self.terms = Terms.of(registry, options) if terms is None else terms
        self._owns_terms = terms is None
        self.transports = Transports(registry.endpoints) if transports is None else transports
        self._owns_transports = transports is None
        self.monitor = monitor or HealthMonitor.shared(registry, self.transports, probe_when, self)
        self._owns_monitor = monitor is None
        self._closed = False
        self._reads_bodies = any(
            endpoint.models or endpoint.call_path or endpoint.fields for endpoint in registry.endpoints
        )

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle as configuration; nothing is shared any more but the registry and its counters."""
        terms = self.terms
        options = (self.monitor.probe_when, terms.options(), terms.metrics)
        return reduced(type(self), _unpickled, type(self), self.registry, self.prefix, *options)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,  # noqa: ARG002 - each endpoint has its own
        cert: Any = None,  # noqa: ARG002
        proxies: Optional[Mapping[str, str]] = None,  # noqa: ARG002
    ) -> requests.Response:
        """Send a prepared request to endpoints until one answers; TLS and proxies are each endpoint's own."""
        timeouts = self.terms.timeouts_for(timeout)
        spent_s = self.monitor.start(timeouts.total)
        path = (request.url or "")[len(self.prefix) :]
        body = _Body(request, parsed=self._reads_bodies)
        expects = None if stream or body.asks_for_a_stream(request) else expected_of(path)
        model = body.json.model
        if model is not None and not self.registry.serves(model):
            raise reject("model", model, "a model that one of the endpoints serves")
        call = Call(model, expects, timeouts, request.method or "GET")
        door = _SessionDoor(self, request, path, body, stream=stream)
        done = run(self.registry, door, call, self.terms, spent_s)
        received = done.received
        http_error = received is not None and received.fault is None and received.status >= 300
        if done.error is not None and not http_error:
            try:
                raise done.error
            finally:
                del done  # or error, trace and frame would be a cycle
        return self._handed_over(request, done, model)

    def _handed_over(
        self, request: requests.PreparedRequest, done: Done, model: Optional[str]
    ) -> requests.Response:
        """Take from a response what is the endpoint's alone: its key, and its cookies, which the session would keep."""
        response: Any = None if done.received is None else done.received.response
        _ = response.cookies  # read while they are still there
        original = getattr(response.raw, "_original_response", None)
        if original is not None and "Set-Cookie" in original.msg:
            del original.msg["Set-Cookie"]
        endpoint = self.registry[done.ledger[-1].endpoint]
        path = (request.url or "")[len(self.prefix) :]
        response.url = self.transports[endpoint.name].target(path, endpoint.serves(model)).shown_url
        response.request = request  # as the caller prepared it
        response.endpoint, response.attempts = endpoint.name, done.ledger
        response.connection = self  # for hooks that send again, as digest authentication does
        return cast("requests.Response", response)

    def close(self) -> None:
        """End the monitor's threads and close idle connections, unless they are shared with somebody who goes on."""
        if self._closed:
            return
        self._closed = True
        if self._owns_monitor:
            self.monitor.leave(self)
        if self._owns_terms:
            self.terms.close()
        if self._owns_transports:
            self.transports.leave(self)


def _unpickled(
    kind: Type[FailoverAdapter],
    registry: Registry,
    prefix: str,
    probe_when: str,
    options: Dict[str, Any],
    metrics: Metrics,
) -> FailoverAdapter:
    adapter = kind.__new__(kind)
    transports = SharedTransports.of(registry, adapter)
    terms = Terms.again(registry, options, metrics)
    kind.__init__(adapter, registry, prefix, probe_when=probe_when, terms=terms, transports=transports)
    adapter._owns_terms = adapter._owns_transports = True
    return adapter


class _SessionDoor:
    """Sends one session request to the endpoint of an attempt."""

    def __init__(
        self,
        adapter: FailoverAdapter,
        request: requests.PreparedRequest,
        path: str,
        body: _Body,
        *,
        stream: bool,
    ) -> None:
        self._adapter = adapter
        self._request = request
        self._path = path
        self._body = body
        self._stream = stream
        self.hedges = body.is_fixed and not stream

    def send(self, attempt: Attempt, connect_s: float) -> Received:
        """Send to the attempt's endpoint, with its URL and its key."""
        endpoint = attempt.endpoint
        transport = self._adapter.transports[endpoint.name]
        model = endpoint.serves(attempt.model)
        target = transport.target(self._path, model)
        headers = self._request.headers.copy()
        address(headers, endpoint, target, self._adapter.origin)
        try:
            secrets = transport.authorize(headers, target)
        except Exception as error:  # noqa: BLE001 - the caller's callable may raise anything
            return key_unavailable(error)
        body = self._body.for_endpoint(model, transport, headers)
        request = EndpointRequest.to(target, self._request.method, headers, body)
        clock = AttemptClock.of(attempt, connect_s)
        received = exchange(transport, request, clock, secrets, first_byte if self._stream else None)
        if self._stream:
            clock.extend(attempt.call_left_s)
        return self._body.judged(kept_at_home(received))


class _Body:
    """A request's body, ready to be sent again if it can be, with the model name and fields that each endpoint knows."""

    def __init__(self, request: requests.PreparedRequest, *, parsed: bool) -> None:
        body = request.body
        self._request = request
        self._sent = False
        #: Whether it is all in memory, to be sent as often as need be.
        self.is_fixed = body is None or isinstance(body, (bytes, str))
        self._rewinds = getattr(request, "_body_position", None)
        #: What is in it; nothing where nobody maps names.
        self.json = JsonBody(body if parsed and self.is_fixed else None)

    def for_endpoint(self, model: Optional[str], transport: EndpointTransport, headers: Any) -> Any:
        """Return the body to send, from its beginning."""
        changed = self.json.for_endpoint(model, transport)
        if changed is not None:
            headers["Content-Length"] = str(len(changed))
            return changed
        if self.is_fixed:
            return self._request.body
        if self._sent and isinstance(self._rewinds, int):
            rewind_body(self._request)
        elif not self._sent and not isinstance(self._rewinds, int):
            return _OneShot(self._request.body, self)
        self._sent = True
        return self._request.body

    def judged(self, received: Received) -> Received:
        """Say of a failed attempt that there will be no other, if the body is gone."""
        gone = self._sent and not self.is_fixed and not isinstance(self._rewinds, int)
        failed = received.fault is not None or received.status >= 408
        if not (gone and failed):
            return received
        what = received.detail or f"HTTP {received.status}"
        detail = f"{what}; the request body is a stream that was read already, so it cannot be sent again: pass bytes or a file that can seek"
        return Received(received.status, fault=UNREPEATABLE, detail=detail, secrets=received.secrets)

    def asks_for_a_stream(self, request: requests.PreparedRequest) -> bool:
        """Tell whether what comes back will be no JSON: a HEAD, or server-sent events read as a whole."""
        body = request.body
        if request.method not in ("GET", "POST"):
            return True
        text = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else b""
        return b'"stream": true' in text or b'"stream":true' in text

    def drawn(self) -> None:
        """Note that the first part of a body that cannot be rewound is gone."""
        self._sent = True


class _OneShot:
    """A body that can be read once, which notes when that begins."""

    def __init__(self, parts: Any, owner: _Body) -> None:
        self._parts = parts
        self._owner = owner

    def __iter__(self) -> Iterator[Any]:
        for part in self._parts:
            self._owner.drawn()
            yield part
