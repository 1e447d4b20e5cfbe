"""The chunks of a stream, put together into the reply that the provider would have sent without streaming."""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional

from .parts import (
    Content,
    First,
    Ignored,
    Items,
    Kinds,
    Last,
    Number,
    Objects,
    Pieces,
    Text,
    integer,
    string,
)
from .rope import Rope
from .tool_calls import Function, ToolCalls

#: Choices of a higher index are ignored; OpenAI's `n` ends here.
MAX_CHOICES = 128

#: Fields of a chunk that a reply does not have or that are written here: OpenAI's `obfuscation` is padding.
_NOT_KEPT = frozenset({"choices", "created", "id", "model", "object", "obfuscation", "restarted", "usage"})

#: Fields of a chunk that are strings or nothing.
_STRINGS = frozenset({"service_tier", "system_fingerprint"})

#: With any of these, or a refusal, a message without text has the content null.
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "audio")


class _Audio(Pieces):
    """A message's audio; `data` is base64 text."""

    __slots__ = ()
    kinds: ClassVar[Kinds] = {"id": First, "data": Text, "expires_at": Number, "transcript": Text}
    defaults: ClassVar[Mapping[str, Any]] = {"id": "", "data": "", "expires_at": 0, "transcript": ""}


class _Message(Pieces):
    """A message, put together out of deltas; its text is kept in the given rope."""

    __slots__ = ()
    kinds: ClassVar[Kinds] = {
        "annotations": Objects,
        "audio": _Audio,
        "function_call": Function,
        "reasoning": Text,  # OpenRouter, Groq, newer vLLM
        "reasoning_content": Text,  # DeepSeek, vLLM
        "reasoning_details": Objects,  # OpenRouter
        "refusal": Text,
        "role": First,
        "thinking": Text,  # gateways to Anthropic
        "tool_calls": ToolCalls,
    }

    def __init__(self, rope: Rope) -> None:
        super().__init__()
        self.parts["content"] = Content(rope)

    def whole(self) -> Dict[str, Any]:
        """Return the message."""
        said = super().whole() or {}
        content, refusal = said.pop("content"), said.pop("refusal", None) or None
        if not content and (refusal or any(name in said for name in _INSTEAD_OF_CONTENT)):
            content = None
        return {"role": "assistant", "content": content, "refusal": refusal, **said}


class _ChatLogprobs(Pieces):
    """The logprobs of a message."""

    __slots__ = ()
    kinds: ClassVar[Kinds] = {"content": Objects, "refusal": Objects}
    defaults: ClassVar[Mapping[str, Any]] = {"content": None, "refusal": None}


class _TextLogprobs(Pieces):
    """The logprobs of a text."""

    __slots__ = ()
    kinds: ClassVar[Kinds] = {
        "text_offset": Items,
        "token_logprobs": Items,
        "tokens": Items,
        "top_logprobs": Items,
    }


class _ChatChoice(Pieces):
    """A choice whose message comes in deltas."""

    __slots__ = ()
    kinds: ClassVar[Kinds] = {"finish_reason": Last, "index": Ignored, "logprobs": _ChatLogprobs}
    defaults: ClassVar[Mapping[str, Any]] = {"finish_reason": "stop", "logprobs": None}

    def __init__(self, rope: Rope) -> None:
        super().__init__()
        self.parts["delta"] = _Message(rope)

    def whole(self) -> Dict[str, Any]:
        """Return the choice."""
        said = super().whole() or {}
        message = said.pop("delta")
        return {**said, "message": message}


class _TextChoice(Pieces):
    """A choice of the older kind: `text` in pieces."""

    __slots__ = ()
    kinds: ClassVar[Kinds] = {"finish_reason": Last, "index": Ignored, "logprobs": _TextLogprobs}
    defaults: ClassVar[Mapping[str, Any]] = {"finish_reason": "stop", "logprobs": None}

    def __init__(self, rope: Rope) -> None:
        super().__init__()
        self.parts["text"] = Text(rope)


class _Assembly:
    """What both kinds of stream have in common."""

    __slots__ = ("_choices", "_fields", "_kind", "_new_choice", "_rope", "usage")

    def __init__(self, kind: str, choice: Callable[[Rope], Pieces]) -> None:
        #: The latest usage; with OpenAI, in the last chunk if the request asks for it.
        self.usage: Optional[Dict[str, Any]] = None
        self._kind = kind
        self._new_choice = choice
        self._fields: Dict[str, Any] = {}
        self._choices: Dict[int, Pieces] = {}
        self._rope = Rope()  # the text of choice 0

    @property
    def text(self) -> str:
        """The text of choice 0 so far."""
        return self._rope.text

    def add(self, chunk: Dict[str, Any]) -> None:
        """Take in the next chunk: any JSON object; what is strange in it is left out."""
        fields = self._fields
        for name, value in chunk.items():
            # Emptiness replaces nothing: Azure's first and last chunks have the id "" and the time 0.
            if value or (value is not None and not fields.get(name)):
                fields[name] = value
        usage = chunk.get("usage")
        if usage and type(usage) is dict:
            self.usage = usage
        self._add_choices(chunk.get("choices"))

    def whole(self) -> Dict[str, Any]:
        """Return the reply so far, the whole one at the end of the stream."""
        fields = self._fields
        reply = {
            "id": string(fields.get("id")),
            "object": self._kind,
            "created": integer(fields.get("created")),
            "model": string(fields.get("model")),
            "choices": self._whole_choices(),
        }
        if self.usage is not None:
            reply["usage"] = self.usage
        reply.update((name, value) for name, value in fields.items() if _kept(name, value))
        return reply

    def _add_choices(self, choices: Any) -> None:
        if type(choices) is not list:
            return
        for position, choice in enumerate(choices):
            if type(choice) is dict:
                index = choice.get("index")
                index = position if index is None else index
                if type(index) is int and 0 <= index < MAX_CHOICES:
                    self._at(index).add(choice)

    def _at(self, index: int) -> Pieces:
        if index not in self._choices:
            self._choices[index] = self._new_choice(Rope() if index else self._rope)
        return self._choices[index]

    def _whole_choices(self) -> List[Dict[str, Any]]:
        choices = dict(self._choices)
        if 0 not in choices and (self._rope or not choices):
            choices[0] = self._new_choice(self._rope)
        return [{"index": index, **(choices[index].whole() or {})} for index in sorted(choices)]


class ChatAssembly(_Assembly):
    """Chunks of a chat (`chat.completion.chunk`), put together into a `chat.completion`.

    The reply is as valid by OpenAI's schema as the provider is: `finish_reason` and `role` are what it said, "stop" and
    "assistant" where it said nothing. Fields that OpenAI does not know stay: lists in deltas grow, of others the last
    counts. Values deeper than that are the chunks' own, not copies.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("chat.completion", _ChatChoice)

    def _add_choices(self, choices: Any) -> None:
        token = _lone_token(choices)
        if token is None:
            super()._add_choices(choices)
        else:
            self._rope.append(token)


class TextAssembly(_Assembly):
    """Chunks of the older `/completions`, put together into a `text_completion`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("text_completion", _TextChoice)


def _kept(name: str, value: Any) -> bool:
    return name not in _NOT_KEPT and (type(value) is str or name not in _STRINGS)


def _lone_token(choices: Any) -> Optional[str]:
    """Return what choice 0 says if it says some text and nothing else, as nearly every chunk of a stream does.

    This is the quick way; None sends a chunk the other way, which is right for all.
    """
    try:
        (choice,) = choices
        delta = choice["delta"]
        token, index = delta["content"], choice["index"]
        silent = choice["finish_reason"] is None and len(delta) == 1
        if len(choice) != 3:
            silent = silent and len(choice) == 4 and choice["logprobs"] is None
    except (KeyError, TypeError, ValueError):
        return None
    return token if silent and index == 0 and type(index) is int and type(token) is str else None
