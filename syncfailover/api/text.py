"""`client.completions`: the older call, which goes on with a text."""

from __future__ import annotations

from typing import Any, Hashable, Literal, Optional, Sequence, Union, overload

from ..completion.assembly import TextAssembly
from ..completion.chunk import ChatChunk, restart_text_chunk
from ..completion.reply import TextReply
from ..stream import ApiStream, Form
from .asking import Extra, Kind, Part, Timeout, ask, one_or_more


class TextStream(ApiStream[TextReply]):
    """A text that is gone on with, as it comes: chunks whose `.text` is what they add; see `ChatStream`."""


TEXT = Kind(
    "completions",
    TextStream,
    Form(ChatChunk, TextAssembly, TextReply, dict, restart_text_chunk),
    asks_for_usage=True,
)


class Completions(Part):
    """`client.completions`."""

    _written = "client.completions"
    _uncovered = frozenset({"acreate"})

    @overload
    def create(self, *, prompt: Any, stream: Literal[True], **params: Any) -> TextStream: ...
    @overload
    def create(self, *, prompt: Any, stream: Literal[False] = ..., **params: Any) -> TextReply: ...
    @overload
    def create(self, *, prompt: Any, stream: bool = ..., **params: Any) -> Union[TextReply, TextStream]: ...
    def create(
        self,
        *,
        prompt: Union[str, Sequence[Any]],
        model: Optional[str] = None,
        stream: bool = False,
        on_break: str = "raise",
        wire_stream: bool = False,
        timeout: Timeout = None,
        affinity: Optional[Hashable] = None,
        extra_headers: Extra = None,
        extra_query: Extra = None,
        extra_body: Extra = None,
        **params: Any,
    ) -> Union[TextReply, TextStream]:
        """Go on with a text, or with each of a list of texts or tokens; see `Chat.__call__` for the rest."""
        answer: Union[TextReply, TextStream] = ask(
            self._caller,
            TEXT,
            {"prompt": one_or_more("prompt", prompt), **params},
            model=model,
            stream=stream,
            on_break=on_break,
            wire_stream=wire_stream,
            timeout=timeout,
            affinity=affinity,
            extra_headers=extra_headers,
            extra_query=extra_query,
            extra_body=extra_body,
        )
        return answer
