"""`client.responses.create`, whole and streamed, over real sockets."""

import pickle
from typing import Any, List

import pytest
from fleet import endpoints_of

from syncfailover import ConfigurationError, ModelNotFound, RequestRejected, StreamInterrupted
from syncfailover.api import ResponseStream
from syncfailover.completion.reply import ResponseReply
from syncfailover.testing import FakeUpstream, Ok, Status, Stream, StreamCut, StreamError

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
}


def names(story: Any) -> List[Any]:
    """Return endpoint and outcome of each attempt."""
    return [(attempt.endpoint, attempt.outcome) for attempt in story.attempts]


def test_a_response_has_its_text_and_story(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """The reply reads as the SDK's object does, and knows its endpoint and its cost."""
    endpoint = endpoints_of(upstreams)[0].replace(prices={"gpt-4.1": (2.0, 8.0)})
    upstreams[0].calls.always(Ok(usage=USAGE))
    reply = make_client([endpoint]).responses.create(input="Hi", instructions="Be brief.")
    assert isinstance(reply, ResponseReply)
    assert reply.output_text == str(reply) == reply.output[0].content[0].text == "Hello from upstream-1."
    assert (reply.status, reply.error, reply.previous_response_id) == ("completed", None, None)
    assert (reply.endpoint, reply.usage.input_tokens) == ("a", 1000)
    assert reply.cost_usd == pytest.approx(0.006)
    request = upstreams[0].calls.requests[0]
    assert request.path == "/v1/responses"
    assert request.json() == {"model": "gpt-4.1", "input": "Hi", "instructions": "Be brief."}
    again = pickle.loads(pickle.dumps(reply))  # noqa: S301 - our own
    assert (again.output_text, again.endpoint) == (reply.output_text, "a")


def test_a_response_that_calls_a_tool_has_no_text(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """A function call is an item of the output."""
    upstreams[0].calls.always(Ok(message=CALL))
    reply = make_client().responses.create(input="Hi", tools=[{"type": "function", "name": "f"}])
    assert reply.output_text == ""
    assert (reply.output[0].type, reply.output[0].name) == ("function_call", "f")


def test_a_stream_of_events_and_its_end(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Events come typed, the text grows, and `collect` gives the response of the last event."""
    stream = make_client().responses.create(input="Hi", stream=True)
    assert isinstance(stream, ResponseStream)
    events = list(stream)
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    added = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(added) == stream.text == "Hello from upstream-1."
    assert not any(event.restarted for event in events)
    assert stream.collect() is stream.reply
    assert stream.reply == events[-1].response
    assert stream.reply.output_text == stream.text
    assert stream.usage.output_tokens == stream.reply.usage.output_tokens
    sent = upstreams[0].calls.requests[0].json()
    assert sent == {"model": "gpt-4.1", "input": "Hi", "stream": True}


def test_text_deltas_are_the_text_once(make_client: Any) -> None:
    """The events that repeat the whole text at the end are not taken for more of it."""
    assert "".join(make_client().responses.create(input="Hi", stream=True).text_deltas()) == (
        "Hello from upstream-1."
    )


def test_an_incomplete_response_is_an_answer(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """`response.incomplete` ends a stream well, and a whole one with that status is good."""
    upstreams[0].calls.always(Stream(finish_reason="length"))
    client = make_client(endpoints_of(upstreams[:1]))
    reply = client.responses.create(input="Hi", stream=True).collect()
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    upstreams[0].calls.always(Ok(finish_reason="length"))
    assert client.responses.create(input="Hi").status == "incomplete"


def test_a_whole_response_over_a_stream(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """`wire_stream=True` gives the same reply, sent as a stream."""
    client = make_client(endpoints_of(upstreams[:1]))
    whole, wired = client.responses.create(input="Hi"), client.responses.create(input="Hi", wire_stream=True)
    assert (wired.output_text, wired.status) == (whole.output_text, whole.status)
    assert upstreams[0].calls.requests[1].json()["stream"] is True


def test_a_stream_that_breaks_raises_with_its_text(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """What had come is kept, and nothing is asked elsewhere."""
    upstreams[0].calls.always(StreamCut(after=3, tokens=10))
    with pytest.raises(StreamInterrupted) as caught:
        list(make_client().responses.create(input="Hi", stream=True))
    assert caught.value.text == "token0 token1 token2"
    assert names(caught.value) == [("a", "interrupted")]


def test_a_stream_that_breaks_may_begin_anew(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """One event says so before the new answer's first, and the answer is the new one's alone."""
    upstreams[0].calls.always(StreamError(after=3, tokens=10))
    stream = make_client().responses.create(input="Hi", stream=True, on_break="restart")
    events = list(stream)
    kinds = [event.type for event in events]
    place = kinds.index("syncfailover.restarted")
    assert [event.restarted for event in events].count(True) == 1
    assert events[place] == {"type": "syncfailover.restarted", "restarted": True}
    assert kinds[place + 1] == "response.created"
    assert stream.reply.output_text == stream.text == "Hello from upstream-2."
    assert names(stream) == [("a", "interrupted"), ("b", "ok")]


def test_an_endpoint_that_answers_whole_is_read_whole(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A reply without a stream comes as the one event that ends a stream."""
    body = {"id": "r", "object": "response", "status": "completed", "output": [{"type": "reasoning"}]}
    upstreams[0].calls.always(Status(200, body=body))
    stream = make_client().responses.create(input="Hi", stream=True)
    assert [event.type for event in stream] == ["response.completed"]
    assert stream.reply == body


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (
            {"status": "failed", "error": {"code": "server_error", "message": "oops"}, "output": []},
            "server_error",
        ),
        ({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "x"}}, "rate_limited"),
        ({"status": "failed", "error": None, "output": [{"type": "message"}]}, "invalid_reply"),
        ({"status": "completed", "error": None, "output": []}, "invalid_reply"),
        ({"status": "completed", "error": None, "output": {}}, "invalid_reply"),
        ({"choices": [{"message": {"content": "a chat's answer"}}]}, "invalid_reply"),
    ],
)
def test_a_response_that_is_no_answer_goes_elsewhere(
    body: Any, outcome: str, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A failed or empty response is judged by the error in it, and another endpoint is asked."""
    upstreams[0].calls.always(Status(200, body=body))
    reply = make_client().responses.create(input="Hi")
    assert names(reply)[0] == ("a", outcome)
    assert reply.endpoint == "b"


@pytest.mark.parametrize("code", ["invalid_prompt", "invalid_image_url", "image_content_policy_violation"])
def test_a_failed_response_that_is_the_callers_goes_nowhere(
    code: str, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """What was wrong with the request itself is told at once."""
    error = {"code": code, "message": "not this"}
    upstreams[0].calls.always(Status(200, body={"status": "failed", "error": error, "output": []}))
    with pytest.raises(RequestRejected, match="not this") as caught:
        make_client().responses.create(input="Hi")
    assert len(caught.value.attempts) == 1


def test_an_endpoint_without_this_call_keeps_its_chats(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A 404 to a call that most providers do not have lets no model rest there."""
    missing = Status(404, body={"detail": "Not Found"})
    client = make_client(endpoints_of(upstreams[:2]))
    upstreams[0].calls.script(missing)
    assert names(client.responses.create(input="Hi")) == [("a", "path_not_found"), ("b", "ok")]
    assert {client.chat("Hi").endpoint for _ in range(2)} == {"a", "b"}
    for upstream in upstreams:
        upstream.calls.always(missing)
    with pytest.raises(ModelNotFound, match="no such call there"):
        client.responses.create(input="Hi")


@pytest.mark.parametrize("value", ["", [], 7, b"Hi", {"role": "user"}], ids=repr)
def test_bad_input_is_named(value: Any, make_client: Any) -> None:
    """The error names field, value and what is allowed; nothing is sent."""
    client = make_client()
    with pytest.raises(ConfigurationError, match=r"input: .*a text, or a list, that is not empty"):
        client.responses.create(input=value)
    assert client.metrics()["total_requests"] == 0


def test_input_may_be_left_to_a_stored_prompt(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Without `input` the payload is still well-formed JSON."""
    client = make_client(endpoints_of(upstreams[:1]))
    client.responses.create()
    client.responses.create(prompt={"id": "pmpt_1"})
    sent = [request.json() for request in upstreams[0].calls.requests]
    assert sent == [{"model": "gpt-4.1"}, {"model": "gpt-4.1", "prompt": {"id": "pmpt_1"}}]
