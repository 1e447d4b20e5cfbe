"""One way to make an API call: a payload in, serialized once, the end of the failover loop out."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

from .errors import ClientClosed, ConfigurationError
from .policy.node import Attempt
from .policy.received import Received
from .policy.retry import FailoverRetry
from .runtime.exchange import exchange, key_unavailable, without_key
from .runtime.failover import Call, Done, Timeouts, run
from .runtime.metrics import Metrics
from .runtime.monitor import HealthMonitor
from .runtime.registry import Registry
from .runtime.transport import EndpointRequest, Transports
from .runtime.wire import AttemptClock
from .validation import reject, text

_JSON = "application/json"


class Caller:
    """What the parts of a client share: one way to make a call. It does not know the client, so no cycle arises."""

    def __init__(
        self,
        registry: Registry,
        transports: Transports,
        monitor: HealthMonitor,
        retry: FailoverRetry,
        timeouts: Timeouts,
        model: Optional[str],
    ) -> None:
        self.registry = registry
        self.transports = transports
        self.monitor = monitor
        self.retry = retry
        self.timeouts = timeouts
        self.metrics = Metrics()
        self.closed = False
        self._model = model
        if model is not None:
            self._check_model(model)

    def check_open(self) -> None:
        """Raise `ClientClosed` after `close()`."""
        if self.closed:
            raise ClientClosed("this FailoverClient is closed")

    def post(
        self, path: str, expects: str, model: Optional[str], timeout: Any, params: Dict[str, Any]
    ) -> Done:
        """Send a payload to whichever endpoint can answer, under the name that it has for the model."""
        self.check_open()
        chosen = self._model if model is None else model
        if chosen is None:
            raise ConfigurationError("model: none is given, here or as model= of the client", field="model")
        if model is not None:
            self._check_model(model)
        rest = _serialized(params)
        return self._run(_ApiDoor(self.transports, "POST", path, rest), expects, chosen, timeout)

    def get(self, path: str, expects: str, timeout: Any) -> Done:
        """Read something from whichever endpoint can answer."""
        self.check_open()
        return self._run(_ApiDoor(self.transports, "GET", path, None), expects, None, timeout)

    def _run(self, door: _ApiDoor, expects: str, model: Optional[str], timeout: Any) -> Done:
        self.monitor.start()
        timeouts = self.timeouts if timeout is None else self.timeouts.changed(timeout)
        done = run(self.registry, door, Call(model, expects, self.retry, timeouts, door.method), self.metrics)
        if done.error is not None:
            raise without_key(done.error)
        return done

    def _check_model(self, model: str) -> None:
        if not self.registry.serves(text("model", model)):
            known = sorted({name for e in self.registry.endpoints for name in e.models or ()})
            raise reject("model", model, "a model that an endpoint serves: " + ", ".join(known))


class _ApiDoor:
    """Sends one API call to the endpoint of an attempt."""

    __slots__ = ("_path", "_rest", "_transports", "method")

    def __init__(self, transports: Transports, method: str, path: str, rest: Optional[bytes]) -> None:
        self._transports = transports
        self.method = method
        self._path = path
        self._rest = rest

    def send(self, attempt: Attempt, connect_s: float) -> Received:
        """Send to the attempt's endpoint; only the model's name differs from one endpoint to the next."""
        endpoint = attempt.endpoint
        transport = self._transports[endpoint.name]
        target = transport.target(self._path)
        headers: Dict[str, str] = target.headers.copy()
        try:
            secrets = transport.authorize(headers)
        except Exception as error:  # noqa: BLE001 - the caller's callable may raise anything
            return key_unavailable(error)
        body = None
        if self._rest is not None:
            name = _ENCODER.encode(endpoint.serves(attempt.model)).encode()
            body = b'{"model":' + name + self._rest
            headers["Content-Type"] = _JSON
            headers["Content-Length"] = str(len(body))
        request = EndpointRequest.to(target, self.method, headers, body)
        clock = AttemptClock(attempt.timeout_s, connect_s, mends_stale=attempt.repeatable)
        return exchange(transport, request, clock, secrets)


def _plain(value: Any) -> Any:
    """Turn into JSON what a reply of ours, or of another SDK, is made of."""
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain)


def _serialized(params: Dict[str, Any]) -> bytes:
    """Serialize a payload once, but for its model: what follows `{"model":"..."`."""
    try:
        return b"," + _ENCODER.encode(params).encode()[1:]
    except (TypeError, ValueError, RecursionError) as error:
        for name, value in params.items():
            try:
                _ENCODER.encode({name: value})
            except (TypeError, ValueError, RecursionError):
                allowed = f"what JSON can hold ({error})"
                raise reject(str(name), _Shown(value), allowed) from None
        raise reject("payload", _Shown(params), f"what JSON can hold ({error})") from None


class _Shown:
    """A value's repr, bounded: a payload may be megabytes."""

    def __init__(self, value: object) -> None:
        try:
            self._text = repr(value)
        except RecursionError:
            self._text = type(value).__name__

    def __repr__(self) -> str:
        return self._text if len(self._text) <= 200 else self._text[:200] + "..."
