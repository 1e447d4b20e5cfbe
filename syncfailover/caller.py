"""One way to make an API call: a payload in, serialized once, the end of the failover loop out."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

from .endpoint_fields import encodes
from .errors import ClientClosed, ConfigurationError
from .policy.node import Attempt
from .policy.received import Received
from .runtime.attempt_clock import AttemptClock
from .runtime.exchange import exchange, key_unavailable, without_key
from .runtime.failover import Call, Done, run
from .runtime.monitor import HealthMonitor
from .runtime.registry import Registry
from .runtime.target import EndpointRequest
from .runtime.terms import Terms
from .runtime.transport import Transports
from .validation import reject, text

_JSON = "application/json"


class Caller:
    """What the parts of a client share: one way to make a call. It does not know the client, so no cycle arises."""

    def __init__(
        self,
        registry: Registry,
        transports: Transports,
        monitor: HealthMonitor,
        terms: Terms,
        model: Optional[str],
    ) -> None:
        self.registry = registry
        self.transports = transports
        self.monitor = monitor
        self.terms = terms
        self.closed = False
        self._model = model
        if model is not None:
            self._check_model(model)

    def check_open(self) -> None:
        """Raise `ClientClosed` after `close()`."""
        if self.closed:
            raise ClientClosed("this FailoverClient is closed")

    def post(
        self,
        path: str,
        expects: str,
        model: Optional[str],
        timeout: Any,
        params: Dict[str, Any],
        affinity: Any = None,
    ) -> Done:
        """Send a payload to whichever endpoint can answer, under the name that it has for the model."""
        self.check_open()
        chosen = self._model if model is None else model
        if chosen is None:
            raise ConfigurationError("model: none is given, here or as model= of the client", field="model")
        if model is not None:
            self._check_model(model)
        rest = _serialized(params)
        door = _ApiDoor(self.transports, "POST", path, rest, params)
        return self._run(door, expects, chosen, timeout, affinity)

    def get(self, path: str, expects: str, timeout: Any) -> Done:
        """Read something from whichever endpoint can answer."""
        self.check_open()
        return self._run(_ApiDoor(self.transports, "GET", path, None), expects, None, timeout)

    def _run(
        self, door: _ApiDoor, expects: str, model: Optional[str], timeout: Any, affinity: Any = None
    ) -> Done:
        self.monitor.start()
        terms = self.terms
        call = Call(model, expects, terms.timeouts_for(timeout), door.method, affinity)
        done = run(self.registry, door, call, terms)
        if done.error is not None:
            raise without_key(done.error)
        return done

    def _check_model(self, model: str) -> None:
        if not encodes(text("model", model), "utf-8"):
            raise reject("model", model, "a text that can be sent")
        if not self.registry.serves(text("model", model)):
            known = sorted({name for e in self.registry.endpoints for name in e.models or ()})
            raise reject("model", model, "a model that an endpoint serves: " + ", ".join(known))


class _ApiDoor:
    """Sends one API call to the endpoint of an attempt."""

    __slots__ = ("_params", "_path", "_rest", "_transports", "method")

    hedges = True

    def __init__(
        self,
        transports: Transports,
        method: str,
        path: str,
        rest: Optional[bytes],
        params: Dict[str, Any] = {},  # noqa: B006 - never changed
    ) -> None:
        self._transports = transports
        self.method = method
        self._path = path
        self._rest = rest
        self._params = params

    def send(self, attempt: Attempt, connect_s: float) -> Received:
        """Send to the attempt's endpoint, under its name for the model, and without fields that it refuses."""
        endpoint = attempt.endpoint
        transport = self._transports[endpoint.name]
        model = endpoint.serves(attempt.model)
        target = transport.target(self._path, model)
        headers: Dict[str, str] = target.headers.copy()
        try:
            secrets = transport.authorize(headers, target)
        except Exception as error:  # noqa: BLE001 - the caller's callable may raise anything
            return key_unavailable(error)
        body = None
        if self._rest is not None:
            rest = self._rest
            if endpoint.fields is not None:
                accepted = transport.accepted(self._params)
                rest = rest if accepted is self._params else _serialized(accepted)
            body = b'{"model":' + _ENCODER.encode(model).encode() + rest
            headers["Content-Type"] = _JSON
            headers["Content-Length"] = str(len(body))
        request = EndpointRequest.to(target, self.method, headers, body)
        return exchange(transport, request, AttemptClock.of(attempt, connect_s), secrets)


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
                raise reject(str(name), Shown(value), allowed) from None
        raise reject("payload", Shown(params), f"what JSON can hold ({error})") from None


class Shown:
    """A value's repr, bounded: a payload may be megabytes."""

    def __init__(self, value: object) -> None:
        try:
            self._text = repr(value)
        except Exception:  # noqa: BLE001 - it is the caller's, and may be what is wrong
            self._text = type(value).__name__

    def __repr__(self) -> str:
        return self._text if len(self._text) <= 200 else self._text[:200] + "..."
