"""`client.responses`: OpenAI's newer call, whose answer is a list of items and whose stream one of typed events."""

from __future__ import annotations

from typing import Any, Hashable, Literal, Optional, Sequence, Union, overload

from ..completion.reply import ResponseReply
from ..completion.response import ResponseEvent, ResponsesAssembly, event_of, restart_event
from ..stream import ApiStream, Form
from .asking import Extra, Kind, Part, Timeout, ask, one_or_more


class ResponseStream(ApiStream[ResponseReply]):
    """The answer to `responses.create`, as it comes: events, of which `response.output_text.delta` brings text.

    `collect()` gives the response that the last event brings. A stream that ends without such an event, reports an
    error, stalls or is cut short raises `StreamInterrupted`, with the text so far.
    """

    @staticmethod
    def _added(event: ResponseEvent) -> str:
        return event.added


RESPONSES = Kind(
    "responses",
    ResponseStream,
    Form(ResponseEvent, ResponsesAssembly, ResponseReply, event_of, restart_event),
    asks_for_usage=False,
)


class Responses(Part):
    """`client.responses`."""

    _written = "client.responses"
    _uncovered = frozenset(
        {
            "acreate",
            "cancel",
            "compact",
            "connect",
            "delete",
            "input_items",
            "input_tokens",
            "parse",
            "retrieve",
            "stream",
        }
    )

    @overload
    def create(self, *, stream: Literal[True], **params: Any) -> ResponseStream: ...
    @overload
    def create(self, *, stream: Literal[False] = ..., **params: Any) -> ResponseReply: ...
    @overload
    def create(self, *, stream: bool = ..., **params: Any) -> Union[ResponseReply, ResponseStream]: ...
    def create(
        self,
        *,
        input: Union[str, Sequence[Any], None] = None,  # noqa: A002 - the field's name in the API
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
    ) -> Union[ResponseReply, ResponseStream]:
        """Ask for a response; see `Chat.__call__` for the arguments.

        What one provider stores (`previous_response_id`, `conversation`, a stored `prompt`) no other one knows; give
        such calls an `affinity`, or send the whole `input`.
        """
        if input is not None:
            params["input"] = one_or_more("input", input)
        answer: Union[ResponseReply, ResponseStream] = ask(
            self._caller,
            RESPONSES,
            params,
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
