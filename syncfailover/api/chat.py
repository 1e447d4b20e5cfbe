"""`client.chat`: a prompt, or messages, and the answer of a model."""

from __future__ import annotations

from typing import Any, Hashable, List, Literal, Mapping, Optional, Sequence, Union, overload

from ..caller import Caller
from ..completion.assembly import ChatAssembly
from ..completion.chunk import ChatChunk, chunk_of, restart_chunk
from ..completion.reply import ChatReply
from ..stream import ApiStream, Form
from ..validation import reject
from .asking import Extra, Kind, Part, Timeout, ask


class ChatStream(ApiStream[ChatReply]):
    """The answer to a chat, as it comes: chunks in the OpenAI shape, whose `.text` is what they add.

    A stream that just ends, reports an error, stalls or is cut short raises `StreamInterrupted`, with the text so far.
    """


CHAT = Kind(
    "chat/completions",
    ChatStream,
    Form(ChatChunk, ChatAssembly, ChatReply, chunk_of, restart_chunk),
    asks_for_usage=True,
)


class Chat(Part):
    """`client.chat`: callable with a prompt or messages, and the OpenAI SDK's `chat.completions`."""

    _written = "client.chat"

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller)
        #: `create(model=..., messages=...)`, as an openai-SDK caller already wrote it.
        self.completions = ChatCompletions(caller)

    @overload
    def __call__(self, prompt: Any = ..., *, stream: Literal[True], **params: Any) -> ChatStream: ...
    @overload
    def __call__(self, prompt: Any = ..., *, stream: Literal[False] = ..., **params: Any) -> ChatReply: ...
    @overload
    def __call__(
        self, prompt: Any = ..., *, stream: bool = ..., **params: Any
    ) -> Union[ChatReply, ChatStream]: ...
    def __call__(
        self,
        prompt: Union[str, Sequence[Mapping[str, Any]], None] = None,
        *,
        messages: Optional[Sequence[Mapping[str, Any]]] = None,
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
    ) -> Union[ChatReply, ChatStream]:
        """Ask for an answer: a whole one, or with `stream` one that is read while it comes.

        Args:
            prompt: a text, sent as the user's message, or a list of messages in the OpenAI shape.
            messages: the list under the name that it has in the API; one of the two is given.
            model: the caller's name for the model; the client's own where None.
            stream: return a `ChatStream` as soon as the first content is there.
            on_break: what a stream does that breaks after its first content: "raise" raises `StreamInterrupted` with
                the text so far; "restart" begins anew at another endpoint, with a chunk whose `restarted` is True.
            wire_stream: have a whole answer sent as a stream, so that a dead generation is noticed by
                `Timeouts.first_token` and `.stall` instead of by the end of all time.
            timeout: seconds for the whole call, or `Timeouts`.
            affinity: names the conversation (a user, a session): its calls stay at one endpoint, whose prompt cache
                knows it, while that is eligible.
            extra_headers: sent with the call, to whichever endpoint is asked; so no key is accepted among them.
            extra_query: query parameters, likewise.
            extra_body: more fields for the payload; they win over `params`.
            params: any other field of a chat completion (`temperature`, `tools`, ...).

        Raises:
            ConfigurationError: an argument that cannot work.
            FailoverError: its subclass says what was tried, and what came of it.

        """
        if prompt is not None and messages is not None:
            raise reject("messages", messages, "to be left out where a prompt is given")
        answer: Union[ChatReply, ChatStream] = ask(
            self._caller,
            CHAT,
            {
                "messages": messages_of(prompt) if messages is None else _messages(messages),
                **params,
            },
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


class ChatCompletions(Part):
    """`client.chat.completions`."""

    _written = "client.chat.completions"
    _uncovered = frozenset({"acreate", "delete", "list", "messages", "parse", "retrieve", "stream", "update"})

    @overload
    def create(self, *, messages: Any, stream: Literal[True], **params: Any) -> ChatStream: ...
    @overload
    def create(self, *, messages: Any, stream: Literal[False] = ..., **params: Any) -> ChatReply: ...
    @overload
    def create(self, *, messages: Any, stream: bool = ..., **params: Any) -> Union[ChatReply, ChatStream]: ...
    def create(
        self,
        *,
        messages: Sequence[Mapping[str, Any]],
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
    ) -> Union[ChatReply, ChatStream]:
        """Ask for an answer; see `Chat.__call__`."""
        answer: Union[ChatReply, ChatStream] = ask(
            self._caller,
            CHAT,
            {"messages": _messages(messages), **params},
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


_LIST = "a list of messages like {'role': 'user', 'content': '...'}"
_TEXT_OR_LIST = f"a text, or {_LIST}"


def messages_of(prompt: Any) -> List[Mapping[str, Any]]:
    """Return the messages that a prompt stands for.

    Raises:
        ConfigurationError: it is neither a text nor a list of messages.

    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return _messages(prompt, _TEXT_OR_LIST)


def _messages(
    messages: Any, allowed: str = f"{_LIST}; client.chat('hello') takes a text"
) -> List[Mapping[str, Any]]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise reject("messages", messages, allowed)
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise reject(f"messages[{index}]", message, allowed)
    return list(messages)
