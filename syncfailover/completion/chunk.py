"""One chunk of a streamed reply, readable as the openai package's chunks are."""

from __future__ import annotations

from typing import Any, Dict

from .reply import ApiObject

#: The fields of a message that are not generated piece by piece.
_WHOLE_ONLY = frozenset({"message"})


class StreamEvent(ApiObject):
    """One event of a stream; with `restarted` the first of a new answer, after the one before it broke."""

    __slots__ = ()

    @property
    def restarted(self) -> bool:
        """Whether everything before it is void, because the answer begins anew at another endpoint."""
        return bool(self._data.get("restarted", False))


class ChatChunk(StreamEvent):
    """A chunk of a chat, or of a text completion; `.text` is what it adds to the first choice's text."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """What it adds to the first choice's text; empty where it adds none."""
        choices = self._data.get("choices")
        if type(choices) is not list:
            return ""
        for choice in choices:
            if type(choice) is dict and not choice.get("index"):
                delta = choice.get("delta")
                text = delta.get("content") if type(delta) is dict else choice.get("text")
                return text if type(text) is str else ""
        return ""


def chunk_of(reply: Dict[str, Any]) -> Dict[str, Any]:
    """Return a whole chat as one chunk, for a provider that answers whole although it was asked for a stream."""
    choices = [
        {
            **{name: value for name, value in choice.items() if name not in _WHOLE_ONLY},
            "delta": _delta_of(choice.get("message")),
        }
        for choice in reply["choices"]
        if type(choice) is dict
    ]
    return {**reply, "object": "chat.completion.chunk", "choices": choices}


def _delta_of(message: Any) -> Dict[str, Any]:
    if type(message) is not dict:
        return {}
    calls = message.get("tool_calls")
    if type(calls) is not list:
        return message
    numbered = [{"index": n, **call} for n, call in enumerate(calls) if type(call) is dict]
    return {**message, "tool_calls": numbered}


def restart_chunk(like: Dict[str, Any]) -> Dict[str, Any]:
    """Return the chunk that says that the answer begins anew; `like` is the new answer's first one."""
    return _restart("chat.completion.chunk", {"delta": {}}, like)


def restart_text_chunk(like: Dict[str, Any]) -> Dict[str, Any]:
    """Return that chunk for a text completion."""
    return _restart("text_completion", {"text": ""}, like)


def _restart(kind: str, nothing: Dict[str, Any], like: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "id": like.get("id") or "",
        "object": kind,
        "created": like.get("created") or 0,
        "model": like.get("model") or "",
        "choices": [{"index": 0, **nothing, "logprobs": None, "finish_reason": None}],
        "restarted": True,
    }
