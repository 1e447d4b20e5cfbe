"""Replies in the OpenAI shape, readable by attribute and by item, and what they say of the call behind them."""

from __future__ import annotations

import json
from typing import Any, Dict, ItemsView, Iterator, KeysView, List, Mapping, Optional, Sequence, ValuesView

from ..events import AttemptRecord
from .parts import dicts

#: Fields that OpenAI's schema allows to be absent; the official SDK reads them as None, and so do its callers.
_OPTIONAL = frozenset(
    {
        "annotations",
        "audio",
        "content",
        "finish_reason",
        "function_call",
        "logprobs",
        "name",
        "refusal",
        "role",
        "service_tier",
        "system_fingerprint",
        "tool_calls",
        "usage",
        "prompt_tokens_details",
        "completion_tokens_details",
        "cached_tokens",
        "reasoning_tokens",
        "reasoning_content",
        # of responses
        "encrypted_content",
        "input_tokens_details",
        "output_tokens_details",
        "phase",
        "status",
    },
)
#: Options of the openai package's `model_dump` and its like that change nothing here: there are no other names than the
#: API's, no fields that nobody set, and nothing but plain data.
_CHANGE_NOTHING = frozenset({"by_alias", "exclude_unset", "mode", "round_trip", "use_api_names", "warnings"})


class ApiObject(Mapping[str, Any]):
    """A JSON object, readable as `reply.choices[0].message.content` and as `reply["choices"][0]["message"]`."""

    __slots__ = ("_data",)

    _optional = _OPTIONAL

    def __init__(self, data: Dict[str, Any]) -> None:
        self._data = data

    def __getattr__(self, name: str) -> Any:
        """Return a field, wrapped; an optional one that is absent is None."""
        if name.startswith("__") or name == "_data":
            raise AttributeError(name)
        try:
            return _wrapped(self._data[name])
        except KeyError:
            if name in self._optional:
                return None
            known = ", ".join(sorted(self._data))
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; it has {known}") from None

    def __getitem__(self, name: str) -> Any:
        """Return a field, wrapped."""
        return _wrapped(self._data[name])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the fields."""
        return iter(self._data)

    def __len__(self) -> int:
        """Count the fields."""
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        """Compare with another object or with a mapping, by content."""
        if isinstance(other, ApiObject):
            return self._data == other._data
        return self._data == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._data!r})"

    def __getstate__(self) -> Dict[str, Any]:
        """Pickle all that the slots hold."""
        names = (name for cls in type(self).__mro__ for name in getattr(cls, "__slots__", ()))
        return {name: getattr(self, name) for name in names if name != "__weakref__"}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        """Take the slots back."""
        for name, value in state.items():
            setattr(self, name, value)

    def to_dict(self, *, exclude_none: bool = False, **others: Any) -> Dict[str, Any]:
        """Return the plain JSON object.

        Args:
            exclude_none: leave out what is null, at any depth.
            others: those of the openai package's options that change nothing here (`mode`, `exclude_unset`, ...).

        """
        for name in others:
            if name not in _CHANGE_NOTHING:
                raise TypeError(
                    f"{name}: is not known; expected exclude_none, or one of the options without effect"
                )
        without: Dict[str, Any] = _without_none(self._data) if exclude_none else self._data
        return without

    def to_json(self, *, indent: Optional[int] = 2, **options: Any) -> str:
        """Return the JSON text; `options` are those of `to_dict`."""
        separators = (",", ":") if indent is None else None
        return json.dumps(self.to_dict(**options), indent=indent, separators=separators, ensure_ascii=False)

    def model_dump(self, **options: Any) -> Dict[str, Any]:
        """Return the plain JSON object, under the name that callers of the openai package know."""
        return self.to_dict(**options)

    def model_dump_json(self, *, indent: Optional[int] = None, **options: Any) -> str:
        """Return the JSON text, under the name that callers of the openai package know."""
        return self.to_json(indent=indent, **options)


def _without_none(value: Any) -> Any:
    if type(value) is dict:
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    if type(value) is list:
        return [_without_none(item) for item in value]
    return value


def _wrapped(value: Any) -> Any:
    if type(value) is dict:
        return ApiObject(value)
    if type(value) is list:
        return [_wrapped(item) for item in value]
    return value


class ApiReply(ApiObject):
    """A whole reply, with the story of the call that brought it."""

    __slots__ = ("attempts", "cost_usd", "endpoint", "latency_ms")

    _optional = frozenset({"service_tier", "system_fingerprint", "usage"})

    def __init__(
        self,
        data: Dict[str, Any],
        *,
        endpoint: str,
        latency_ms: float,
        cost_usd: Optional[float],
        attempts: Sequence[AttemptRecord],
    ) -> None:
        super().__init__(data)
        #: Name of the endpoint that answered.
        self.endpoint = endpoint
        #: Milliseconds of the whole call, failed attempts and waits included.
        self.latency_ms = latency_ms
        #: USD; None where price or usage is not known.
        self.cost_usd = cost_usd
        #: The ledger: every attempt of the call, the last one being the answer.
        self.attempts = attempts

    @property
    def raw(self) -> Dict[str, Any]:
        """The JSON object as the provider sent it."""
        return self._data


class _ChoicesReply(ApiReply):
    """A reply with choices, of which the first is at hand."""

    __slots__ = ()

    def _first(self) -> Dict[str, Any]:
        """Return the first choice; empty where there is none."""
        choices = self._data.get("choices") or [{}]
        first: Dict[str, Any] = choices[0]
        return first

    @property
    def text(self) -> str:
        """The first choice's text; empty where it has none."""
        text = self._first().get("text")
        return text if isinstance(text, str) else ""

    @property
    def finish_reason(self) -> Optional[str]:
        """Why the first choice ended."""
        reason: Optional[str] = self._first().get("finish_reason")
        return reason

    def __str__(self) -> str:
        """Give the text."""
        return self.text


class ChatReply(_ChoicesReply):
    """The answer to a chat.

    `.choices`, `.usage`, `.model` and all other fields of the provider's JSON are there by attribute and by item.
    """

    __slots__ = ()

    @property
    def message(self) -> Any:
        """The first choice's message."""
        return _wrapped(self._first().get("message") or {})

    @property
    def text(self) -> str:
        """The first choice's text; empty where it has none (a tool call)."""
        content = (self._first().get("message") or {}).get("content")
        if isinstance(content, str):
            return content
        parts: List[Any] = content if isinstance(content, list) else []
        return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))

    @property
    def tool_calls(self) -> Any:
        """The first choice's tool calls; None where there are none."""
        return _wrapped((self._first().get("message") or {}).get("tool_calls"))

    def _repr_html_(self) -> str:
        """Show text, endpoint, latency and cost in a notebook; the model's text is escaped."""
        from html import escape  # noqa: PLC0415 - only notebooks need it, and it takes a millisecond

        cost = "" if self.cost_usd is None else f" · ${self.cost_usd:.6f}"
        tries = "" if len(self.attempts) == 1 else f" · {len(self.attempts)} attempts"
        story = f"{self.endpoint} · {self._data.get('model', '')} · {self.latency_ms:.0f} ms{cost}{tries}"
        return (
            f'<div style="white-space:pre-wrap">{escape(self.text)}</div>'
            f'<div style="color:#777;font-size:smaller">{escape(story)}</div>'
        )


class TextReply(_ChoicesReply):
    """The answer to the older `completions.create`: `.choices[0].text`, or `.text` for short."""

    __slots__ = ()


class ResponseReply(ApiReply):
    """The answer to `responses.create`: `.output`, a list of items, and `.output_text`."""

    __slots__ = ()

    _optional = ApiReply._optional | {
        "completed_at",
        "conversation",
        "error",
        "incomplete_details",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "status",
        "temperature",
        "text",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }

    @property
    def output_text(self) -> str:
        """The text of all messages, joined; empty where there is none (a tool call)."""
        items = self._data.get("output")
        messages = [item for item in dicts(items) if item.get("type") == "message"]
        parts = [part for message in messages for part in dicts(message.get("content"))]
        return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "output_text")

    def __str__(self) -> str:
        """Give the text."""
        return self.output_text


class ModelList(ApiReply):
    """The models of an endpoint: iterating gives each of them, as with the openai package's list, not the fields."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the models."""
        return iter(self.data)

    def keys(self) -> KeysView[str]:
        """Return the names of the fields."""
        return self._data.keys()

    def values(self) -> ValuesView[Any]:
        """Return the fields."""
        return ApiObject(self._data).values()

    def items(self) -> ItemsView[str, Any]:
        """Return the names of the fields, and the fields."""
        return ApiObject(self._data).items()
