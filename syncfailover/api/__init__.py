"""The parts of a client that callers of the OpenAI API know; docs/openai.md lists them exactly."""

from __future__ import annotations

from .chat import Chat, ChatCompletions, ChatStream
from .embeddings import Embeddings
from .models import Models
from .responses import Responses, ResponseStream
from .text import Completions, TextStream

__all__ = [
    "Chat",
    "ChatCompletions",
    "ChatStream",
    "Completions",
    "Embeddings",
    "Models",
    "ResponseStream",
    "Responses",
    "TextStream",
]
