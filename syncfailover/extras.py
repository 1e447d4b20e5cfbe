"""What a caller adds to one call beside its payload: headers, and query parameters.

They are sent to whichever endpoint is asked, so no key may be among them. What the endpoint has of its own wins.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple
from urllib.parse import urlencode

from .endpoint_fields import encodes
from .endpoint_fields import headers as checked_headers
from .errors import ConfigurationError
from .pickling import pack_named
from .runtime.target import Target
from .runtime.transport import EndpointTransport, worth_hiding

#: Headers that carry a credential: one that is right for an endpoint is wrong, and betrayed, at all others.
_CREDENTIALS = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "ocp-apim-subscription-key",
        "proxy-authorization",
        "x-api-key",
        "x-goog-api-key",
    }
)
#: Headers that belong to one connection or say how a body is packed; beside those that frame a message. (RFC 9110)
_OF_THE_WIRE = frozenset(
    {
        "accept-encoding",
        "content-encoding",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    }
)
#: What the openai package passes about for arguments that were not given.
_UNSET = frozenset({"NotGiven", "Omit"})


def is_unset(value: object) -> bool:
    """Tell whether a value is the openai package's own word for "not given"."""
    return type(value).__name__ in _UNSET


class Extras:
    """Headers and query parameters of a call, checked; the same for all its attempts."""

    __slots__ = ("_headers", "_query", "secrets")

    def __init__(self, headers: Dict[str, Tuple[str, str]], query: Dict[str, List[Tuple[str, str]]]) -> None:
        #: By the name in lower case.
        self._headers = headers
        #: By the name that the caller gave; a list or a mapping makes several parameters of it.
        self._query = query
        values = [value for _name, value in headers.values()]
        values += [word for value in values for word in value.split()]
        values += [value for pairs in query.values() for _name, value in pairs]
        #: What must not be shown of them.
        self.secrets = tuple(worth_hiding(*values))

    @classmethod
    def of(
        cls,
        headers: Any,
        query: Any,
        like: Optional[Extras] = None,
        fields: Tuple[str, str] = ("extra_headers", "extra_query"),
    ) -> Optional[Extras]:
        """Make them of what a caller passes; None where there are none.

        Args:
            headers: a mapping of names to texts; None in place of a text takes back one that `like` has.
            query: a mapping of names to texts, numbers, truth values, or lists and mappings of them; None likewise.
            like: those to which these are added.
            fields: what the two are called in an error.

        Raises:
            ConfigurationError: a header or a parameter that cannot, or must not, be sent.

        """
        all_headers = dict(like._headers) if like is not None else {}
        all_query = dict(like._query) if like is not None else {}
        given, taken_back = _split(fields[0], headers)
        for name in taken_back:
            all_headers.pop(name.lower(), None)
        for name, value in checked_headers(given, fields[0]).items():
            _check_name(fields[0], name)
            all_headers[name.lower()] = name, value
        given, taken_back = _split(fields[1], query)
        for name in taken_back:
            all_query.pop(name, None)
        for name, value in given.items():
            all_query[name] = list(_pairs(f"{fields[1]}[{name!r}]", name, value))
        return cls(all_headers, all_query) if all_headers or all_query else None

    def pack(self, *, include_keys: bool) -> Tuple[Any, ...]:
        """Return the arguments that make these anew, where none of them may be a secret.

        Raises:
            NotCarried: one is named like a credential, or looks like one.

        """
        named = dict(self._headers.values())
        pack_named("the client", "default_headers", named, include_keys=include_keys)
        for name, pairs in self._query.items():
            for written, value in [(name, ""), *pairs]:
                pack_named("the client", "default_query", {written: value}, include_keys=include_keys)
        return self._headers, self._query

    def content(self) -> List[Any]:
        """Return all of them as plain data, to compare by; in whatever order they were given."""
        return [sorted(self._headers.values()), sorted(self._query.items())]

    def headers_for(self, target: Target) -> Dict[str, str]:
        """Return the headers of a request to an endpoint."""
        own = {name.lower() for name in target.own}
        added = {lower: header for lower, header in self._headers.items() if lower not in own}
        kept = {name: value for name, value in target.headers.items() if name.lower() not in added}
        kept.update(added.values())
        return kept

    def query_for(self, transport: EndpointTransport) -> str:
        """Return the query of a request to an endpoint, encoded."""
        own = transport.endpoint.params
        pairs = [pair for name, several in self._query.items() if name not in own for pair in several]
        return "&".join(part for part in (transport.query, urlencode(pairs)) if part)


def _split(field: str, given: Any) -> Tuple[Dict[str, Any], List[str]]:
    """Return what is given, and the names of what is taken back."""
    if given is None or is_unset(given):
        return {}, []
    if not isinstance(given, Mapping):
        raise _refused(field, f"a {type(given).__name__}", "a mapping of names to values")
    for name in given:
        if not isinstance(name, str) or not name:
            raise _refused(field, f"the name {name!r}", "names that are texts")
    kept = {name: value for name, value in given.items() if value is not None and not is_unset(value)}
    return kept, [name for name in given if name not in kept]


def _check_name(field: str, name: str) -> None:
    lower = name.lower()
    if lower in _CREDENTIALS:
        raise _refused(
            f"{field}[{name!r}]",
            "a header that carries a key",
            "one that every endpoint may see; a key belongs to its Endpoint(..., api_key=) or (..., headers=)",
        )
    if lower in _OF_THE_WIRE:
        raise _refused(
            f"{field}[{name!r}]", "a header that belongs to the connection or its encoding", "another header"
        )


def _pairs(field: str, name: str, value: Any) -> Iterator[Tuple[str, str]]:
    """Write a parameter as the openai package does: a list repeats the name, a mapping puts brackets behind it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _pairs(field, f"{name}[{key}]", item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _pairs(field, name, item)
    elif isinstance(value, (str, int, float)):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not encodes(name + text, "utf-8"):
            raise _refused(field, "a lone surrogate", "text that can be encoded")
        yield name, text
    elif value is not None:
        allowed = "a text, a number, True, False, or a list or mapping of them"
        raise _refused(field, f"a {type(value).__name__}", allowed)


def _refused(field: str, what: str, allowed: str) -> ConfigurationError:
    """Make an error that does not show the value, which may be a secret."""
    return ConfigurationError(f"{field}: {what} is not allowed; expected {allowed}", field=field)
