"""Presets: where a provider is, how it is probed, what it calls the models, what it costs, how it differs.

Every field can be overridden by keyword; `headers` and
`params` are added to the preset's own. A provider that serves only its own models is not asked for others.
"""

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from .endpoint import Endpoint
from .endpoint_fields import ANY_MODEL, ApiKey, Models
from .errors import ConfigurationError
from .validation import one_of, reject


class Preset(NamedTuple):
    """What is the same for every key of a provider; each field but the last is one of `Endpoint`."""

    base_url: str
    health_check_path: str = "models"
    #: Milliseconds; a hosted model list across an ocean is not degraded at 100.
    max_latency_ms: float = 1000.0
    models: Optional[Mapping[str, str]] = None
    prices: Optional[Mapping[str, float]] = None
    auth: str = "bearer"
    headers: Optional[Mapping[str, str]] = None
    params: Optional[Mapping[str, str]] = None
    call_path: Optional[str] = None
    fields: Optional[Sequence[str]] = None
    #: Whether it refuses everybody who has none.
    needs_key: bool = True


#: USD per million tokens, input and output alike, as the relay's public table had it. Public pages contradict one
#: another: pass `prices=` with what your contract says.
_HOLYSHEEP_PRICES: Dict[str, float] = {
    "gpt-4.1": 8.00,
    "gpt-4o": 5.00,
    "claude-sonnet-4.5": 15.00,
    "gemini-2.5-flash": 2.50,
    "deepseek-v3.2": 0.42,
}

#: Vendor and model, as OpenRouter writes them; a name that has its vendor already passes unchanged.
_OPENROUTER_MODELS: Dict[str, str] = {
    "gpt-*": "openai/gpt-*",
    "o1*": "openai/o1*",
    "o3*": "openai/o3*",
    "o4*": "openai/o4*",
    "claude-*": "anthropic/claude-*",
    "gemini-*": "google/gemini-*",
    "deepseek-*": "deepseek/deepseek-*",
    ANY_MODEL: ANY_MODEL,
}

#: What Gemini's OpenAI-compatible layer is documented to take. Any other field gets HTTP 400 "Unknown name": seen for
#: `frequency_penalty`, `seed`, `store`, `reasoning`, `top_k` and `web_search_options`.
_GEMINI_FIELDS = (
    "audio",
    "dimensions",
    "encoding_format",
    "extra_body",
    "max_completion_tokens",
    "max_tokens",
    "modalities",
    "n",
    "reasoning_effort",
    "response_format",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
)

PRESETS: Dict[str, Preset] = {
    "holysheep": Preset("https://api.holysheep.ai/v1", "/health", 100.0, prices=_HOLYSHEEP_PRICES),
    "openai": Preset("https://api.openai.com/v1"),
    "azure": Preset(
        "",  # each resource has its own
        auth="api-key",
        params={"api-version": "2024-10-21"},  # the latest that is no preview and has these paths
        call_path="deployments/{model}/{path}",
    ),
    "anthropic": Preset(
        "https://api.anthropic.com/v1",
        models={"claude-sonnet-4.5": "claude-sonnet-4-5", "claude-*": "claude-*"},
        auth="anthropic",
        headers={"anthropic-version": "2023-06-01"},  # the model list asks for it
    ),
    "gemini": Preset(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        models={"gemini-*": "gemini-*", "gemma-*": "gemma-*", "models/*": "models/*"},
        fields=_GEMINI_FIELDS,
    ),
    "deepseek": Preset("https://api.deepseek.com", models={"deepseek-*": "deepseek-*"}),
    "openrouter": Preset("https://openrouter.ai/api/v1", models=_OPENROUTER_MODELS),
    "vllm": Preset("http://localhost:8000/v1", "/health", 100.0, needs_key=False),
    "ollama": Preset("http://localhost:11434/v1", "/api/version", 100.0, needs_key=False),
    "llamacpp": Preset("http://localhost:8080/v1", "/health", 100.0, needs_key=False),
}


def holysheep(*keys: ApiKey, **overrides: Any) -> List[Endpoint]:
    """Return one endpoint per key of the HolySheep relay, `holysheep-1` first, weights falling to 1.

    Args:
        keys: at least one key.
        overrides: any keyword of `Endpoint`, for all of them.

    """
    return from_keys("holysheep", keys, **overrides)


def openai(key: ApiKey, **overrides: Any) -> Endpoint:
    """Return OpenAI itself as an endpoint; `overrides` is any keyword of `Endpoint`."""
    return _endpoint("openai", "openai", key, overrides)


def azure(
    key: ApiKey,
    resource: str,
    deployments: Models = None,
    *,
    api_version: Optional[str] = None,
    **overrides: Any,
) -> Endpoint:
    """Return a resource of Azure OpenAI as an endpoint.

    Args:
        key: sent as the header `api-key`. For a token of Microsoft Entra pass a callable, and `auth="bearer"`.
        resource: its name, or its URL, such as `https://my-resource.openai.azure.com`.
        deployments: maps the caller's model names to deployments. The name of one deployment, or a list, stands for
            deployments that are called as their models are. None takes every model's name for a deployment's.
        api_version: as in Azure's documentation, such as `2024-10-21`.
        overrides: any keyword of `Endpoint`.

    Raises:
        ConfigurationError: a `resource` that is neither, or a field that cannot work.

    """
    own: Dict[str, Any] = {"models": [deployments] if isinstance(deployments, str) else deployments}
    if "base_url" not in overrides:
        own["base_url"] = _azure_url(resource)
    if api_version is not None:
        own["params"] = {**(overrides.pop("params", None) or {}), "api-version": api_version}
    return _endpoint("azure", "azure", key, {**own, **overrides})


def anthropic(key: ApiKey, **overrides: Any) -> Endpoint:
    """Return Anthropic's OpenAI-compatible layer as an endpoint for Claude models.

    Anthropic means it for comparing models. It ignores some fields (`response_format`, `seed`, `logprobs`, ...), and
    takes the key as a bearer token for chat completions but as `x-api-key` for its model list.
    """
    return _endpoint("anthropic", "anthropic", key, overrides)


def gemini(key: ApiKey, **overrides: Any) -> Endpoint:
    """Return Gemini's OpenAI-compatible layer as an endpoint for Google's models.

    It refuses a call with a field that it does not know, so fields such as `seed`, `frequency_penalty`, `logprobs`,
    `store` and `user` are left out of what is sent there; `fields=None` sends everything.
    """
    return _endpoint("gemini", "gemini", key, overrides)


def deepseek(key: ApiKey, **overrides: Any) -> Endpoint:
    """Return DeepSeek itself as an endpoint for its own models, under the names of its model list."""
    return _endpoint("deepseek", "deepseek", key, overrides)


def openrouter(key: ApiKey, **overrides: Any) -> Endpoint:
    """Return OpenRouter as an endpoint, model names mapped to its own; `overrides` is any keyword of `Endpoint`."""
    return _endpoint("openrouter", "openrouter", key, overrides)


def vllm(base_url: Optional[str] = None, key: ApiKey = None, **overrides: Any) -> Endpoint:
    """Return a vLLM server as an endpoint; `base_url` is that of its API on this host by default."""
    return _self_hosted("vllm", base_url, key, overrides)


def ollama(base_url: Optional[str] = None, key: ApiKey = None, **overrides: Any) -> Endpoint:
    """Return an Ollama server as an endpoint; `base_url` is that of its OpenAI-compatible API on this host by default."""
    return _self_hosted("ollama", base_url, key, overrides)


def llamacpp(base_url: Optional[str] = None, key: ApiKey = None, **overrides: Any) -> Endpoint:
    """Return a llama.cpp server as an endpoint; `base_url` is that of its API on this host by default."""
    return _self_hosted("llamacpp", base_url, key, overrides)


def from_keys(provider: str, keys: Sequence[ApiKey], **overrides: Any) -> List[Endpoint]:
    """Return one endpoint per key of `provider`, named `provider-1`, ..., weights falling from len(keys) to 1.

    Raises:
        ConfigurationError: no key, or a provider without a preset.

    """
    one_of("provider", provider, PRESETS)
    if isinstance(keys, str) or not isinstance(keys, Sequence) or not keys:
        shown = f"a {type(keys).__name__}" if keys else keys  # it may hold keys
        raise reject("keys", shown, "a list with at least one key")
    weights = range(len(keys), 0, -1)
    return [
        _endpoint(provider, f"{provider}-{number}", key, {"weight": weight, **overrides})
        for number, (key, weight) in enumerate(zip(keys, weights), start=1)
    ]


def _self_hosted(
    provider: str, base_url: Optional[str], key: ApiKey, overrides: Mapping[str, Any]
) -> Endpoint:
    own = {} if base_url is None else {"base_url": base_url}
    return _endpoint(provider, provider, key, {**own, **overrides})


def _endpoint(provider: str, name: str, key: ApiKey, overrides: Mapping[str, Any]) -> Endpoint:
    preset = PRESETS[provider]
    keyless = "base_url" in overrides or overrides.get("auth") == "none" or not preset.needs_key
    if key is None and not keyless:
        raise reject("api_key", None, f"a key of {provider}; is the environment variable set?")
    if not preset.base_url and "base_url" not in overrides:
        raise reject("base_url", None, f"an address: each resource of {provider} has its own; {_AZURE_HINT}")
    fields: Dict[str, Any] = {"name": name, **preset._asdict(), "api_key": key, **overrides}
    del fields["needs_key"]
    for field in ("headers", "params"):
        fields[field] = _merged(getattr(preset, field), fields[field])
    return Endpoint(**fields)


def _merged(own: Optional[Mapping[str, str]], given: Any) -> Any:
    """Add the preset's to what was given, which has the last word, in whatever case its names are written."""
    if not own or given is own or not isinstance(given, Mapping):
        return own if given is None else given
    names = {str(name).lower() for name in given}
    return {**{name: value for name, value in own.items() if name.lower() not in names}, **given}


_AZURE_HINT = "for example 'https://my-resource.openai.azure.com/openai'"
_RESOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{1,63}")
_KEY = re.compile(r"[0-9a-fA-F]{32}")


def _azure_url(resource: Any) -> str:
    """Return the base URL of a resource, given by name or URL."""
    if isinstance(resource, str) and "://" in resource:
        url = resource.rstrip("/")
        return url if url.endswith("/openai") else url + "/openai"
    if isinstance(resource, str) and _RESOURCE.fullmatch(resource) and not _KEY.fullmatch(resource):
        return f"https://{resource}.openai.azure.com/openai"
    raise ConfigurationError(  # without the value: it may be the key, the arguments having changed places
        "resource: what was given is not allowed; expected a resource's name, such as 'my-resource', or its URL",
        field="resource",
    )
