"""Tools, images, formats and messages: what a caller puts into a chat reaches the endpoint, and comes back."""

import base64
import json
from typing import Any, Dict, List

import pytest
from fleet import endpoints_of

from syncfailover import ConfigurationError, payload
from syncfailover.testing import FakeUpstream, Ok, Status, Stream

TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
]
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
]
ASKS: Dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": CALLS}
QUESTION = {"role": "user", "content": "Weather?"}


@pytest.mark.parametrize(
    "how", [{}, {"wire_stream": True}, {"stream": True}], ids=["whole", "wire", "stream"]
)
def test_tool_calls_make_the_round(how: Any, make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Tools are sent, the reply's calls are read, and its message goes back with the tools' answers."""
    upstreams[0].calls.always(Ok(message=ASKS, finish_reason="tool_calls"))
    client = make_client(endpoints_of(upstreams[:1]))
    reply = client.chat([QUESTION], tools=TOOLS, tool_choice="auto", parallel_tool_calls=True, **how)
    reply = reply.collect() if "stream" in how else reply
    assert upstreams[0].calls.requests[0].json()["tools"] == TOOLS
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")
    assert [json.loads(call.function.arguments)["city"] for call in reply.tool_calls] == ["Oslo", "Rome"]
    assert [call.id for call in reply.choices[0].message.tool_calls] == ["call_1", "call_2"]
    answers = [{"role": "tool", "tool_call_id": call.id, "content": "fine"} for call in reply.tool_calls]
    client.chat([QUESTION, reply.message, *answers], tools=TOOLS)
    sent = upstreams[0].calls.requests[1].json()["messages"]
    assert sent[1]["tool_calls"] == CALLS
    assert (sent[1]["role"], sent[1]["content"], sent[3]["tool_call_id"]) == ("assistant", None, "call_2")


def test_a_streamed_message_goes_back_into_the_conversation(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A collected stream's message, a dumped one and one without nulls are accepted among the messages."""
    client = make_client()
    message = client.chat("Hi", stream=True).collect().message
    client.chat([QUESTION, message, message.model_dump(exclude_none=True), QUESTION])
    sent = upstreams[1].calls.requests[0].json()["messages"]
    assert (sent[1]["role"], sent[1]["content"]) == ("assistant", "Hello from upstream-1.")
    assert sent[2] == {"role": "assistant", "content": "Hello from upstream-1."}


def test_a_format_and_whatever_else_passes_through(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Fields of the payload are the provider's to judge."""
    schema = {
        "name": "city",
        "strict": True,
        "schema": {"type": "object", "properties": {"n": {"type": "null"}}},
    }
    fields = {
        "response_format": {"type": "json_schema", "json_schema": schema},
        "seed": 7,
        "stop": ["\n", "\u2028"],
        "logit_bias": {"50256": -100},
        "metadata": {"caf\u00e9": "\U0001f600"},
        "stream_options": None,
    }
    make_client().chat("Hi", **fields)
    assert upstreams[0].calls.requests[0].json() == {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "Hi"}],
        **fields,
    }


class Counting:
    """An encoder that notes the size of what it encodes."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.sizes: List[int] = []

    def encode(self, value: Any) -> str:
        """Encode."""
        text: str = self._encoder.encode(value)
        self.sizes.append(len(text))
        return text


@pytest.mark.parametrize("streams", [False, True])
def test_a_large_image_is_serialized_once(
    streams: bool, make_client: Any, upstreams: List[FakeUpstream], monkeypatch: Any
) -> None:
    """Three attempts send the same five megabytes, and the encoder saw them once; each gets its own model's name."""
    counting = Counting(payload._ENCODER)
    monkeypatch.setattr(payload, "_ENCODER", counting)
    image = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 20_000).decode()
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": image}}]
    endpoints = endpoints_of(upstreams)
    endpoints[1] = endpoints[1].replace(models={"gpt-4.1": "theirs"})
    for upstream in upstreams[:2]:
        upstream.calls.script(Status(503), Status(503))
    reply = make_client(endpoints).chat([{"role": "user", "content": parts}], wire_stream=streams)
    assert [attempt.endpoint for attempt in reply.attempts] == ["a", "b", "c"]
    assert [size > len(image) for size in counting.sizes].count(True) == 1
    seen = [upstream.calls.requests[0].json() for upstream in upstreams]
    assert [sent["model"] for sent in seen] == ["gpt-4.1", "theirs", "gpt-4.1"]
    assert all(sent["messages"][0]["content"] == parts for sent in seen)


def test_what_is_no_json_is_named_though_it_is_long(make_client: Any) -> None:
    """An image as bytes is a mistake, and the error does not print all of it."""
    image = {"type": "image_url", "image_url": {"url": b"x" * 1_000_000}}
    with pytest.raises(ConfigurationError, match=r"messages: .*bytes is not JSON serializable") as caught:
        make_client().chat([{"role": "user", "content": [image]}])
    assert len(str(caught.value)) < 600


def test_usage_in_a_stream_is_asked_for_and_kept_back(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Also where `extra_body` brings the options; a caller who asks for the chunk of the usage sees it."""
    upstreams[0].calls.always(Stream(tokens=2))
    client = make_client(endpoints_of(upstreams[:1]))
    without = list(client.chat("Hi", stream=True))
    options = {"include_usage": True}
    with_it = list(client.chat("Hi", stream=True, extra_body={"stream_options": options}))
    assert all(chunk.choices for chunk in without)
    assert (with_it[-1].choices, with_it[-1].usage.total_tokens > 0) == ([], True)
