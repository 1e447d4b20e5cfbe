"""What travels in a pickle: configuration, and in place of each secret where the other process reads it for itself.

The rules, for whoever pickles with `include_keys=False`:

1. A secret that has a source (an environment variable, a settings file, a function) travels as that source, and is read
   again where the pickle is loaded; see `unpickling`.
2. A secret that has none refuses to travel. `secrecy` says what is one.
3. Everything else travels as it is. Locks, threads, sockets, counters and listeners never do.

With `include_keys=True` secrets travel, too.
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from types import MethodType
from typing import Any, Dict, Iterable, List, Mapping, NoReturn, Optional, Tuple
from urllib.parse import parse_qsl

from .errors import ConfigurationError
from .secrecy import is_credential, is_secret_url, secret_of_url

_ALLOWED = (
    "one that the other process can read for itself (FailoverClient.from_env(); a settings file or mapping with"
    ' "${NAME}"; for api_key also a function of a module), or include_keys=True, which lets secrets travel'
)


class NotCarried(ConfigurationError, TypeError):
    """A secret that would have gone along in a pickle unasked."""


class Source:
    """Where a secret is read: it travels in the place of what was read."""

    def read(self) -> Any:
        """Read it, in this process.

        Raises:
            ConfigurationError: it is not there; the message says what is missing.

        """
        raise NotImplementedError


class Sourced(str):
    """A text that was read from a source; in every other respect it is that text."""

    __slots__ = ("source",)
    source: Source

    def __new__(cls, text: str, source: Source) -> Sourced:
        """Make one."""
        made = super().__new__(cls, text)
        made.source = source
        return made

    def __reduce__(self) -> Tuple[Any, ...]:
        """Whoever takes it out of its endpoint has a plain text."""
        return str, (str(self),)

    def __copy__(self) -> Sourced:
        """Return itself, as a text does."""
        return self

    def __deepcopy__(self, memo: object) -> Sourced:
        """Return itself, as a text does."""
        return self


class Reference(Source):
    """A function or class that is found by its name, and never travels by value: its closure may hold a key."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    @classmethod
    def to(cls, thing: Any) -> Optional[Reference]:
        """Return a reference to something callable, None where it has no name of its own."""
        module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str):
            return None
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        return cls(module, name) if found is not None and found == thing else None

    def read(self) -> Any:
        """Import it.

        Raises:
            ConfigurationError: this process has no such module, or nothing of that name in it.

        """
        try:
            found: Any = import_module(self.module)
            for part in self.name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"api_key: {self.module}.{self.name} cannot be found here ({error}); expected a function of a module"
                " that both processes can import",
                field="api_key",
            ) from None
        return found


# Packing


def options_given(function: Any, arguments: Mapping[str, Any]) -> Dict[str, Any]:
    """Return those of a function's keywords that were given, and not with their default.

    Args:
        function: which one.
        arguments: what all of its arguments are, as `locals()` has it when it begins.

    """
    defaults = function.__kwdefaults__ or {}
    return {name: arguments[name] for name, default in defaults.items() if arguments[name] is not default}


def pack_endpoints(endpoints: Iterable[Any], *, include_keys: bool) -> List[Dict[str, Any]]:
    """Return endpoints as they travel: the fields of each.

    Raises:
        NotCarried: a secret of one has no source.

    """
    return [pack_endpoint(endpoint.given(), include_keys=include_keys) for endpoint in endpoints]


def pack_endpoint(fields: Mapping[str, Any], *, include_keys: bool) -> Dict[str, Any]:
    """Return an endpoint's fields as they travel.

    Args:
        fields: those that are not as they are by default.
        include_keys: whether secrets travel.

    Raises:
        NotCarried: a secret among them has no source.

    """
    owner, key = f"endpoint {fields['name']!r}", fields.get("api_key")
    packed = {name: _plain(value) for name, value in fields.items()}
    if key is not None:
        packed["api_key"] = _pack_key(owner, key, include_keys=include_keys)
    known = key if isinstance(key, str) else None
    for field in {"headers", "params"}.intersection(fields):
        packed[field] = pack_named(owner, field, fields[field], include_keys=include_keys, key=known)
    if "proxies" in fields:
        packed["proxies"] = {
            scheme: pack_url(owner, f"proxies[{scheme!r}]", url, include_keys=include_keys)
            for scheme, url in fields["proxies"].items()
        }
    return packed


def pack_named(
    owner: str, field: str, values: Mapping[str, Any], *, include_keys: bool, key: Optional[str] = None
) -> Dict[str, Any]:
    """Return headers or parameters as they travel.

    Args:
        owner: whose they are, in an error's words.
        field: what they are called there.
        values: by name.
        include_keys: whether secrets travel.
        key: one that is known, so that what holds it is a secret.

    Raises:
        NotCarried: one that is named like a credential, or looks like one, has no source.

    """
    packed: Dict[str, Any] = {}
    for name, value in values.items():
        if include_keys:
            packed[name] = _plain(value)
        elif isinstance(value, Sourced):
            packed[name] = value.source
        elif any(is_credential(name, text, key) for text in _texts(value)):
            _refuse(owner, f"{field}[{name!r}]", "what may be a credential, and was passed as text,")
        else:
            packed[name] = value
    return packed


def pack_url(owner: str, field: str, url: str, *, include_keys: bool) -> Any:
    """Return a URL as it travels.

    Raises:
        NotCarried: it holds a password, and has no source.

    """
    if include_keys or not secret_of_url(url):
        return str(url)
    if isinstance(url, Sourced):
        return url.source
    return _refuse(owner, field, "a URL with a password, which was passed as text,")


def pack_options(options: Mapping[str, Any], *, include_keys: bool) -> Dict[str, Any]:
    """Return a registry's options as they travel; objects among them pickle themselves.

    Raises:
        NotCarried: a URL among them holds a password, and has no source; or `state` is a connection.

    """
    state = options.get("state")
    if not isinstance(state, (str, type(None))):
        _refuse("the registry", "state", f"a {type(state).__name__}", "its URL")
    return {
        name: pack_url("the registry", name, value, include_keys=include_keys)
        if isinstance(value, str) and is_secret_url(value)
        else _plain(value)
        for name, value in options.items()
    }


def pack_session(state: Mapping[str, Any], *, include_keys: bool) -> Dict[str, Any]:
    """Return what travels of a session: its cookies, which are what servers have said, only where secrets do.

    Args:
        state: as a `requests.Session` pickles.
        include_keys: whether secrets travel.

    Raises:
        NotCarried: what may be a secret was put into its headers, parameters, proxies or `auth`.

    """
    packed = dict(state)
    if include_keys:
        return packed
    if packed.get("auth") is not None:
        _refuse("the session", "auth", "what may be a credential")
    packed["cookies"] = type(packed["cookies"])()
    for field in ("headers", "params"):
        pack_named("the session", field, _named(packed[field]), include_keys=False)
    for scheme, url in packed["proxies"].items():
        pack_url("the session", f"proxies[{scheme!r}]", url or "", include_keys=False)
    return packed


def _pack_key(owner: str, key: Any, *, include_keys: bool) -> Any:
    if callable(key):
        reference = Reference.to(key)
        if reference is None and not include_keys and not _says_what_travels(key):
            what = f"a {type(key).__name__} that no module has by its name"
            _refuse(owner, "api_key", what)
        return key if reference is None else reference
    if include_keys:
        return _plain(key)
    return (
        key.source if isinstance(key, Sourced) else _refuse(owner, "api_key", "a key that was passed as text")
    )


def _says_what_travels(thing: Any) -> bool:
    """Tell whether the class of something callable decides itself what of it is pickled: it may hold a key."""
    kind = type(thing.__self__ if isinstance(thing, MethodType) else thing)
    if kind.__module__ == "builtins" or issubclass(kind, functools.partial):
        return False
    own = [base for base in kind.__mro__ if base is not object]
    return any(name in vars(base) for base in own for name in ("__getstate__", "__reduce__", "__reduce_ex__"))


def _refuse(owner: str, field: str, what: str, allowed: str = _ALLOWED) -> NoReturn:
    raise NotCarried(f"{owner}: {field}: {what} is not allowed in a pickle; expected {allowed}", field=field)


def _plain(value: Any) -> Any:
    """Return a value without what is only of this process: where a text came from, a mapping's class."""
    if isinstance(value, Sourced):
        return str(value)
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _named(value: Any) -> Dict[str, Any]:
    """Return by name what requests takes for headers or parameters: a mapping, pairs, or a query."""
    if isinstance(value, (str, bytes)):
        value = parse_qsl(value.decode("latin-1") if isinstance(value, bytes) else value)
    found: Dict[str, Any] = {}
    for name, content in value.items() if isinstance(value, Mapping) else value or ():
        found.setdefault(name.decode("latin-1") if isinstance(name, bytes) else str(name), []).append(content)
    return found


def _texts(value: Any) -> Iterable[str]:
    """Return the texts in a value: itself, or what it is a list of."""
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    return [value.decode("latin-1") if isinstance(value, bytes) else str(value)]
