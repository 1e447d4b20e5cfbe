"""What the openai package takes, or has, and we do not: what to do instead, for whoever writes it all the same.

Beside a payload every keyword is a field of it, so one of ours that is misspelt, and an option of the package's client,
would be sent to a provider, and a key to whichever endpoint is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Collection, FrozenSet, Iterable, Mapping, Optional, Set

from .errors import ConfigurationError
from .validation import reject

_AZURE = "providers.azure(...) makes an Endpoint of it"
#: Each endpoint has its own of these.
INSTEAD = {
    "admin_api_key": "nothing here administers an organization; use the openai package",
    "api_key": "give each Endpoint its own api_key=, which may be a callable",
    "api_version": "give the Endpoint params={'api-version': '...'}, as providers.azure(...) does",
    "azure_ad_token": "give the Endpoint api_key= and auth='bearer'",
    "azure_ad_token_provider": "give the Endpoint api_key=, which may be a callable, and auth='bearer'",
    "azure_deployment": _AZURE,
    "azure_endpoint": _AZURE,
    "base_url": "make an Endpoint for each base_url",
    "http_client": "give each Endpoint its own verify= and proxies=",
    "organization": "give the Endpoint headers={'OpenAI-Organization': '...'}",
    "project": "give the Endpoint headers={'OpenAI-Project': '...'}",
    "set_default_headers": "name the headers in default_headers=, with None for those to take back",
    "set_default_query": "name the parameters in default_query=, with None for those to take back",
    "webhook_secret": "nothing here receives webhooks; use the openai package",
    "websocket_base_url": "nothing here speaks over a websocket; make an Endpoint for each base_url",
}
#: What a call says in place of options that are for more than one.
_IN_A_CALL = {
    **INSTEAD,
    "ambiguous": "give the client max_retries=FailoverRetry(ambiguous=...)",
    "default_headers": "name them in extra_headers=, or for all calls in client.with_options(default_headers=...)",
    "default_query": "name them in extra_query=, or for all calls in client.with_options(default_query=...)",
    "headers": "name them in extra_headers=",
    "request_timeout": "give timeout=, seconds for the whole call",
    "set_default_headers": "name the headers in extra_headers=, with None for those to take back",
    "set_default_query": "name the parameters in extra_query=, with None for those to take back",
    **{
        field: f"give timeout=Timeouts({field}=...)"
        for field in ("connect", "first_token", "read", "stall", "total")
    },
}
_IN_A_CLIENT = {
    **INSTEAD,
    "default_headers": "name them in client.with_options(default_headers=...)",
    "default_query": "name them in client.with_options(default_query=...)",
}
#: Keywords that the calls take themselves.
OURS = (
    "model",
    "stream",
    "on_break",
    "wire_stream",
    "timeout",
    "affinity",
    "extra_headers",
    "extra_query",
    "extra_body",
)
#: How near a name must be to one of ours to be taken for it. No field of an API that we know of is, but OpenRouter's
#: `models`. (tests/api/test_keywords.py)
_NEAR = 0.8
#: Names that are fields of a payload for certain. Others are added when they were looked at, up to so many.
_FIELDS: Set[str] = {
    *(
        "input",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "messages",
        "mode",
        "metadata",
        "models",
        "n",
    ),
    *("parallel_tool_calls", "prompt", "reasoning", "reasoning_effort", "response_format", "seed", "stop"),
    *("store", "stream_options", "temperature", "text", "tool_choice", "tools", "top_p", "user"),
}
_MOST_FIELDS = 1000


# Keywords


def refused(name: str, ours: Collection[str], clients: Collection[str]) -> ConfigurationError:
    """Make the error for an option that `with_options` does not take.

    Args:
        name: the option.
        ours: those that it takes.
        clients: those that only a new client takes.

    """
    from .settings_keys import hint  # noqa: PLC0415 - only a mistake needs it

    if name in INSTEAD:
        told = f"with_options does not change it: {INSTEAD[name]}"
    elif name in clients:
        told = f"with_options does not change it: it is one of FailoverClient(..., {name}=...)"
    else:
        told = f"with_options does not know it; {hint(name, ours)}"
    return ConfigurationError(f"{name}: {told}", field=name)


def refused_by_client(name: str) -> Optional[ConfigurationError]:
    """Make the error for an option of the package's client, which ours does not take; None for any other name."""
    instead = _IN_A_CLIENT.get(name)
    if instead is None:
        return None
    return ConfigurationError(f"{name}: a client does not take it: {instead}", field=name)


def check_fields(payload: Mapping[str, Any]) -> None:
    """Refuse keywords of a call that are no field of its payload.

    Raises:
        ConfigurationError: an option of a client, of ours or of the package's, or a keyword of ours that is misspelt.

    """
    if _FIELDS.issuperset(payload):  # nearly always
        return
    for name in payload:
        if name not in _FIELDS:
            _check_field(name, payload)


def check_extra_body(names: Iterable[str]) -> None:
    """Refuse a key, wherever it is put.

    Raises:
        ConfigurationError: a field for a key.

    """
    for name in names:
        if _is_key(name):
            raise _not_taken(f"extra_body[{name!r}]", "api_key")


def _check_field(name: str, payload: Mapping[str, Any]) -> None:
    if _is_key(name) or name in _IN_A_CALL:
        raise _not_taken(name, name if name in _IN_A_CALL else "api_key")
    from difflib import get_close_matches  # noqa: PLC0415 - only a name that is new needs it, and the next

    from .settings_keys import OPTIONS  # noqa: PLC0415

    if name in OURS:
        raise ConfigurationError(f"{name}: this call does not take it", field=name)
    if name in OPTIONS:  # as a field of the payload it would guard nothing
        raise reject(name, payload[name], f"to be an option of the client: FailoverClient(..., {name}=...)")
    for nearest in get_close_matches(name.lower(), OURS, 1, _NEAR):
        meant = f"did you mean {nearest!r}? A field of the payload by that name goes into extra_body"
        raise ConfigurationError(f"{name}: is not known; {meant}", field=name)
    if len(_FIELDS) < _MOST_FIELDS:
        _FIELDS.add(name)


def _is_key(name: str) -> bool:
    """Tell whether a name is that of a key, however it is written."""
    return "apikey" in name.lower().replace("_", "").replace("-", "")


def _not_taken(field: str, name: str) -> ConfigurationError:
    """Make the error for an option that is for more than a call; it does not show the value, which may be a key."""
    return ConfigurationError(f"{field}: a call does not take it: {_IN_A_CALL[name]}", field=field)


# Calls

#: The package's other ways to make any call.
_WAYS = frozenset({"with_raw_response", "with_streaming_response"})


class Covered:
    """What has some of the package's calls; of the others it says where they are to be had."""

    #: How callers write it.
    _written: ClassVar[str]
    #: The names that it has in the package, and not here.
    _uncovered: ClassVar[FrozenSet[str]] = frozenset()

    if not TYPE_CHECKING:  # or no misspelt name would be found

        def __getattr__(self, name: str) -> Any:
            """Say where that is to be had which the package has; any other name is an `AttributeError` as ever."""
            if name not in _WAYS and name not in self._uncovered:
                return object.__getattribute__(self, name)
            raise AttributeError(
                f"{self._written}.{name} is not offered here: syncfailover.contrib.openai.failover_openai keeps all of"
                " the openai package; see docs/openai.md"
            )
