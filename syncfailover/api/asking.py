"""One way to ask for an answer, whichever call of the API it is: whole, or as a stream."""

from __future__ import annotations

from typing import Any, Dict, Hashable, Mapping, NamedTuple, Optional, Sequence, Type, Union

from ..caller import Caller
from ..extras import Extras, is_unset
from ..openai_options import Covered, check_extra_body, check_fields
from ..payload import Shown
from ..runtime.failover import Done
from ..runtime.timeouts import Timeouts
from ..stream import ApiStream, Form, story
from ..validation import one_of, reject

#: What a call may say of its time.
Timeout = Union[float, Timeouts, None]
#: What `extra_headers`, `extra_query` and `extra_body` are.
Extra = Optional[Mapping[str, Any]]


class Kind(NamedTuple):
    """A call of the API that can be answered whole or as a stream."""

    #: Relative to the base URL.
    path: str
    #: What a stream of it is.
    stream: Type[ApiStream[Any]]
    #: What that, and a whole reply, is made of.
    form: Form
    #: Whether a stream tells its usage only if it is asked to.
    asks_for_usage: bool


class Asked(NamedTuple):
    """What a call asks for, checked."""

    #: Without the model.
    payload: Dict[str, Any]
    #: The number of the conversation that it belongs to.
    home: Optional[int]
    extras: Optional[Extras]


class Part(Covered):
    """A part of a client."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller


def ask(
    caller: Caller,
    kind: Kind,
    payload: Dict[str, Any],
    *,
    model: Optional[str],
    stream: bool,
    on_break: str,
    wire_stream: bool,
    timeout: Timeout,
    affinity: Optional[Hashable],
    extra_headers: Extra,
    extra_query: Extra,
    extra_body: Extra,
) -> Any:
    """Ask, and return a whole reply or a stream; see `Chat.__call__` for the arguments."""
    payload, home, extras = checked(
        caller,
        payload,
        stream=stream,
        on_break=on_break,
        wire_stream=wire_stream,
        affinity=affinity,
        extra_headers=extra_headers,
        extra_query=extra_query,
        extra_body=extra_body,
    )
    if not (stream or wire_stream):
        done = caller.post(kind.path, model, timeout, payload, home, extras)
        return replied(kind.form.reply, done)
    payload["stream"] = True
    shows_usage = _ask_for_usage(payload) if kind.asks_for_usage else True
    run, done = caller.stream(kind.path, model, timeout, payload, home, extras)
    reading = kind.stream(run, done, kind.form, restarts=on_break == "restart", shows_usage=shows_usage)
    return reading if stream else reading.collect()


def checked(
    caller: Caller,
    payload: Dict[str, Any],
    *,
    stream: bool = False,
    on_break: str = "raise",
    wire_stream: bool = False,
    affinity: Optional[Hashable] = None,
    extra_headers: Extra = None,
    extra_query: Extra = None,
    extra_body: Extra = None,
) -> Asked:
    """Check what a call asks for, beside its model and its time.

    Raises:
        ConfigurationError: an argument that cannot work.

    """
    payload = whole_payload(payload, extra_body)
    home = None if affinity is None else _number_of(affinity)
    extras = caller.extras_with(extra_headers, extra_query)
    one_of("on_break", on_break, ("raise", "restart"))
    for name, value in (("stream", stream), ("wire_stream", wire_stream)):
        if value and value is not True:
            raise reject(name, Shown(value), "True or False")
    if stream and wire_stream:
        raise reject("wire_stream", wire_stream, "to be left out with stream=True, which streams already")
    return Asked(payload, home, extras)


def replied(reply: Any, done: Done) -> Any:
    """Make a reply of what came."""
    payload = {} if done.received is None else done.received.payload
    return reply(payload, **story(done))


def one_or_more(field: str, value: Any) -> Any:
    """Accept a text, or a list that is not empty.

    Raises:
        ConfigurationError: anything else.

    """
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Sequence) or not value:
        raise reject(field, Shown(value), "a text, or a list, that is not empty")
    return value


def whole_payload(payload: Dict[str, Any], extra_body: Extra) -> Dict[str, Any]:
    """Return the payload, checked, with `extra_body` in it, which wins.

    Raises:
        ConfigurationError: a keyword among its fields that is none, or a body that cannot be merged into it.

    """
    check_fields(payload)
    if extra_body is None or is_unset(extra_body):
        return payload
    if not isinstance(extra_body, Mapping):
        raise reject("extra_body", Shown(extra_body), "a mapping of fields to be merged into the payload")
    for name in ("model", "stream"):
        if name in extra_body:
            allowed = f"to be given as {name}=, for it decides how the call is made and read"
            raise reject(f"extra_body[{name!r}]", Shown(extra_body[name]), allowed)
    for name in extra_body:
        if not isinstance(name, str):
            raise reject("extra_body", Shown(extra_body), "names of fields that are texts")
    check_extra_body(extra_body)
    return {**payload, **extra_body}


def _number_of(affinity: Any) -> int:
    """Return the number that a conversation is known by: its object may change, or be gone, by the next call."""
    try:
        return hash(affinity)
    except Exception as error:
        raise reject("affinity", Shown(affinity), "something hashable, such as a user's id") from error


def _ask_for_usage(payload: Dict[str, Any]) -> bool:
    """Ask for the usage, unless the caller decides that; tell whether the caller expects to see it."""
    options = payload.get("stream_options", {})
    if options is None:  # for a server that does not know the field
        del payload["stream_options"]
        return True
    if not isinstance(options, Mapping):
        raise reject(
            "stream_options", options, "an object like {'include_usage': True}, or None to send none"
        )
    if "include_usage" in options:
        return True
    payload["stream_options"] = {**options, "include_usage": True}
    return False
