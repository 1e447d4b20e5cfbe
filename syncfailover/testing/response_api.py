"""OpenAI's Responses API: its reply, and the same reply as a stream of typed events."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping

from .sse import Event, Events
from .streams import arguments_of, tokens_of
from .wire import json_bytes

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}

Json = Dict[str, Any]


def response_from(completion: Mapping[str, Any]) -> Json:
    """Say what a chat completion says, as a Response; with no ``finish_reason`` it is not finished."""
    (choice, *_) = completion["choices"]
    number = completion["id"].rpartition("-")[2]
    reason = choice["finish_reason"]
    why = _INCOMPLETE.get(reason)
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": completion["created"],
        "status": "in_progress" if reason is None else "incomplete" if why else "completed",
        "error": None,
        "incomplete_details": {"reason": why} if why else None,
        "instructions": None,
        "metadata": {},
        "model": completion["model"],
        "output": list(_output(number, choice["message"])),
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": _usage(completion["usage"]),
    }


def response_events(reply: Json, _asked: Mapping[str, Any]) -> Events:
    """Stream a Response: begun, each piece of each item of its output, and the whole of it once more."""
    begun = {**reply, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    bare: List[Json] = [
        {"type": f"response.{what}", "response": begun} for what in ("created", "in_progress")
    ]
    for index, item in enumerate(reply["output"]):
        bare.extend(_item_events(index, item))
    if reply["status"] != "in_progress":
        bare.append({"type": f"response.{reply['status']}", "response": reply})
    events = [
        Event(json_bytes({**event, "sequence_number": number}), event["type"])
        for number, event in enumerate(bare)
    ]
    deltas = [number for number, event in enumerate(bare) if event["type"].endswith(".delta")]
    first, end = (deltas[0], deltas[-1] + 1) if deltas else (2, 2)
    return Events(events[:first], events[first:end], events[end:])


def _output(number: str, message: Mapping[str, Any]) -> Iterator[Json]:
    if message.get("content") is not None:
        yield {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [_part(message["content"])],
        }
    calls = (call for call in message.get("tool_calls") or [] if "function" in call)
    for index, call in enumerate(calls):
        yield {
            "id": f"fc_{number}_{index}",
            "type": "function_call",
            "status": "completed",
            "call_id": call["id"],
            **call["function"],  # name and arguments
        }


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item_events(index: int, item: Json) -> Iterator[Json]:
    begun: Json = {"content": []} if item["type"] == "message" else {"arguments": ""}
    yield {
        "type": "response.output_item.added",
        "output_index": index,
        "item": {**item, **begun, "status": "in_progress"},
    }
    place = {"item_id": item["id"], "output_index": index}
    yield from _text_events(item, place) if item["type"] == "message" else _call_events(item, place)
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _text_events(item: Json, place: Json) -> Iterator[Json]:
    (part,) = item["content"]
    place = {**place, "content_index": 0}
    yield {"type": "response.content_part.added", **place, "part": _part("")}
    for token in tokens_of(part["text"]):
        yield {"type": "response.output_text.delta", **place, "delta": token, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}


def _call_events(item: Json, place: Json) -> Iterator[Json]:
    for piece in arguments_of(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
    yield {
        "type": "response.function_call_arguments.done",
        **place,
        "name": item["name"],
        "arguments": item["arguments"],
    }


def _usage(usage: Mapping[str, Any]) -> Json:
    """Rename the counts of a chat completion; others are somebody's own."""
    if "prompt_tokens" not in usage:
        return dict(usage)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **_details(usage, "prompt")},
        "output_tokens": usage.get("completion_tokens", 0),
        "output_tokens_details": {"reasoning_tokens": 0, **_details(usage, "completion")},
        "total_tokens": usage.get("total_tokens", 0),
    }


def _details(usage: Mapping[str, Any], of: str) -> Mapping[str, Any]:
    return usage.get(f"{of}_tokens_details") or {}
