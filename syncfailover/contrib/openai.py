"""The openai package over the failover loop: every call and type of it stays, and calls that would fail go elsewhere."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Iterable, Tuple, Union

from ..errors import ConfigurationError, DeadlineExceeded, FailoverError
from ..openai_options import INSTEAD
from ..validation import reject
from .httpx import FailoverTransport

if TYPE_CHECKING:
    import openai

    from ..client import FailoverClient
    from ..endpoint import Endpoint
    from ..runtime.registry import Registry

#: Versions that the tests have seen work: from the first, up to and without the second.
_OLDEST, _BEYOND = (1, 55, 3), (4, 0, 0)
#: It is never sent; each endpoint has its own key, or none.
_NO_KEY = "each-endpoint-has-its-own"
#: What each endpoint has of its own, and what else the package calls it; there, what to do instead.
_OURS = {name: INSTEAD[name] for name in ("api_key", "base_url", "http_client", "organization", "project")}
_OURS.update(dict.fromkeys(("admin_api_key", "workload_identity"), INSTEAD["api_key"]))
_OURS.update(dict.fromkeys(("data_residency", "provider"), INSTEAD["base_url"]))
#: What to do about a version that is none of them.
_GET_IT = (
    f"install the openai package (>={'.'.join(map(str, _OLDEST))},<{_BEYOND[0]}), "
    "for example with the extra `openai` of syncfailover"
)


def failover_openai(
    client_or_endpoints: Union[FailoverClient, Iterable[Endpoint], Registry], **openai_kwargs: Any
) -> openai.OpenAI:
    """Return an `openai.OpenAI` that asks whichever endpoint can answer.

        client = failover_openai([Endpoint("a", url_a, key_a), Endpoint("b", url_b, key_b)])
        client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "Hello"}])

    Its `close()` leaves a `FailoverClient` that was passed in open. The package's own retries are off: how often a call
    is tried, and for how long, is said by the `FailoverClient`; a `timeout` here, or in a call, is the whole call's.

    Args:
        client_or_endpoints: a `FailoverClient`, whose breakers, health and counters are shared; or endpoints, or an
            `EndpointRegistry`.
        openai_kwargs: as for `openai.OpenAI`: `timeout`, `default_headers`, ...; what each endpoint has of its own
            (`api_key`, `base_url`, `organization`, ...) is refused.

    Raises:
        ConfigurationError: the openai package is missing or of a version that was not tested, or an argument that
            cannot work.

    """
    sdk = _openai()
    _check(sdk, openai_kwargs)
    transport = _OpenAITransport(client_or_endpoints)
    openai_kwargs.setdefault("timeout", transport.client._caller.terms.timeouts.total)
    openai_kwargs["max_retries"] = 0
    made: openai.OpenAI = sdk.OpenAI(
        api_key=_NO_KEY,
        base_url=transport.prefix,
        http_client=sdk.DefaultHttpxClient(transport=transport),
        **openai_kwargs,
    )
    return made


class _OpenAITransport(FailoverTransport):
    """The httpx door, which tells of broken streams in the words of the openai package."""

    def beyond(self, url: str) -> ConfigurationError:
        """Make the error for a client whose `base_url` was changed."""
        message = f"url: {url} is asked for, but {INSTEAD['base_url']}"
        return ConfigurationError(message, field="url", value=url)

    def interruption(self, lib: Any, request: Any, error: FailoverError) -> Exception:  # noqa: ARG002
        """Make an error that no version of the package wraps, or takes for one of its caller's."""
        sdk = _openai()
        if isinstance(error, DeadlineExceeded):
            late: Exception = sdk.APITimeoutError(request)
            return late
        broken: Exception = sdk.APIConnectionError(message=str(error), request=request)
        return broken


def _openai() -> Any:
    try:
        import openai  # noqa: PLC0415 - an extra, wanted only by who calls this
    except ImportError as error:
        message = f"openai: cannot be imported ({error}); {_GET_IT}"
        raise ConfigurationError(message, field="openai") from error
    return openai


def _check(sdk: Any, kwargs: Any) -> None:
    """Refuse a version that was not tested, and arguments that would be lost or would undo what this is for."""
    if not _OLDEST <= _numbers(sdk.__version__) < _BEYOND:
        allowed = f"a version from {'.'.join(map(str, _OLDEST))} to below {_BEYOND[0]}"
        raise reject("openai", sdk.__version__, f"{allowed}; {_GET_IT}")
    for name, told in _OURS.items():
        if name in kwargs:  # the value may be a key
            message = f"{name}: is not for the openai package here: {told}"
            raise ConfigurationError(message, field=name)
    if kwargs.get("max_retries", 0) != 0:
        allowed = (
            "0: its retries are off, for calls go elsewhere instead; see FailoverClient(..., max_retries=)"
        )
        raise reject("max_retries", kwargs["max_retries"], allowed)
    known = inspect.signature(sdk.OpenAI.__init__).parameters
    for name in kwargs:
        if name not in known:
            told = INSTEAD.get(name) or f"options of failover are the client's: FailoverClient(..., {name}=)"
            raise ConfigurationError(f"{name}: is not an argument of openai.OpenAI; {told}", field=name)


def _numbers(version: str) -> Tuple[int, ...]:
    """Return the numbers that a version begins with."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()
