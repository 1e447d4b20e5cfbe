"""A reply as a text that can be kept in a file and read back: all of it, with the story of the call behind it."""

from __future__ import annotations

import json
from typing import Optional

from ..events import AttemptRecord
from .reply import ApiReply, ChatReply


def stored(reply: ApiReply) -> str:
    """Write a reply down. It holds no key: neither what a provider says nor the ledger of attempts does."""
    return json.dumps(
        {
            "endpoint": reply.endpoint,
            "latency_ms": reply.latency_ms,
            "cost_usd": reply.cost_usd,
            "attempts": [attempt._asdict() for attempt in reply.attempts],
            "raw": reply.raw,
        },
        separators=(",", ":"),
    )


def restored(text: str) -> Optional[ChatReply]:
    """Read a reply back; None where the text is not what `stored` wrote."""
    try:
        told = json.loads(text)
        attempts = tuple(AttemptRecord(**attempt) for attempt in told.pop("attempts"))
        raw = told.pop("raw")
        return ChatReply(raw, attempts=attempts, **told) if isinstance(raw, dict) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
