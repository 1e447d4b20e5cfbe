"""`client.completions.create`, the older call, whole and streamed, over real sockets."""

from typing import Any, List

import pytest
from fleet import endpoints_of

from syncfailover import ConfigurationError, StreamInterrupted
from syncfailover.api import TextStream
from syncfailover.completion.reply import TextReply
from syncfailover.testing import FakeUpstream, Status, StreamCut


def test_a_text_is_gone_on_with(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """The reply reads as the SDK's object does, with `.text` for short."""
    reply = make_client().completions.create(prompt="Once", max_tokens=5, extra_body={"top_k": 3})
    assert isinstance(reply, TextReply)
    assert reply.text == str(reply) == reply.choices[0].text == "Hello from upstream-1."
    assert (reply.finish_reason, reply.endpoint) == ("stop", "a")
    request = upstreams[0].calls.requests[0]
    assert request.path == "/v1/completions"
    assert request.json() == {"model": "gpt-4.1", "prompt": "Once", "max_tokens": 5, "top_k": 3}


def test_a_text_is_streamed(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Chunks say what they add; at the end there is the whole reply, with its usage."""
    stream = make_client().completions.create(prompt="Once", stream=True)
    assert isinstance(stream, TextStream)
    chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == "Hello from upstream-1."
    assert all(chunk.choices for chunk in chunks)
    assert chunks[0].choices[0].text == "Hello"
    assert (stream.reply.text, stream.reply.finish_reason) == ("Hello from upstream-1.", "stop")
    assert stream.reply.object == "text_completion"
    assert stream.usage.total_tokens > 0
    assert upstreams[0].calls.requests[0].json()["stream_options"] == {"include_usage": True}


def test_a_whole_text_over_a_stream(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """`wire_stream=True` gives the same reply, sent as a stream."""
    client = make_client(endpoints_of(upstreams[:1]))
    whole, wired = (
        client.completions.create(prompt="a"),
        client.completions.create(prompt="a", wire_stream=True),
    )
    assert wired.choices == whole.choices
    assert wired.object == whole.object


def test_a_text_that_breaks_raises_or_begins_anew(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """As a chat does; the chunk that says so has the shape of the others."""
    upstreams[0].calls.always(StreamCut(after=2, tokens=5))
    broken = make_client().completions.create(prompt="a", stream=True)
    with pytest.raises(StreamInterrupted) as caught:
        list(broken)
    assert caught.value.text == "token0 token1"
    stream = make_client().completions.create(prompt="a", stream=True, on_break="restart")
    restarts = [chunk for chunk in stream if chunk.restarted]
    assert [(chunk.object, chunk.text, chunk.choices[0].text) for chunk in restarts] == [
        ("text_completion", "", "")
    ]
    assert stream.reply.text == "Hello from upstream-2."


def test_an_endpoint_that_answers_whole_is_read_whole(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A reply without a stream comes as one chunk."""
    body = {
        "id": "c",
        "object": "text_completion",
        "choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}],
    }
    upstreams[0].calls.always(Status(200, body=body))
    stream = make_client().completions.create(prompt="a", stream=True)
    assert [chunk.text for chunk in stream] == ["Hi"]
    assert stream.reply == body


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], [[1], [2]]], ids=repr)
def test_a_prompt_may_be_a_list(prompt: Any, make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Of texts or of tokens."""
    make_client().completions.create(prompt=prompt)
    assert upstreams[0].calls.requests[0].json()["prompt"] == prompt


@pytest.mark.parametrize("prompt", ["", [], None, 7, b"Hi", {"a": 1}], ids=repr)
def test_a_bad_prompt_is_named(prompt: Any, make_client: Any) -> None:
    """The error names field, value and what is allowed; nothing is sent."""
    client = make_client()
    with pytest.raises(ConfigurationError, match=r"prompt: .*a text, or a list, that is not empty"):
        client.completions.create(prompt=prompt)
    assert client.metrics()["total_requests"] == 0
