"""How far a stream is, as its events tell: whether content has come, whether it is whole, what broke it.

The rules:

1. Content is anything that was generated: text, reasoning, a tool call, a reason for the end. A role alone, an empty
   text, a comment or the result of a prompt filter is none.
2. A stream has *ended* when every choice that was asked for has said why it ended (`finish_reason`); what follows can only
   be usage. It is *whole* then, at `[DONE]`, and at the end of a body in which no choice is left open; but not if any
   event was an error, also where `[DONE]` follows it.
3. It is *over*, so that nothing more is waited for, at `[DONE]`, and when it has ended and an event without choices has
   brought the usage. Some servers send `finish_reason` and usage in every chunk, so neither alone says that; the reasons
   of a choice that goes on after one say nothing of its end.
4. What is no JSON object breaks it.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Callable, Dict, Mapping, Optional, Set, Type

from ..completion.sse import ServerSentEvent
from .error_body import FAILED_REASONS, error_in

#: The data of the event that ends a stream.
DONE = "[DONE]"


class Progress:
    """One stream's progress; `take` is given its events, in order.

    Args:
        choices: how many were asked for.

    """

    __slots__ = ("begun", "content", "detail", "ended", "error", "over", "usage", "whole")

    #: What a reply that is no stream holds; see `classify`.
    expects: str = "choices"

    def __init__(self, *, choices: int = 1) -> None:  # noqa: ARG002 - as its kinds
        #: Whether any content has come, and whether the last event brought some.
        self.begun = self.content = False
        self.ended = self.whole = self.over = False
        #: The usage that the stream reported; None so far.
        self.usage: Optional[Dict[str, Any]] = None
        #: The error that an event reported, as a JSON object; and in words what else broke the stream.
        self.error: Optional[Dict[str, Any]] = None
        self.detail = ""

    @property
    def broken(self) -> bool:
        """Whether an event broke the stream."""
        return self.error is not None or bool(self.detail)

    def take(self, event: ServerSentEvent) -> Optional[Dict[str, Any]]:
        """Return the JSON object that an event brings, None where it brings nothing to hand on."""
        self.content = False
        data = event.data
        if data == DONE or data.strip() == DONE:
            self._end()
            return None
        try:
            payload = json.loads(data)
        except (ValueError, RecursionError):
            self._odd(event)
            return None
        if type(payload) is not dict:
            self._odd(event, payload)
            return None
        error = _error_of(payload, event.event)
        if error is not None:
            self.error = error
            return None
        return payload if self._look(payload) else None

    def _look(self, payload: Dict[str, Any]) -> bool:
        """Learn from an event; tell whether it is one of the stream's own."""
        raise NotImplementedError

    def _end(self) -> None:
        self.over = True
        if self.begun:
            self.ended = self.whole = True
        elif not self.whole:
            self.error = {}

    def _odd(self, event: ServerSentEvent, payload: Any = None) -> None:
        """Take in what is no JSON object: nothing at all, an error in another shape, or garbage."""
        if error_in(payload) is not None:
            self.error = {"error": payload[0]["error"]}
        elif event.event == "error":
            self.error = {"error": payload if isinstance(payload, str) else event.data}
        elif event.data.strip():
            self.detail = "an event that is no JSON object"


def _error_of(payload: Dict[str, Any], name: str) -> Optional[Dict[str, Any]]:
    """Return the error that an event reports, under the key "error"; None where it reports none."""
    if payload.get("error"):
        return payload
    if name == "error" or payload.get("type") == "error" or payload.get("object") == "error":
        return {"error": payload}
    return None


class ChoicesProgress(Progress):
    """The stream of a chat, or of a text completion: chunks with choices."""

    __slots__ = ("_asked", "_closed", "_open", "_says_nothing")

    def __init__(self, *, choices: int = 1) -> None:
        super().__init__()
        self._asked = choices
        self._open: Set[int] = set()
        self._closed: Set[int] = set()
        #: Whether a choice went on after it had said why it ends: its reasons say nothing.
        self._says_nothing = False

    def _look(self, payload: Dict[str, Any]) -> bool:
        usage, choices = payload.get("usage"), payload.get("choices")
        if type(choices) is list and choices:
            for choice in choices:
                if type(choice) is dict:
                    self._look_at(choice)
        if type(usage) is dict and usage:
            self.usage = usage
            if not choices:
                payload["choices"] = []  # some leave them out
                self.over = self.whole and len(self._closed) >= self._asked
                return True
        return type(choices) is list

    def _look_at(self, choice: Dict[str, Any]) -> None:
        index, reason = choice.get("index"), choice.get("finish_reason")
        if type(index) is not int:
            index = 0
        if "message" in choice and "delta" not in choice and type(choice["message"]) is dict:
            choice["delta"] = choice.pop("message")  # some send a whole message in a chunk of its own
        if reason in FAILED_REASONS:
            self.error = {"error": choice.get("error") or {"message": f"finish_reason: {reason}"}}
        elif reason:  # some say "" for null
            self._says_nothing = self._says_nothing or (index in self._closed and _generated(choice))
            self.begun = self.content = True
            self._closed.add(index)
            self._open.discard(index)
            self.whole = not self._open
            self.ended = self.whole and len(self._closed) >= self._asked and not self._says_nothing
        elif _generated(choice):
            self.begun = self.content = True
            if index in self._closed:
                self._says_nothing, self.ended = True, False
            else:
                self._open.add(index)
                self.ended = self.whole = False


def _generated(choice: Dict[str, Any]) -> bool:
    """Tell whether a choice of a chunk holds anything that was generated."""
    delta = choice.get("delta")
    if type(delta) is not dict:
        return bool(choice.get("text"))
    for name, value in delta.items():  # noqa: SIM110 - quicker than any(), and it runs for every chunk
        if value and name != "role":
            return True
    return False


#: How an event of the responses API ends its stream, with an answer.
_ANSWERED = ("response.completed", "response.incomplete")
#: What a response says of itself that has no answer.
_UNANSWERED = ("failed", "cancelled")


class ResponsesProgress(Progress):
    """The stream of the responses API: typed events."""

    __slots__ = ()

    expects = "output"

    def _look(self, payload: Dict[str, Any]) -> bool:
        kind = payload.get("type")
        if not isinstance(kind, str):
            return False
        response: Any = payload.get("response")
        response = response if type(response) is dict else {}
        if kind == "response.failed" or (kind in _ANSWERED and response.get("status") in _UNANSWERED):
            self.error = {"error": response.get("error") or {"message": kind}}
            return False
        if kind in _ANSWERED:
            self.begun = self.content = self.ended = self.whole = self.over = True
            usage = response.get("usage")
            self.usage = usage if type(usage) is dict else None
        elif kind == "response.output_item.done" or (kind.endswith(".delta") and payload.get("delta")):
            self.begun = self.content = True
        return True


class AnyProgress(Progress):
    """A stream of a kind that is not known: any event is content, and any end is an end."""

    __slots__ = ()

    def _look(self, payload: Dict[str, Any]) -> bool:  # noqa: ARG002
        self.begun = self.content = self.whole = True
        return True


def progress_maker(kind: Type[Progress], payload: Mapping[str, Any]) -> Callable[[], Progress]:
    """Return what makes the progress of each attempt, by what the payload asks for.

    Args:
        kind: see `policy/paths.py`.
        payload: what asks for the stream.

    """
    choices, prompts = payload.get("n"), payload.get("prompt")
    asked = choices if type(choices) is int and choices > 0 else 1
    if isinstance(prompts, (list, tuple)) and not all(type(token) is int for token in prompts):
        asked *= len(prompts)  # a text completion goes on with each of them
    return partial(kind, choices=asked)
