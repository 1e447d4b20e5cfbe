"""Presets: where a provider is, how it is probed, what it calls the models, what it costs.

Facts and their sources are gathered in the design notes; every field can be overridden by keyword.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from .endpoint import Endpoint
from .endpoint_fields import ANY_MODEL, ApiKey
from .validation import one_of, reject


class Preset(NamedTuple):
    """What is the same for every key of a provider."""

    base_url: str
    #: See `Endpoint.health_check_path`.
    health_check_path: str
    #: Milliseconds; a hosted model list across an ocean is not degraded at 100.
    max_latency_ms: float
    models: Optional[Mapping[str, str]] = None
    prices: Optional[Mapping[str, float]] = None


#: USD per million tokens, input and output alike, as the relay's public table had it. Public pages contradict one
#: another: pass `prices=` with what your contract says.
_HOLYSHEEP_PRICES: Dict[str, float] = {
    "gpt-4.1": 8.00,
    "gpt-4o": 5.00,
    "claude-sonnet-4.5": 15.00,
    "gemini-2.5-flash": 2.50,
    "deepseek-v3.2": 0.42,
}

_OPENROUTER_MODELS: Dict[str, str] = {
    "gpt-4.1": "openai/gpt-4.1",
    "gpt-4o": "openai/gpt-4o",
    "claude-sonnet-4.5": "anthropic/claude-sonnet-4.5",
    "gemini-2.5-flash": "google/gemini-2.5-flash",
    "deepseek-v3.2": "deepseek/deepseek-v3.2",
    ANY_MODEL: ANY_MODEL,
}

PRESETS: Dict[str, Preset] = {
    "holysheep": Preset("https://api.holysheep.ai/v1", "/health", 100.0, prices=_HOLYSHEEP_PRICES),
    "openai": Preset("https://api.openai.com/v1", "models", 1000.0),
    "openrouter": Preset("https://openrouter.ai/api/v1", "models", 1000.0, models=_OPENROUTER_MODELS),
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


def openrouter(key: ApiKey, **overrides: Any) -> Endpoint:
    """Return OpenRouter as an endpoint, model names mapped to its own; `overrides` is any keyword of `Endpoint`."""
    return _endpoint("openrouter", "openrouter", key, overrides)


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


def _endpoint(provider: str, name: str, key: ApiKey, overrides: Mapping[str, Any]) -> Endpoint:
    if key is None and "base_url" not in overrides and overrides.get("auth") != "none":
        raise reject("api_key", None, f"a key of {provider}; is the environment variable set?")
    fields: Dict[str, Any] = {"name": name, **PRESETS[provider]._asdict(), "api_key": key, **overrides}
    return Endpoint(**fields)
