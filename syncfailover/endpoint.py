"""One place that can answer: where it is, with which key, what it serves, what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Mapping, NoReturn, Optional, Tuple, Union
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .validation import integer, number, one_of, positive, reject, text

if TYPE_CHECKING:
    from .price import Price

ApiKey = Union[str, Callable[[], str], None]
Models = Union[Mapping[str, str], Iterable[str], None]

#: In a model map, stands for every model name that the map does not list.
ANY_MODEL = "*"

_AUTH_HEADERS: Dict[str, Tuple[str, str]] = {
    "bearer": ("Authorization", "Bearer "),
    "api-key": ("api-key", ""),
    "none": ("", ""),
}
_DEFAULT_PORTS = {"http": 80, "https": 443}


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
        models: maps the caller's model names to this endpoint's; `"*": "*"` lets all others pass unchanged.
            A plain list of names is a map of each to itself. None serves every name.
        context_window: tokens; a number, or one per model name of the caller.
        headers: sent with every request to this endpoint, and to no other.
        params: query parameters of every request (Azure's `api-version`).
        auth: "bearer" (Authorization header), "api-key" (header of that name) or "none".
        prices: USD per million tokens by model name: a number for input and output alike, a pair
            (input, output), or a mapping with "input", "output" and optionally "cached_input".
        max_concurrency: requests in flight beyond which it counts as busy.
        verify: True, False, or the path of a CA bundle.
        proxies: as in requests; None takes them from the environment.

    Raises:
        ConfigurationError: a field cannot work; the message names field, value and what is allowed.

    """

    __slots__ = (
        "_prices",
        "_windows",
        "api_key",
        "auth",
        "base_url",
        "context_window",
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
    ) -> None:
        put = object.__setattr__
        put(self, "name", _name(name))
        put(self, "base_url", _base_url(base_url))
        put(self, "origin", origin(self.base_url))
        put(self, "api_key", _api_key(api_key))
        put(self, "weight", number("weight", weight))
        put(self, "priority", integer("priority", priority))
        put(self, "health_check_path", _path(health_check_path))
        put(self, "max_latency_ms", positive("max_latency_ms", max_latency_ms))
        put(self, "models", _model_map(models))
        put(self, "_windows", _windows(context_window))
        put(self, "context_window", context_window)
        put(self, "headers", _headers(headers))
        put(self, "params", _params(params))
        put(self, "auth", one_of("auth", auth, _AUTH_HEADERS))
        put(self, "_prices", _price_table(prices))
        put(self, "prices", dict(prices) if prices else None)
        put(
            self,
            "max_concurrency",
            None if max_concurrency is None else integer("max_concurrency", max_concurrency, minimum=1),
        )
        put(self, "verify", _verify(verify))
        put(self, "proxies", _proxies(proxies))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: a client reads its endpoints from many threads."""
        raise AttributeError(f"an Endpoint is frozen; use .replace({name}=...)")

    def __repr__(self) -> str:
        """Show where it is and how it counts, never a key, a header or a parameter."""
        key = "callable" if callable(self.api_key) else "set" if self.api_key else "none"
        return f"<Endpoint {self.name} {self.base_url} priority={self.priority} weight={self.weight:g} key={key}>"

    def __reduce__(self) -> NoReturn:
        """Refuse: a pickle would carry the key over a boundary unasked."""
        raise TypeError(
            f"endpoint {self.name!r} holds a key and does not pickle; make it anew in the other process"
        )

    def __copy__(self) -> Endpoint:
        """Return itself: it is frozen."""
        return self

    def __deepcopy__(self, memo: object) -> Endpoint:
        """Return itself: it is frozen."""
        return self

    def replace(self, **changes: Any) -> Endpoint:
        """Return a new endpoint with some fields changed."""
        fields = {
            name: getattr(self, name)
            for name in self.__slots__
            if not name.startswith("_") and name != "origin"
        }
        unknown = sorted(set(changes) - set(fields))
        if unknown:
            raise reject("field", unknown[0], "one of " + ", ".join(sorted(fields)))
        return Endpoint(**{**fields, **changes})

    def key(self) -> Optional[str]:
        """Return the key for one attempt; a callable is asked each time and its answer validated."""
        return checked_key(self.api_key()) if callable(self.api_key) else self.api_key

    def auth_header(self, key: Optional[str]) -> Tuple[str, str]:
        """Return name and value of the header that carries `key`; an empty name where there is none."""
        name, prefix = _AUTH_HEADERS[self.auth]
        return (name, prefix + key) if name and key else ("", "")

    def serves(self, model: Optional[str]) -> Optional[str]:
        """Return this endpoint's own name for the caller's `model`, None if it does not serve it."""
        if self.models is None or model is None:
            return model or ""
        own = self.models.get(model) or self.models.get(ANY_MODEL)
        return model if own == ANY_MODEL else own

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


def origin(url: str) -> Tuple[str, str, int]:
    """Return scheme, host and port of a URL: what a key is bound to (RFC 6454)."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(scheme, 0)


def checked_key(value: object) -> str:
    """Return a key that can be sent in a header; the error never shows it."""
    if not isinstance(value, str):
        raise _secret(
            "api_key", f"a {type(value).__name__}", "a string, a callable that returns one, or None"
        )
    if not value:
        raise _secret("api_key", "an empty string", "a key, or None for no key")
    if any(c in value for c in "\r\n"):
        raise _secret(
            "api_key", f"a key of {len(value)} characters with a line break", "a key without line breaks"
        )
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise _secret(
            "api_key",
            f"a key of {len(value)} characters with white space around it, control or non-ASCII characters",
            "printable ASCII",
        )
    return value


def _secret(field: str, description: str, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{field}: {description} is not allowed; expected {allowed}", field=field)


def _api_key(value: ApiKey) -> ApiKey:
    return value if value is None or callable(value) else checked_key(value)


def _name(value: str) -> str:
    if not text("name", value).isprintable():
        raise reject("name", value, "printable characters")
    return value


def _base_url(value: str) -> str:
    allowed = "a URL like 'https://api.example.com/v1'"
    if not isinstance(value, str):
        raise reject("base_url", value, allowed)
    try:
        parts = urlsplit(value)
        bad_port = parts.port == 0
    except ValueError:
        raise reject("base_url", _redacted(value), allowed + " with a port between 1 and 65535") from None
    if "@" in parts.netloc:
        raise reject("base_url", _redacted(value), "no credentials in it; use api_key or headers")
    if parts.scheme.lower() not in _DEFAULT_PORTS or not parts.hostname or bad_port:
        raise reject("base_url", _redacted(value), allowed + ", with scheme http or https and a host")
    if parts.query or parts.fragment or any(c.isspace() or not c.isprintable() for c in value):
        raise reject(
            "base_url", _redacted(value), "no query, fragment or white space; use params for a query"
        )
    return value.rstrip("/")


def _redacted(url: str) -> str:
    """Cut from a URL what may be a secret: credentials, query and fragment."""
    head, at, tail = url.rpartition("@")
    if "?" in head or "#" in head:
        return "..."  # an @ in the query, or a ? in the password: no part of it is surely harmless
    return ("...@" + tail if at else url).split("?", 1)[0].split("#", 1)[0]


def _path(value: str) -> str:
    if (
        not isinstance(value, str)
        or not value.strip("/")
        or any(c.isspace() for c in value)
        or "://" in value
    ):
        raise reject("health_check_path", value, "a path like '/health' or 'models'")
    return value


def _model_map(models: Models) -> Optional[Dict[str, str]]:
    if models is None:
        return None
    allowed = "a mapping of the caller's names to the endpoint's, or a list of names"
    if isinstance(models, str):
        raise reject("models", models, allowed)
    try:
        table = dict(models) if isinstance(models, Mapping) else {name: name for name in models}
    except TypeError:  # it cannot be iterated over, or a name cannot be a key
        raise reject("models", models, allowed) from None
    if not table:
        raise reject("models", models, "at least one model, or None for every model")
    for ours, theirs in table.items():
        text("models", ours)
        text(f"models[{ours!r}]", theirs)
    return table


def _windows(value: Union[int, Mapping[str, int], None]) -> Dict[str, int]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {model: integer(f"context_window[{model!r}]", n, minimum=1) for model, n in value.items()}
    return {ANY_MODEL: integer("context_window", value, minimum=1)}


def _headers(value: Optional[Mapping[str, str]]) -> Dict[str, str]:
    headers = _strings("headers", value)
    for name, content in headers.items():
        if (
            not name
            or not name.isascii()
            or any(c in name + content for c in "\r\n:" if c != ":" or c in name)
        ):
            raise _secret(
                f"headers[{name!r}]", "a line break, or a colon in the name,", "a header fit to send"
            )
    return headers


def _params(value: Optional[Mapping[str, str]]) -> Dict[str, str]:
    return _strings("params", value)


def _proxies(value: Optional[Mapping[str, str]]) -> Optional[Dict[str, str]]:
    return None if value is None else _strings("proxies", value)


def _strings(field: str, value: Optional[Mapping[str, str]]) -> Dict[str, str]:
    """Accept a mapping of strings; values may be secrets, so the error shows only the type."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _secret(field, f"a {type(value).__name__}", "a mapping of strings to strings")
    for name, content in value.items():
        if not isinstance(name, str) or not isinstance(content, str):
            raise _secret(f"{field}[{name!r}]", f"a {type(content).__name__}", "strings to strings")
    return dict(value)


def _verify(value: Union[bool, str]) -> Union[bool, str]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or not Path(value).exists():
        raise reject("verify", value, "True, False, or the path of an existing CA bundle")
    return value


def _price_table(prices: Optional[Mapping[str, Any]]) -> Dict[str, Price]:
    if prices is None:
        return {}
    from .price import price_table  # noqa: PLC0415 - decimal is only needed where there are prices

    return price_table(prices)
