"""The responses API's stream: typed events, and the response that the last of them brings."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from .chunk import StreamEvent
from .parts import string
from .rope import Rope

#: The event that brings text.
_TEXT_DELTA = "response.output_text.delta"
#: The events that bring the whole response, at the end.
_LAST = ("response.completed", "response.incomplete")


class ResponseEvent(StreamEvent):
    """An event of a response's stream: `.type`, and what an event of that type has.

    One of type "syncfailover.restarted", whose `restarted` is True, says that the answer begins anew.
    """

    __slots__ = ()

    @property
    def added(self) -> str:
        """What it adds to the text of the response; empty where it adds none."""
        return _text_of(self._data)


class ResponsesAssembly:
    """Events of a stream, put together into the response that would have been sent without streaming."""

    __slots__ = ("_items", "_last", "_latest", "_rope")

    def __init__(self) -> None:
        self._rope = Rope()
        self._items: Dict[Any, Dict[str, Any]] = {}
        #: The latest response that an event brought, and the one that the last event brought.
        self._latest: Dict[str, Any] = {}
        self._last: Optional[Dict[str, Any]] = None

    @property
    def text(self) -> str:
        """The text so far."""
        return self._rope.text

    @property
    def usage(self) -> Optional[Dict[str, Any]]:
        """The usage, which comes with the last event; None so far."""
        usage = None if self._last is None else self._last.get("usage")
        return usage if type(usage) is dict and usage else None

    def add(self, event: Dict[str, Any]) -> None:
        """Take in the next event: any JSON object; what is strange in it is left out."""
        text = _text_of(event)
        if text:
            self._rope.append(text)
            return
        kind, response, item = event.get("type"), event.get("response"), event.get("item")
        if type(response) is dict:
            self._latest = response
            if kind in _LAST:
                self._last = response
        elif kind == "response.output_item.done" and type(item) is dict:
            index = event.get("output_index")
            self._items[index if type(index) is int else len(self._items)] = item

    def whole(self) -> Dict[str, Any]:
        """Return the response: the one that the last event brought.

        Some gateways leave its output empty, or end the stream without it: then it holds the items that came before.
        """
        whole = self._latest if self._last is None else self._last
        if self._last is None:
            whole = {"id": "", "object": "response", "output": [], **whole, "status": "completed"}
        if not whole.get("output") and (self._items or self._rope):
            whole = {**whole, "output": self._output()}
        return whole

    def _output(self) -> List[Dict[str, Any]]:
        if self._items:
            return [self._items[index] for index in sorted(self._items)]
        part = {"type": "output_text", "text": self.text, "annotations": []}
        return [{"type": "message", "id": "", "role": "assistant", "status": "completed", "content": [part]}]


def _text_of(event: Dict[str, Any]) -> str:
    return string(event.get("delta")) if event.get("type") == _TEXT_DELTA else ""


def event_of(response: Dict[str, Any]) -> Dict[str, Any]:
    """Return a whole response as one event, for a provider that answers whole although it was asked for a stream."""
    kind = "response.incomplete" if response.get("status") == "incomplete" else "response.completed"
    return {"type": kind, "response": response}


def restart_event(_like: Dict[str, Any]) -> Dict[str, Any]:
    """Return the event that says that the answer begins anew."""
    return {"type": "syncfailover.restarted", "restarted": True}
