"""One place that can answer: where it is, with which key, what it serves, what it costs."""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    FrozenSet,
    Iterable,
    Mapping,
    NoReturn,
    Optional,
    Tuple,
    Union,
)

from . import endpoint_fields as field
from .endpoint_fields import ANY_MODEL, ApiKey, Models
from .errors import ConfigurationError
from .pickling import pack_endpoint
from .unpickling import reduced, told_of, unpack
from .validation import integer, number, one_of, positive, reject

if TYPE_CHECKING:
    from .price import Price

_AUTH_HEADERS: Dict[str, Tuple[str, str]] = {
    "bearer": ("Authorization", "Bearer "),
    "api-key": ("api-key", ""),
    "x-api-key": ("x-api-key", ""),
    "none": ("", ""),
}
#: Anthropic's chat completions take a bearer token alone, and all of its other paths an `x-api-key` alone.
_BY_PATH = "anthropic"
_COMPATIBLE = "chat/completions"


class Endpoint:
    """One base URL with one key: the unit that is probed, chosen, ejected and billed.

    Args:
        name: unique among the endpoints of a client; logs, metrics and errors use it.
        base_url: for example `https://api.openai.com/v1`; without credentials, query or fragment.
        api_key: a string, or a callable that returns one for each attempt (rotated secrets).
        weight: share of the traffic within the same priority, as in a DNS SRV record; 0 drains.
        priority: lower is used first, as in a DNS SRV record.
        health_check_path: with a leading slash from the origin's root, without one relative to `base_url`.
        max_latency_ms: a smoothed probe latency at or above it makes the endpoint DEGRADED.
        models: maps the caller's model names to this endpoint's; a name that it lacks is not asked for here.
            `"gpt-*": "openai/gpt-*"` maps all names that begin so, and `"*": "*"` lets all others pass unchanged.
            A plain list of names is a map of each to itself. None serves every name.
        context_window: tokens; a number, or one per model name of the caller.
        headers: sent with every request to this endpoint, and to no other.
        params: query parameters of every request (Azure's `api-version`).
        auth: "bearer" (Authorization header), "api-key" or "x-api-key" (header of that name), "anthropic" (bearer for
            chat completions, x-api-key for everything else) or "none".
        prices: USD per million tokens by model name: a number for input and output alike, a pair
            (input, output), or a mapping with "input", "output" and optionally "cached_input".
        max_concurrency: requests in flight beyond which it counts as busy.
        verify: True, False, or the path of a CA bundle.
        proxies: as in requests; None takes them from the environment.
        call_path: where a call that names a model goes, relative to `base_url`: `deployments/{model}/{path}` puts this
            endpoint's name for the model into the path, as Azure wants it. A call without a model goes to its path.
        fields: the payload's fields that this endpoint accepts, for one that refuses a call because of fields that it
            does not know. All others are left out of what is sent to it, which is logged once for each. None sends all.

    Raises:
        ConfigurationError: a field cannot work; the message names field, value and what is allowed.

    """

    __slots__ = (
        "_patterns",
        "_prices",
        "_windows",
        "api_key",
        "auth",
        "base_url",
        "call_path",
        "context_window",
        "fields",
        "headers",
        "health_check_path",
        "max_concurrency",
        "max_latency_ms",
        "models",
        "name",
        "origin",
        "params",
        "prices",
        "priority",
        "proxies",
        "verify",
        "weight",
    )

    name: str
    base_url: str
    #: Scheme, host and port: what the key is bound to.
    origin: Tuple[str, str, int]
    api_key: ApiKey
    weight: float
    priority: int
    health_check_path: str
    max_latency_ms: float
    models: Optional[Dict[str, str]]
    context_window: Union[int, Mapping[str, int], None]
    headers: Dict[str, str]
    params: Dict[str, str]
    auth: str
    prices: Optional[Dict[str, Any]]
    max_concurrency: Optional[int]
    verify: Union[bool, str]
    proxies: Optional[Dict[str, str]]
    call_path: Optional[str]
    fields: Optional[FrozenSet[str]]
    _patterns: Tuple[Tuple[str, str], ...]
    _prices: Dict[str, Price]
    _windows: Dict[str, int]

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: ApiKey = None,
        *,
        weight: float = 1,
        priority: int = 0,
        health_check_path: str = "/health",
        max_latency_ms: float = 100.0,
        models: Models = None,
        context_window: Union[int, Mapping[str, int], None] = None,
        headers: Optional[Mapping[str, str]] = None,
        params: Optional[Mapping[str, str]] = None,
        auth: str = "bearer",
        prices: Optional[Mapping[str, Any]] = None,
        max_concurrency: Optional[int] = None,
        verify: Union[bool, str] = True,
        proxies: Optional[Mapping[str, str]] = None,
        call_path: Optional[str] = None,
        fields: Optional[Iterable[str]] = None,
    ) -> None:
        put = object.__setattr__
        put(self, "name", field.name(name))
        put(self, "base_url", field.base_url(base_url))
        put(self, "origin", field.origin(self.base_url))
        put(self, "api_key", field.api_key(api_key))
        put(self, "weight", number("weight", weight))
        put(self, "priority", integer("priority", priority))
        put(self, "health_check_path", field.path(health_check_path))
        put(self, "max_latency_ms", positive("max_latency_ms", max_latency_ms))
        put(self, "models", field.model_map(models))
        put(self, "_patterns", field.model_patterns(self.models))
        put(self, "_windows", field.windows(context_window))
        put(self, "context_window", context_window)
        put(self, "headers", field.headers(headers))
        put(self, "params", field.params(params))
        put(self, "auth", one_of("auth", auth, (*_AUTH_HEADERS, _BY_PATH)))
        put(self, "_prices", _price_table(prices))
        put(self, "prices", dict(prices) if prices else None)
        put(
            self,
            "max_concurrency",
            None if max_concurrency is None else integer("max_concurrency", max_concurrency, minimum=1),
        )
        put(self, "verify", field.verify(verify))
        put(self, "proxies", field.proxies(proxies))
        put(self, "call_path", field.call_path(call_path))
        put(self, "fields", field.payload_fields(fields))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: a client reads its endpoints from many threads."""
        raise AttributeError(f"an Endpoint is frozen; use .replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        """Refuse, as `__setattr__` does."""
        raise AttributeError(f"an Endpoint is frozen; use .replace({name}=...)")

    def __repr__(self) -> str:
        """Show where it is and how it counts, never a key, a header or a parameter."""
        key = "callable" if callable(self.api_key) else "set" if self.api_key else "none"
        return f"<Endpoint {self.name} {self.base_url} priority={self.priority} weight={self.weight:g} key={key}>"

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle as its fields, and in place of each secret where the other process reads it; see `pickling`."""
        return reduced(Endpoint, unpack_endpoint, pack_endpoint(self.given(), include_keys=False))

    def __copy__(self) -> Endpoint:
        """Return itself: it is frozen."""
        return self

    def __deepcopy__(self, memo: object) -> Endpoint:
        """Return itself: it is frozen."""
        return self

    def keywords(self) -> Dict[str, Any]:
        """Return the fields that it was made of, by name."""
        return {
            name: getattr(self, name)
            for name in self.__slots__
            if not name.startswith("_") and name != "origin"
        }

    def given(self) -> Dict[str, Any]:
        """Return those of the fields that are not as they are by default."""
        fields = self.keywords().items()
        return {name: value for name, value in fields if name not in _DEFAULTS or value != _DEFAULTS[name]}

    def replace(self, **changes: Any) -> Endpoint:
        """Return a new endpoint with some fields changed."""
        fields = self.keywords()
        unknown = sorted(set(changes) - set(fields))
        if unknown:
            raise reject("field", unknown[0], "one of " + ", ".join(sorted(fields)))
        return Endpoint(**{**fields, **changes})

    def key(self) -> Optional[str]:
        """Return the key for one attempt; a callable is asked each time and its answer validated."""
        return field.checked_key(self.api_key()) if callable(self.api_key) else self.api_key

    def auth_scheme(self, path: str) -> str:
        """Return how a key is sent to `path`, which is relative to `base_url`."""
        if self.auth != _BY_PATH:
            return self.auth
        return "bearer" if path.lstrip("/").startswith(_COMPATIBLE) else "x-api-key"

    def auth_header(self, key: Optional[str], path: str = "") -> Tuple[str, str]:
        """Return name and value of the header that carries `key` to `path`; an empty name where there is none."""
        name, prefix = _AUTH_HEADERS[self.auth_scheme(path)]
        return (name, prefix + key) if name and key else ("", "")

    def serves(self, model: Optional[str]) -> Optional[str]:
        """Return this endpoint's own name for the caller's `model`, None if it does not serve it."""
        if self.models is None or model is None:
            return model or ""
        own = self.models.get(model)
        if own is None:
            return self._by_pattern(model)
        return model if own == ANY_MODEL else own

    def _by_pattern(self, model: str) -> Optional[str]:
        for prefix, own in self._patterns:
            if model.startswith(prefix):
                return own[:-1] + model[len(prefix) :] if own.endswith(ANY_MODEL) else own
        return None

    def price(self, *models: Optional[str]) -> Optional[Price]:
        """Return the price of the first of `models` that has one, None where none is known."""
        for model in models:
            found = self._prices.get(model) if model else None
            if found is not None:
                return found
        return None

    def window(self, model: Optional[str]) -> Optional[int]:
        """Return the context window declared for `model`, in tokens."""
        declared: Optional[int] = self._windows.get(model or ANY_MODEL) or self._windows.get(ANY_MODEL)
        return declared

    def probe_url(self) -> str:
        """Return the URL that the health check asks."""
        if self.health_check_path.startswith("/"):
            scheme, host, port = self.origin
            host = f"[{host}]" if ":" in host else host
            return f"{scheme}://{host}:{port}{self.health_check_path}"
        return f"{self.base_url}/{self.health_check_path}"


#: What each field is that was not given.
_DEFAULTS: Dict[str, Any] = {
    **(Endpoint.__init__.__kwdefaults__ or {}),
    "api_key": None,
    "headers": {},
    "params": {},
}


def unpack_endpoint(packed: Mapping[str, Any]) -> Endpoint:
    """Make the endpoint that was packed, its secrets read again from where they are.

    Raises:
        ConfigurationError: a secret is not there, or is none that can be sent.

    """
    owner = f"endpoint {packed['name']!r}"
    fields = unpack(owner, dict(packed))
    made: Endpoint = told_of(owner, lambda: Endpoint(**fields))
    return made


def _price_table(prices: Optional[Mapping[str, Any]]) -> Dict[str, Price]:
    if prices is None:
        return {}
    from .price import price_table  # noqa: PLC0415 - decimal is only needed where there are prices

    return price_table(prices)


def checked_endpoints(endpoints: Iterable[Endpoint]) -> Tuple[Endpoint, ...]:
    """Accept a list of endpoints, at least one, names unique."""
    if isinstance(endpoints, Endpoint):
        endpoints = (endpoints,)
    if isinstance(endpoints, (str, bytes, Mapping)):  # not shown: it may be, or hold, a key
        kind = type(endpoints).__name__
        raise ConfigurationError(
            f"endpoints: a {kind} is not allowed; expected a list of Endpoint", field="endpoints"
        )
    try:
        listed = tuple(endpoints)
    except TypeError:
        raise reject("endpoints", endpoints, "a list of Endpoint") from None
    if not listed:
        raise ConfigurationError(
            "endpoints: the list is empty; expected at least one Endpoint", field="endpoints"
        )
    names = set()
    for endpoint in listed:
        if not isinstance(endpoint, Endpoint):
            raise reject(
                "endpoints", endpoint, "a list of Endpoint; a preset like holysheep(...) is unpacked with *"
            )
        if endpoint.name in names:
            raise reject("endpoints", endpoint.name, "each name only once")
        names.add(endpoint.name)
    return listed
