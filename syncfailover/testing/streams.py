"""What a stream of completions looks like: each function takes a whole reply apart.

So a stream says exactly what the reply to the same request would say without ``"stream": true``.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, Dict, Iterable, Iterator, List, Mapping

from .sse import DONE, Event, Events
from .wire import json_bytes

_ARGUMENTS_PIECE = 8

Json = Dict[str, Any]


def tokens_of(text: str) -> List[str]:
    """Split a text before its spaces, as tokenizers like to; joined, the tokens are the text."""
    return re.findall(r" *[^ ]+| +", text)


def arguments_of(text: str) -> List[str]:
    """Split the arguments of a tool call, which have hardly a space, into pieces."""
    return [text[start : start + _ARGUMENTS_PIECE] for start in range(0, len(text), _ARGUMENTS_PIECE)]


def chat_events(reply: Json, asked: Mapping[str, Any]) -> Events:
    """Stream a chat completion: who speaks, the pieces of what is said, and why it ends; choices take turns."""

    def chunk(index: int, delta: Json, finish_reason: object = None) -> Json:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}

    choices = reply["choices"]
    opening = [chunk(choice["index"], _role(choice["message"])) for choice in choices]
    deltas = ([chunk(choice["index"], delta) for delta in _deltas(choice["message"])] for choice in choices)
    ends = [chunk(c["index"], {}, c["finish_reason"]) for c in choices if c["finish_reason"] is not None]
    return _events({**reply, "object": "chat.completion.chunk"}, asked, opening, _in_turn(deltas), ends)


def completion_events(reply: Json, asked: Mapping[str, Any]) -> Events:
    """Stream a legacy completion, which has nothing to say before its first token."""

    def chunk(index: int, text: str, finish_reason: object = None) -> Json:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}

    choices = reply["choices"]
    texts = ([chunk(choice["index"], token) for token in tokens_of(choice["text"])] for choice in choices)
    ends = [chunk(c["index"], "", c["finish_reason"]) for c in choices if c["finish_reason"] is not None]
    return _events(reply, asked, [], _in_turn(texts), ends)


def _events(
    reply: Json, asked: Mapping[str, Any], opening: List[Json], tokens: Iterable[Json], ends: List[Json]
) -> Events:
    """Put each choice into a chunk, and the usage, if it is asked for, into a last one without a choice."""
    options = asked.get("stream_options")
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    frame = {**reply, "usage": None}
    if not with_usage:
        del frame["usage"]

    def event(choice: Json) -> Event:
        return Event(json_bytes({**frame, "choices": [choice]}))

    usage = [Event(json_bytes({**reply, "choices": []}))] if with_usage else []
    return Events(
        [event(choice) for choice in opening],
        [event(choice) for choice in tokens],
        [*(event(choice) for choice in ends), *usage, DONE],
    )


def _in_turn(choices: Iterable[List[Json]]) -> Iterator[Json]:
    turns = itertools.zip_longest(*choices)
    return (chunk for turn in turns for chunk in turn if chunk is not None)


def _role(message: Mapping[str, Any]) -> Json:
    speaks = message.get("content") is not None
    return {"role": message.get("role", "assistant"), "content": "" if speaks else None}


def _deltas(message: Mapping[str, Any]) -> Iterator[Json]:
    """Cut a message, such as one with ``reasoning_content`` and ``tool_calls``, in the order of its fields."""
    for field, value in message.items():
        if field == "tool_calls":
            for index, call in enumerate(value or []):
                yield from _call_deltas(index, call)
        elif field != "role" and isinstance(value, str):
            yield from ({field: token} for token in tokens_of(value))
        elif field != "role" and value is not None:
            yield {field: value}


def _call_deltas(index: int, call: Mapping[str, Any]) -> Iterator[Json]:
    """Name the tool, and then say in pieces what it is called with."""
    kind = "custom" if "custom" in call else "function"
    said = "input" if kind == "custom" else "arguments"
    tool = call[kind]
    yield {"tool_calls": [{**call, "index": index, kind: {**tool, said: ""}}]}
    for piece in arguments_of(tool[said]):
        yield {"tool_calls": [{"index": index, kind: {said: piece}}]}
