"""Tool calls, put together out of the deltas of a stream.

Which call a piece belongs to:

- It has an index: the call at that index. An id *and* a name, where that call has another id, are a call of their own:
  some providers give all calls the index 0. Another id alone is not: some invent one for every chunk.
- It has an id only (Gemini): the call of that id, a new one if there is none.
- It has neither: the last call goes on; but a name that cannot be that call's, or one in the second or a later piece of a
  delta, is a new call.
"""

from __future__ import annotations

from typing import Any, ClassVar, Dict, List, Mapping, Optional, Union

from .parts import Ignored, Kinds, Name, Pieces, Takes, Text, dicts, string

#: More calls, and higher indices, are ignored; OpenAI allows 128 tools.
MAX_CALLS = 1024


class Function(Pieces):
    """A function's name and arguments."""

    __slots__ = ()
    kinds: ClassVar[Kinds] = {"name": Name, "arguments": Text}
    defaults: ClassVar[Mapping[str, Any]] = {"name": "", "arguments": ""}


class Custom(Pieces):
    """A custom tool's name and input."""

    __slots__ = ()
    kinds: ClassVar[Kinds] = {"name": Name, "input": Text}
    defaults: ClassVar[Mapping[str, Any]] = {"name": "", "input": ""}


class ToolCall(Pieces):
    """One call of a tool."""

    __slots__ = ("id", "name", "place")
    kinds: ClassVar[Kinds] = {
        "id": Ignored,
        "index": Ignored,
        "type": Ignored,
        "function": Function,
        "custom": Custom,
    }

    def __init__(self, place: int) -> None:
        super().__init__()
        self.id = ""
        #: The last name or piece of one that was sent.
        self.name = ""
        #: Where it belongs among the others.
        self.place = place

    def add(self, value: Dict[str, Any]) -> None:
        """Take in a piece."""
        super().add(value)
        self.id = self.id or string(value.get("id"))
        self.name = _name(value) or self.name

    def whole(self) -> Dict[str, Any]:
        """Return the call as a reply has it that is not streamed: without the stream's index."""
        call = super().whole() or {}
        if "custom" in call and "function" not in call:
            return {"id": self.id, "type": "custom", **call}
        return {"id": self.id, "type": "function", "function": dict(Function.defaults), **call}


class ToolCalls:
    """A message's tool calls."""

    __slots__ = ("_calls", "_known")
    takes: ClassVar[Takes] = list

    def __init__(self) -> None:
        self._calls: List[ToolCall] = []
        self._known: Dict[Union[int, str], ToolCall] = {}

    def add(self, value: List[Any]) -> None:
        """Take in what one delta says of calls."""
        for position, piece in enumerate(dicts(value)):
            call = self._call_of(piece, position)
            if call is not None:
                call.add(piece)
                self._known.setdefault(call.id, call)

    def whole(self) -> Optional[List[Dict[str, Any]]]:
        """Return the calls in order; None where there are none."""
        return [call.whole() for call in sorted(self._calls, key=lambda call: call.place)] or None

    def _call_of(self, piece: Dict[str, Any], position: int) -> Optional[ToolCall]:
        index, key = piece.get("index"), string(piece.get("id"))
        if index is not None:
            return self._at_index(index, key, piece)
        if key:
            return self._known.get(key) or self._opened(len(self._calls))
        return self._going_on(_name(piece), position)

    def _at_index(self, index: Any, key: str, piece: Dict[str, Any]) -> Optional[ToolCall]:
        if type(index) is not int or not 0 <= index < MAX_CALLS:
            return None
        call = self._known.get(index)
        if call is not None and not (key and call.id and key != call.id and _name(piece)):
            return call
        opened = self._opened(index)
        if opened is not None:
            self._known[index] = opened
        return opened

    def _going_on(self, name: str, position: int) -> Optional[ToolCall]:
        last = self._calls[-1] if self._calls else None
        if last is None or (name and (position or not name.startswith(last.name))):
            return self._opened(len(self._calls))
        return last

    def _opened(self, place: int) -> Optional[ToolCall]:
        if len(self._calls) >= MAX_CALLS:
            return None
        self._calls.append(ToolCall(place))
        return self._calls[-1]


def _name(piece: Dict[str, Any]) -> str:
    body = piece.get("function") or piece.get("custom")
    return string(body.get("name")) if type(body) is dict else ""
