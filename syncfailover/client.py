"""The client: `client.chat(...)`, and what an openai-SDK caller already wrote, over the failover loop."""

import json
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Type, Union

from urllib3.util.retry import Retry

from . import providers
from .adapter import EndpointRegistry
from .chat.reply import ApiReply, ChatReply
from .endpoint import ApiKey, Endpoint
from .errors import ClientClosed, ConfigurationError
from .policy.health import HealthStatus
from .policy.node import Attempt
from .policy.outcome import Received
from .policy.retry import FailoverRetry
from .policy.snapshot import Snapshot
from .runtime.dispatch import Callback
from .runtime.exchange import exchange, key_unavailable, without_key
from .runtime.failover import Call, Done, Timeouts, run
from .runtime.metrics import Metrics
from .runtime.monitor import HealthMonitor
from .runtime.probe import HttpProbe
from .runtime.transport import EndpointRequest, Transports
from .runtime.wire import AttemptClock
from .session import FailoverSession, registry_from
from .validation import number, reject, text

_JSON = "application/json"


class FailoverClient:
    """Keeps `client.chat(...)` working when an endpoint does not.

        client = FailoverClient([Endpoint("a", url_a, key_a), Endpoint("b", url_b, key_b)], model="gpt-4.1")
        print(client.chat("Explain failover in two sentences.").text)

    One client serves all threads of a process; make it once. Its health monitor starts with the first call.

    Args:
        endpoints: a list of `Endpoint`, or an `EndpointRegistry` to share.
        model: used where a call names none.
        balancer: "weighted", "round_robin", "lowest_latency", "least_busy", "cheapest", or any object with
            `pick(candidates) -> candidate`.
        timeout: seconds for a whole call, all attempts and waits together, or `Timeouts`.
        max_retries: further attempts after the first, or a urllib3 `Retry`, or a `FailoverRetry`.
        probe_interval: seconds between health checks of one endpoint.
        probe_timeout: seconds for one health check.
        probe_when: "always"; "idle" leaves out an endpoint that served a call within the interval; "never".
        options: any other keyword of `EndpointRegistry` (`failure_threshold`, `recovery_timeout`, ...).

    Raises:
        ConfigurationError: an argument that cannot work; the message names field, value and what is allowed.

    """

    def __init__(
        self,
        endpoints: Union[Iterable[Endpoint], EndpointRegistry],
        *,
        model: Optional[str] = None,
        balancer: Any = None,
        timeout: Union[float, Timeouts] = 30.0,
        max_retries: Union[int, Retry] = 3,
        probe_interval: float = 2.0,
        probe_timeout: float = 1.0,
        probe_when: str = "always",
        **options: Any,
    ) -> None:
        if balancer is not None:
            options["balancer"] = balancer
        self.registry = registry_from(
            endpoints, probe_interval=probe_interval, probe_timeout=probe_timeout, **options
        )
        transports = Transports(self.registry.endpoints)
        self._monitor = HealthMonitor(
            self.registry,
            HttpProbe(transports),
            interval=probe_interval,
            timeout=probe_timeout,
            probe_when=probe_when,
        )
        retry = FailoverRetry.from_value(max_retries)
        self._caller = Caller(
            self.registry, transports, self._monitor, retry, Timeouts.from_value(timeout), model
        )
        self._session: Optional[FailoverSession] = None
        #: `client.chat("text")`, `client.chat([messages])`, `client.chat.completions.create(...)`
        self.chat = Chat(self._caller)
        #: `client.embeddings.create(model=..., input=...)`
        self.embeddings = Embeddings(self._caller)
        #: `client.models.list()`
        self.models = Models(self._caller)

    @classmethod
    def from_keys(
        cls,
        keys: Sequence[ApiKey],
        provider: str = "holysheep",
        *,
        emergency: Union[Endpoint, Iterable[Endpoint]] = (),
        **options: Any,
    ) -> "FailoverClient":
        """Make a client of several keys of one provider: one endpoint per key, weights falling.

        Args:
            keys: at least one.
            provider: "holysheep", "openai" or "openrouter".
            emergency: endpoints of lower priority, for when no key of the provider works.
            options: any keyword of `Endpoint` for the keys' endpoints, any other for the client.

        """
        fields = {name: options.pop(name) for name in list(options) if name in _ENDPOINT_FIELDS}
        exits = [emergency] if isinstance(emergency, Endpoint) else list(emergency)
        return cls([*providers.from_keys(provider, keys, **fields), *exits], **options)

    def __repr__(self) -> str:
        return f"<FailoverClient {self.registry.snapshot()}>"

    @property
    def session(self) -> FailoverSession:
        """A `FailoverSession` over the same endpoints, connections, counters and monitor."""
        caller = self._caller
        caller.check_open()
        if self._session is None:
            self._session = FailoverSession(
                self.registry,
                timeout=caller.timeouts,
                max_retries=caller.retry,
                transports=caller.transports,
                metrics=caller.metrics,
                monitor=self._monitor,
            )
        return self._session

    def status(self) -> Snapshot:
        """Return how every endpoint is: immutable, by name."""
        return self.registry.snapshot()

    def metrics(self) -> Dict[str, Any]:
        """Return the counters of all calls so far, as one consistent dictionary.

        `total_requests`, `successful_requests`, `failed_requests`, `failover_count`, `success_rate`,
        `failover_rate`, `average_latency_ms`, `total_cost_usd`, `unpriced_requests`, `uptime_hours`, and
        `endpoints` with the share of each.
        """
        return self._caller.metrics.read()

    def wait_until_ready(self, timeout: float = 5.0) -> bool:
        """Wait until a health check found an endpoint alive, at most `timeout` seconds; tell whether one did."""
        number("timeout", timeout)
        self._caller.check_open()
        if self._monitor.probe_when == "never":
            self._monitor.probe_all()
            timeout = 0.0
        else:
            self._monitor.probe_soon()
        alive = (HealthStatus.HEALTHY, HealthStatus.DEGRADED)
        return self.registry.wait_for(
            lambda now: any(state.status in alive for state in now.endpoints), timeout
        )

    def on(self, event: str, callback: Callback) -> Callable[[], None]:
        """Call `callback(event)` for each event of that name, in order, outside every lock.

        The names are in `syncfailover.events.EVENTS`. What a callback raises is logged. Returns a function that
        ends it.
        """
        return self.registry.on(event, callback)

    def close(self) -> None:
        """End the monitor's threads within a second and close idle connections; calling it again does nothing."""
        self._caller.closed = True
        self._monitor.close()
        if self._session is not None:
            self._session.close()
        self._caller.transports.close()

    def __enter__(self) -> "FailoverClient":
        """Use as a context manager that closes at the end."""
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Close."""
        self.close()


class Caller:
    """What the parts of a client share: one way to make a call. It does not know the client, so no cycle arises."""

    def __init__(
        self,
        registry: EndpointRegistry,
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

    def _run(self, door: "_ApiDoor", expects: str, model: Optional[str], timeout: Any) -> Done:
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

    def send(self, attempt: Attempt, timeout_s: float, connect_s: float) -> Received:
        """Send to the attempt's endpoint; only the model's name differs from one endpoint to the next."""
        endpoint = attempt.endpoint
        transport = self._transports[endpoint.name]
        target = transport.target(self._path)
        headers: Dict[str, str] = target.headers.copy()
        try:
            secrets = transport.authorize(headers)
        except Exception as error:  # noqa: BLE001 - the caller's callable may raise anything
            return key_unavailable(error)
        request = EndpointRequest()
        request.method, request.url, request.path_url = self.method, target.url, target.path_url
        if self._rest is not None:
            name = _ENCODER.encode(endpoint.serves(attempt.model)).encode()
            request.body = b'{"model":' + name + self._rest
            headers["Content-Type"] = _JSON
            headers["Content-Length"] = str(len(request.body))
        request.headers = headers  # type: ignore[assignment]
        return exchange(transport, request, AttemptClock(timeout_s, connect_s), secrets)


class Chat:
    """`client.chat`: callable with a prompt or messages, and the OpenAI SDK's `chat.completions`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        #: `create(model=..., messages=...)`, as an openai-SDK caller already wrote it.
        self.completions = Completions(caller)

    def __call__(
        self,
        prompt: Union[str, Sequence[Mapping[str, Any]]],
        *,
        model: Optional[str] = None,
        timeout: Union[float, Timeouts, None] = None,
        **params: Any,
    ) -> ChatReply:
        """Ask for one whole answer.

        Args:
            prompt: a text, sent as the user's message, or a list of messages in the OpenAI shape.
            model: the caller's name for the model; the client's own where None.
            timeout: seconds for the whole call, or `Timeouts`.
            params: any other field of a chat completion (`temperature`, `tools`, ...).

        Raises:
            ConfigurationError: an argument that cannot work.
            FailoverError: its subclass says what was tried, and what came of it.

        """
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return self.completions.create(messages=messages, model=model, timeout=timeout, **params)


class Completions:
    """`client.chat.completions`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def create(
        self,
        *,
        messages: Sequence[Mapping[str, Any]],
        model: Optional[str] = None,
        timeout: Union[float, Timeouts, None] = None,
        **params: Any,
    ) -> ChatReply:
        """Ask for one whole answer; see `Chat.__call__`."""
        params = {"messages": _messages(messages), **_checked_params(params)}
        done = self._caller.post("chat/completions", "choices", model, timeout, params)
        return ChatReply(_payload(done), **_story(done))


class Embeddings:
    """`client.embeddings`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def create(
        self,
        *,
        input: Any,  # noqa: A002 - the field's name in the API
        model: Optional[str] = None,
        timeout: Union[float, Timeouts, None] = None,
        **params: Any,
    ) -> ApiReply:
        """Return embeddings of a text or of a list of texts."""
        params = {"input": input, **_checked_params(params)}
        done = self._caller.post("embeddings", "data", model, timeout, params)
        return ApiReply(_payload(done), **_story(done))


class Models:
    """`client.models`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(self, *, timeout: Union[float, Timeouts, None] = None) -> ApiReply:
        """Return the model list of whichever endpoint answers."""
        done = self._caller.get("models", "data", timeout)
        return ApiReply(_payload(done), **_story(done))


_ENDPOINT_FIELDS = frozenset(Endpoint.__slots__) - {"name", "api_key", "weight", "origin"}

#: Words that mean something to this package; they must not reach a provider as a field of the payload.
_NOT_YET = ("stream", "affinity", "on_break", "wire_stream", "extra_headers", "extra_body", "extra_query")


def _checked_params(params: Dict[str, Any]) -> Dict[str, Any]:
    for name in _NOT_YET:
        if params.get(name):
            raise reject(name, params[name], "nothing: this version does not support it yet")
        params.pop(name, None)
    return params


def _messages(messages: Any) -> List[Mapping[str, Any]]:
    allowed = "a text, or a list of messages like {'role': 'user', 'content': '...'}"
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise reject("messages", messages, allowed)
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise reject(f"messages[{index}]", message, allowed)
    return list(messages)


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


def _payload(done: Done) -> Dict[str, Any]:
    received = done.received
    payload: Dict[str, Any] = {} if received is None else received.payload
    return payload


def _story(done: Done) -> Dict[str, Any]:
    last = done.ledger[-1]
    return {
        "endpoint": last.endpoint,
        "latency_ms": done.latency_ms,
        "cost_usd": last.cost_usd,
        "attempts": done.ledger,
    }
