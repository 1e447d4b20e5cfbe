"""What an endpoint's fields may hold; a value that may be a secret is never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, Iterable, Mapping, Optional, Tuple, Union
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .validation import integer, reject, text

ApiKey = Union[str, Callable[[], str], None]
Models = Union[Mapping[str, str], Iterable[str], None]

#: At the end of a name in a model map, stands for the rest of the caller's name; alone, for every name not listed.
ANY_MODEL = "*"
#: Payload fields that no endpoint can do without.
_ALWAYS_SENT = frozenset({"input", "messages", "model", "prompt"})

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
#: Headers that say what a message is, where it ends or goes; with a second one two servers may disagree about it.
_FRAMING = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})
#: Characters; RFC 1035 allows more, but what is longer and has no scheme is rather a key.
_LONGEST_HOST = 80
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_DEFAULT_PORTS = {"http": 80, "https": 443}


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


def api_key(value: ApiKey) -> ApiKey:
    """Accept a key that can be sent, a callable that will return one, or None."""
    return value if value is None or callable(value) else checked_key(value)


def name(value: str) -> str:
    """Accept a name that fits on one line."""
    if not text("name", value).isprintable():
        raise reject("name", value, "printable characters")
    return value


def base_url(value: str, field: str = "base_url") -> str:
    """Accept an http or https URL without credentials, query or fragment; a trailing slash is dropped."""
    allowed = "a URL like 'https://api.example.com/v1'"
    if not isinstance(value, str):
        raise reject(field, value, allowed)
    if "://" not in value and (len(value) > _LONGEST_HOST or not set(value) & set(".:/")) and value:
        # it may be a key, the arguments having changed places
        raise _secret(field, f"a text of {len(value)} characters without ://", allowed)
    shown = _redacted(value)
    if "@" in value.split("://", 1)[-1].split("/", 1)[0]:
        raise reject(field, shown, "no credentials in it; use api_key or headers")
    if any(c in value for c in "?#%\\") or any(c.isspace() or not c.isprintable() for c in value):
        raise reject(field, shown, "no query, fragment, escape or white space; use params for a query")
    if not _is_url(value, _DEFAULT_PORTS) or ".." in (urlsplit(value).hostname or ""):
        raise reject(field, shown, allowed + ", with scheme http or https, a host and a port from 1 to 65535")
    if value.rstrip("/").endswith("/chat/completions"):
        raise reject(field, shown, "the root of the API, without /chat/completions")
    return value.rstrip("/")


def _redacted(url: str) -> str:
    """Cut from a URL what may be a secret: credentials, query and fragment."""
    head, at, tail = url.rpartition("@")
    if "?" in head or "#" in head:
        return "..."  # an @ in the query, or a ? in the password: no part of it is surely harmless
    return ("...@" + tail if at else url).split("?", 1)[0].split("#", 1)[0]


def path(value: str) -> str:
    """Accept a path, from the root or relative."""
    if (
        not isinstance(value, str)
        or not value.strip("/")
        or any(c.isspace() for c in value)
        or "://" in value
    ):
        raise reject("health_check_path", value, "a path like '/health' or 'models'")
    return value


def model_map(models: Models) -> Optional[Dict[str, str]]:
    """Accept a map of names, or a list of names that maps each to itself."""
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
        repeats = theirs == ANY_MODEL or ours.endswith(ANY_MODEL)
        if ANY_MODEL in ours[:-1] or ANY_MODEL in (theirs[:-1] if repeats else theirs):
            raise reject("models", {ours: theirs}, "a * only at the end, as in {'gpt-*': 'openai/gpt-*'}")
    return table


def model_patterns(models: Optional[Mapping[str, str]]) -> Tuple[Tuple[str, str], ...]:
    """Return the map's patterns without their star, longest first: the closest one counts."""
    found = [(ours[:-1], theirs) for ours, theirs in (models or {}).items() if ours.endswith(ANY_MODEL)]
    return tuple(sorted(found, key=lambda pattern: -len(pattern[0])))


def call_path(value: Optional[str]) -> Optional[str]:
    """Accept a template for the paths of calls that name a model, or None."""
    if value is None:
        return None
    if (
        not isinstance(value, str)
        or not value.endswith("{path}")
        or value.startswith("/")
        or set(value.replace("{model}", "").replace("{path}", "", 1)) & set("{}?#%\\ \t\r\n")
        or not value.isprintable()
    ):
        raise reject("call_path", value, "a relative path like 'deployments/{model}/{path}', or None")
    return value


def payload_fields(value: Any) -> Optional[FrozenSet[str]]:
    """Accept the names of payload fields, to which those that are always sent are added; or None for all."""
    if value is None:
        return None
    allowed = "a list of the payload's fields, such as ['messages', 'temperature'], or None for all"
    if isinstance(value, (str, bytes, Mapping)):
        raise reject("fields", value, allowed)
    try:
        names = list(value)
    except TypeError:
        raise reject("fields", value, allowed) from None
    if not names:
        raise reject("fields", names, allowed)
    return _ALWAYS_SENT.union(text("fields", name) for name in names)


def windows(value: Union[int, Mapping[str, int], None]) -> Dict[str, int]:
    """Accept a number of tokens for all models, or one for each."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        named = ((text("context_window", model), n) for model, n in value.items())
        return {model: integer(f"context_window[{model!r}]", n, minimum=1) for model, n in named}
    return {ANY_MODEL: integer("context_window", value, minimum=1)}


def headers(value: Optional[Mapping[str, str]], where: str = "headers") -> Dict[str, str]:
    """Accept headers that can be sent, each once, but for those that frame a message."""
    found = _strings(where, value)
    seen = set()
    for name, content in found.items():
        field, lower = f"{where}[{name!r}]", name.lower()
        if not name or not set(name) <= _TOKEN:
            raise _secret(field, "the name", "letters, digits and !#$%&'*+-.^_`|~ (RFC 9110)")
        if lower in _FRAMING or lower in seen:
            raise _secret(field, "a header that frames the message, or one given twice,", "another header")
        if any(c in content for c in "\r\n\0") or not encodes(content, "latin-1"):
            raise _secret(
                field, "a value with a line break, NUL or characters beyond latin-1", "a header fit to send"
            )
        seen.add(lower)
    return found


def params(value: Optional[Mapping[str, str]]) -> Dict[str, str]:
    """Accept query parameters."""
    found = _strings("params", value)
    for name, content in found.items():
        if not encodes(name + content, "utf-8"):
            raise _secret(f"params[{name!r}]", "a lone surrogate", "text that can be encoded")
    return found


def proxies(value: Optional[Mapping[str, str]]) -> Optional[Dict[str, str]]:
    """Accept proxies by scheme, or None for the environment's; the URLs may hold passwords and are not shown."""
    if value is None:
        return None
    found = _strings("proxies", value)
    for scheme, url in found.items():
        field = f"proxies[{scheme!r}]"
        if scheme.split("://")[0] not in ("http", "https", "all", "no"):
            raise _secret(field, "the name", "'http', 'https', 'all' or 'no', as in requests")
        if scheme != "no" and not _is_url(url if "://" in url else "http://" + url, _PROXY_SCHEMES):
            raise _secret(
                field, "a URL without scheme http, https or socks, or without host", "a proxy's URL"
            )
    return found


def encodes(content: str, encoding: str) -> bool:
    """Tell whether a text can be written in an encoding: lone surrogates cannot in any."""
    try:
        content.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _is_url(url: str, schemes: Iterable[str]) -> bool:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        return parts.scheme.lower() in schemes and bool(host.strip(b".")) and parts.port != 0
    except ValueError:  # a bad port, brackets, or a name that cannot be one
        return False


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


def verify(value: Union[bool, str]) -> Union[bool, str]:
    """Accept True, False, or the path of a CA bundle."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value or not Path(value).exists():
        raise reject("verify", value, "True, False, or the path of an existing CA bundle")
    return value
