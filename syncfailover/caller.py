"""One way to make an API call: a payload in, serialized once, the end of the failover loop out."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Callable, Dict, Optional, Tuple

from .endpoint_fields import encodes
from .errors import ClientClosed, ConfigurationError
from .extras import Extras
from .payload import body_of, rest_of
from .policy.node import Attempt
from .policy.paths import expected_of, progress_of
from .policy.progress import Progress, progress_maker
from .policy.received import Received
from .runtime.attempt_clock import AttemptClock
from .runtime.event_stream import begin_stream
from .runtime.exchange import Reader, exchange, key_unavailable
from .runtime.failover import Call, Done, Run
from .runtime.metrics import Metrics
from .runtime.monitor import HealthMonitor
from .runtime.registry import Registry
from .runtime.shared_transports import SharedTransports
from .runtime.target import EndpointRequest
from .runtime.terms import Terms
from .runtime.timeouts import Timeouts
from .runtime.transport import Transports
from .unpickling import reduced
from .validation import reject, text

_JSON = "application/json"


class Caller:
    """What the parts of a client share: one way to make a call. It does not know the client, so no cycle arises.

    Args:
        registry: whose endpoints are asked.
        transports: the ways to them.
        monitor: starts with the first call.
        terms: how often, how long, at what cost.
        model: used where a call names none.
        extras: headers and query parameters of all calls.
        parent: the caller of the client that this one's client was made of; when that is closed, so is this.

    """

    def __init__(
        self,
        registry: Registry,
        transports: Transports,
        monitor: HealthMonitor,
        terms: Terms,
        model: Optional[str],
        extras: Optional[Extras] = None,
        parent: Optional[Caller] = None,
    ) -> None:
        self.registry = registry
        self.transports = transports
        self.monitor = monitor
        self.terms = terms
        self.parent = parent
        self.closed = False
        self.model = model
        self.extras = extras
        if model is not None:
            self._check_model(model)

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle as configuration: what calls on the same terms, with connections and a monitor of its own."""
        include_keys = self.registry.include_keys
        extras = None if self.extras is None else self.extras.pack(include_keys=include_keys)
        options, metrics = self.terms.options(), self.terms.metrics
        probe_when = self.monitor.probe_when
        return reduced(Caller, again, self.registry, probe_when, options, metrics, self.model, extras)

    def __deepcopy__(self, memo: Dict[int, Any]) -> Caller:
        """Return another one; within a process keys need no leave to travel."""
        registry, metrics = deepcopy(self.registry, memo), deepcopy(self.terms.metrics, memo)
        extras = None if self.extras is None else self.extras.pack(include_keys=True)
        return again(registry, self.monitor.probe_when, self.terms.options(), metrics, self.model, extras)

    def check_open(self) -> None:
        """Raise `ClientClosed` after `close()`, also of the client that this one was made of."""
        caller: Optional[Caller] = self
        while caller is not None:
            if caller.closed:
                made_of = "" if caller is self else " that this one was made of with with_options()"
                raise ClientClosed(f"{'this' if caller is self else 'the'} FailoverClient{made_of} is closed")
            caller = caller.parent

    def model_for(self, model: Optional[str]) -> str:
        """Return the model of a call: the one that it names, or the client's.

        Raises:
            ConfigurationError: there is none, or no endpoint serves it.

        """
        if model is not None:
            self._check_model(model)
            return model
        if self.model is None:
            raise ConfigurationError("model: none is given, here or as model= of the client", field="model")
        return self.model

    def extras_with(self, headers: Any, query: Any) -> Optional[Extras]:
        """Return the headers and query parameters of a call, to which the call itself adds these."""
        return self.extras if headers is None and query is None else Extras.of(headers, query, self.extras)

    def post(
        self,
        path: str,
        model: Optional[str],
        timeout: Any,
        params: Dict[str, Any],
        affinity: Any = None,
        extras: Optional[Extras] = None,
    ) -> Done:
        """Send a payload to whichever endpoint can answer, under the name that it has for the model."""
        run = self._post(path, model, timeout, params, affinity, extras)
        return self._begun(run)[1]

    def stream(
        self,
        path: str,
        model: Optional[str],
        timeout: Any,
        params: Dict[str, Any],
        affinity: Any = None,
        extras: Optional[Extras] = None,
    ) -> Tuple[Run, Done]:
        """Send a payload that asks for a stream, and return the call under way when its first content has come."""
        progress = progress_maker(progress_of(path), params)
        run = self._post(path, model, timeout, params, affinity, extras, progress)
        return self._begun(run)

    def get(self, path: str, timeout: Any, extras: Optional[Extras] = None) -> Done:
        """Read something from whichever endpoint can answer."""
        self.check_open()
        door = _ApiDoor(self.transports, "GET", path, None, extras=extras)
        return self._begun(self._run(door, None, self.terms.timeouts_for(timeout)))[1]

    def _post(
        self,
        path: str,
        model: Optional[str],
        timeout: Any,
        params: Dict[str, Any],
        affinity: Any,
        extras: Optional[Extras],
        progress: Optional[Callable[[], Progress]] = None,
    ) -> Run:
        self.check_open()
        chosen = self.model_for(model)
        timeouts = self.terms.timeouts_for(timeout)
        door = _ApiDoor(self.transports, "POST", path, rest_of(params), params, extras)
        if progress is not None:
            door.read_as_stream(progress, timeouts.stall)
        return self._run(door, chosen, timeouts, affinity)

    def _run(self, door: _ApiDoor, model: Optional[str], timeouts: Timeouts, affinity: Any = None) -> Run:
        spent_s = self.monitor.start(timeouts.total)
        call = Call(model, expected_of(door.path), timeouts, door.method, affinity, streams=door.streams)
        return Run(self.registry, door, call, self.terms, spent_s)

    def _begun(self, run: Run) -> Tuple[Run, Done]:
        done = run.begin()
        if done.error is None:
            return run, done
        try:
            raise done.error
        finally:
            del (
                done
            )  # or error, trace and frame would keep a dropped client, its threads and connections in a cycle

    def _check_model(self, model: str) -> None:
        if not encodes(text("model", model), "utf-8"):
            raise reject("model", model, "a text that can be sent")
        if not self.registry.serves(text("model", model)):
            known = sorted({name for e in self.registry.endpoints for name in e.models or ()})
            raise reject("model", model, "a model that an endpoint serves: " + ", ".join(known))


def again(
    registry: Registry,
    probe_when: str,
    options: Dict[str, Any],
    metrics: Metrics,
    model: Optional[str],
    extras: Optional[Tuple[Any, ...]],
) -> Caller:
    """Make a caller as another one was, of what it pickled as; it takes part in connections and monitor itself."""
    terms = Terms.again(registry, options, metrics)
    made = Caller.__new__(Caller)
    transports = SharedTransports.of(registry, made)
    monitor = HealthMonitor.shared(registry, transports, probe_when, made)
    added = None if extras is None else Extras(*extras)
    Caller.__init__(made, registry, transports, monitor, terms, model, added)
    return made


class _ApiDoor:
    """Sends one API call to the endpoint of an attempt."""

    __slots__ = ("_extras", "_params", "_progress", "_rest", "_stall_s", "_transports", "method", "path")

    hedges = True

    def __init__(
        self,
        transports: Transports,
        method: str,
        path: str,
        rest: Optional[bytes],
        params: Dict[str, Any] = {},  # noqa: B006 - never changed
        extras: Optional[Extras] = None,
    ) -> None:
        self._transports = transports
        self.method = method
        self.path = path
        self._rest = rest
        self._params = params
        self._extras = extras
        self._progress: Optional[Callable[[], Progress]] = None
        self._stall_s: Optional[float] = None

    def read_as_stream(self, progress: Callable[[], Progress], stall_s: Optional[float]) -> None:
        """Leave good replies to be read as they come."""
        self._progress, self._stall_s = progress, stall_s

    @property
    def streams(self) -> bool:
        """Whether good replies are left to be read as they come."""
        return self._progress is not None

    def send(self, attempt: Attempt, connect_s: float) -> Received:
        """Send to the attempt's endpoint, under its name for the model, and without fields that it refuses."""
        endpoint = attempt.endpoint
        transport = self._transports[endpoint.name]
        model = endpoint.serves(attempt.model)
        target = transport.target(self.path, model)
        extras = self._extras
        headers: Dict[str, str] = target.headers.copy() if extras is None else extras.headers_for(target)
        try:
            secrets = transport.authorize(headers, target)
        except Exception as error:  # noqa: BLE001 - the caller's callable may raise anything
            return key_unavailable(error)
        body = None
        if self._rest is not None:
            rest = self._rest
            if endpoint.fields is not None:
                accepted = transport.accepted(self._params)
                rest = rest if accepted is self._params else rest_of(accepted)
            body = body_of(model, rest)
            headers["Content-Type"] = _JSON
            headers["Content-Length"] = str(len(body))
        if self._progress is not None:
            headers["Accept-Encoding"] = "identity"  # what packs a stream holds it back
        clock = AttemptClock.of(attempt, connect_s, streams=self.streams)
        if extras is not None:
            clock.query = extras.query_for(transport)
            secrets = (*secrets, *extras.secrets)
        request = EndpointRequest.to(target, self.method, headers, body)
        return exchange(transport, request, clock, secrets, self._reader(attempt))

    def _reader(self, attempt: Attempt) -> Optional[Reader]:
        """Return how the reply is read; None for the whole of it."""
        if self._progress is None:
            return None
        return begin_stream(self._progress, attempt, self._stall_s)
