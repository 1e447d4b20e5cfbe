"""What a reply cost, from its usage and the endpoint's prices. Unknown is None, never 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional

if TYPE_CHECKING:
    from decimal import Decimal

    from ..price import Price

#: Tokens; no reply has more.
_MOST = 10**12
#: How usage names what went in and what came out: in chats, completions and embeddings, and in the responses API.
_NAMES, _RESPONSES_NAMES = ("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")


def cost_usd(usage: Any, price: Optional[Price]) -> Optional[Decimal]:
    """Return USD for one reply; None where price or usage is unknown.

    (prompt - cached) * input + cached * cached_input + completion * output, per million tokens; `prompt_tokens`
    includes the cached ones, `completion_tokens` includes reasoning.

    Args:
        usage: the reply's `usage`, as JSON, in OpenAI's shape.
        price: of the model at the endpoint that answered.

    """
    if price is None or type(usage) is not dict:
        return None
    prompt_field, completion_field = _NAMES if "prompt_tokens" in usage else _RESPONSES_NAMES
    prompt = _tokens(usage, prompt_field)
    absent = usage.get(completion_field) is None  # embeddings have none
    completion = 0 if absent else _tokens(usage, completion_field)
    if prompt is None or completion is None:
        return None
    details = usage.get(f"{prompt_field}_details")
    cached = (_tokens(details, "cached_tokens") or 0) if type(details) is dict else 0
    cached = min(cached, prompt)
    return price.usd(prompt - cached, completion, cached)


def tokens_of(usage: Any) -> int:
    """Return how many tokens a reply says it used in all; 0 where it does not say."""
    return (_tokens(usage, "total_tokens") or 0) if type(usage) is dict else 0


def _tokens(usage: Mapping[str, Any], field: str) -> Optional[int]:
    value = usage.get(field)
    return value if type(value) is int and 0 <= value <= _MOST else None
