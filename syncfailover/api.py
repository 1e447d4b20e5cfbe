"""The parts of a client that callers of the OpenAI API know: chat, embeddings, models."""

from __future__ import annotations

from typing import Any, Dict, Hashable, List, Literal, Mapping, Optional, Sequence, Union, overload

from .caller import Caller, Shown
from .completion.assembly import ChatAssembly
from .completion.chunk import ChatChunk, chunk_of, restart_chunk
from .completion.reply import ApiReply, ChatReply
from .runtime.failover import Done
from .runtime.timeouts import Timeouts
from .stream import ApiStream, Form
from .stream import story as _story
from .validation import one_of, reject


class ChatStream(ApiStream[ChatReply]):
    """The answer to a chat, as it comes: chunks in the OpenAI shape, whose `.text` is what they add.

    A stream that just ends, reports an error, stalls or is cut short raises `StreamInterrupted`, with the text so far.
    """


CHAT = Form(ChatChunk, ChatAssembly, ChatReply, chunk_of, restart_chunk)


class Chat:
    """`client.chat`: callable with a prompt or messages, and the OpenAI SDK's `chat.completions`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        #: `create(model=..., messages=...)`, as an openai-SDK caller already wrote it.
        self.completions = Completions(caller)

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
        timeout: Union[float, Timeouts, None] = None,
        affinity: Optional[Hashable] = None,
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
            params: any other field of a chat completion (`temperature`, `tools`, ...).

        Raises:
            ConfigurationError: an argument that cannot work.
            FailoverError: its subclass says what was tried, and what came of it.

        """
        if prompt is not None and messages is not None:
            raise reject("messages", messages, "to be left out where a prompt is given")
        if isinstance(prompt, str):
            messages = [{"role": "user", "content": prompt}]
        return self.completions.create(
            messages=_messages(prompt if messages is None else messages),
            model=model,
            stream=stream,
            on_break=on_break,
            wire_stream=wire_stream,
            timeout=timeout,
            affinity=affinity,
            **params,
        )


class Completions:
    """`client.chat.completions`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

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
        timeout: Union[float, Timeouts, None] = None,
        affinity: Optional[Hashable] = None,
        **params: Any,
    ) -> Union[ChatReply, ChatStream]:
        """Ask for an answer; see `Chat.__call__`."""
        params = {"messages": _messages(messages), **_checked_params(params)}
        home = None if affinity is None else _number_of(affinity)
        one_of("on_break", on_break, ("raise", "restart"))
        if stream and wire_stream:
            raise reject("wire_stream", wire_stream, "to be left out with stream=True, which streams already")
        if stream or wire_stream:
            shows_usage = _ask_for_usage(params)
            run, done = self._caller.stream("chat/completions", model, timeout, params, home)
            reading = ChatStream(run, done, CHAT, restarts=on_break == "restart", shows_usage=shows_usage)
            return reading if stream else reading.collect()
        done = self._caller.post("chat/completions", "choices", model, timeout, params, home)
        return ChatReply(_payload(done), **_story(done))


class Embeddings:
    """`client.embeddings`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def create(
        self,
        *,
        input: Any,  # noqa: A002 - the field's name in the API
        model: Optional[str] = None,
        timeout: Union[float, Timeouts, None] = None,
        **params: Any,
    ) -> ApiReply:
        """Return embeddings of a text or of a list of texts."""
        params = {"input": input, **_checked_params(params)}
        done = self._caller.post("embeddings", "data", model, timeout, params)
        return ApiReply(_payload(done), **_story(done))


class Models:
    """`client.models`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(self, *, timeout: Union[float, Timeouts, None] = None) -> ApiReply:
        """Return the model list of whichever endpoint answers."""
        done = self._caller.get("models", "data", timeout)
        return ApiReply(_payload(done), **_story(done))


#: Words that mean something to this package; they must not reach a provider as a field of the payload.
_NOT_YET = ("extra_headers", "extra_body", "extra_query")


#: Options of a client, which a call does not take; as fields of the payload they would guard nothing.
_OF_THE_CLIENT = frozenset(
    {
        "balancer",
        "budget_usd",
        "hedge_after",
        "max_retries",
        "probe_when",
        "queue_size",
        "queue_timeout",
        "state",
    }
)


def _number_of(affinity: Any) -> int:
    """Return the number that a conversation is known by: its object may change, or be gone, by the next call."""
    try:
        return hash(affinity)
    except Exception as error:
        raise reject("affinity", Shown(affinity), "something hashable, such as a user's id") from error


def _checked_params(params: Dict[str, Any]) -> Dict[str, Any]:
    for name in _OF_THE_CLIENT.intersection(params):
        raise reject(name, params[name], f"to be an option of the client: FailoverClient(..., {name}=...)")
    for name in _NOT_YET:
        if params.get(name):
            raise reject(name, params[name], "to be left out: this version does not support it yet")
        params.pop(name, None)
    return params


def _messages(messages: Any) -> List[Mapping[str, Any]]:
    allowed = "a text, or a list of messages like {'role': 'user', 'content': '...'}"
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise reject("messages", messages, allowed)
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise reject(f"messages[{index}]", message, allowed)
    return list(messages)


def _payload(done: Done) -> Dict[str, Any]:
    received = done.received
    payload: Dict[str, Any] = {} if received is None else received.payload
    return payload


def _ask_for_usage(params: Dict[str, Any]) -> bool:
    """Ask for a stream, with its usage unless the caller decides that; tell whether the caller expects to see it."""
    params["stream"] = True
    options = params.get("stream_options", {})
    if options is None:  # for a server that does not know the field
        del params["stream_options"]
        return True
    if not isinstance(options, Mapping):
        raise reject("stream_options", options, "an object like {'include_usage': True}, or None to send none")
    if "include_usage" in options:
        return True
    params["stream_options"] = {**options, "include_usage": True}
    return False
