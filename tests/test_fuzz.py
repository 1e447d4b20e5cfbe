"""Arbitrary bytes as replies and as streams: nothing but our own errors comes out, and no more is kept than came."""

import json
from io import BytesIO

import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncfailover.completion.assembly import ChatAssembly, TextAssembly
from syncfailover.completion.chunk import ChatChunk, chunk_of
from syncfailover.completion.reply import ChatReply
from syncfailover.policy.outcome import ANSWERS, Outcome, classify
from syncfailover.policy.progress import AnyProgress, ChoicesProgress, ResponsesProgress
from syncfailover.policy.received import Received
from syncfailover.runtime.attempt_clock import AttemptClock
from syncfailover.runtime.event_stream import EventStream, Limits
from syncfailover.runtime.exchange import whole
from syncfailover.runtime.target import EndpointResponse

WORDS = (
    "choices delta message content role finish_reason index error code type usage output text object tool_calls "
    "function arguments name id logprobs response status data model metadata total_tokens prompt_tokens"
).split()
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 600)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "stop", "error", "429", "Hi", "response.completed", "chat.completion.chunk"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=14,
)
BODIES = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())
LINES = st.one_of(
    BODIES.map(lambda body: b"data: " + body),
    st.binary(max_size=60),
    st.sampled_from(
        [b"data: [DONE]", b": keep-alive", b"event: error", b"id: 1", b"retry: x", b"data:", b"\xef\xbb\xbf"]
    ),
)
STREAMS = st.lists(
    st.tuples(LINES, st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n", b"\r", b""])), max_size=8
).map(lambda pairs: b"".join(line + end for line, end in pairs))
TYPES = st.sampled_from(["text/event-stream", "application/json", "text/html", ""])
KINDS = st.sampled_from([ChoicesProgress, ResponsesProgress, AnyProgress])


def response_of(status: int, body: bytes, kind: str) -> EndpointResponse:
    """Make what a transport returns, of bytes in memory."""
    raw = urllib3.HTTPResponse(
        BytesIO(body), headers={"Content-Type": kind}, status=status, preload_content=False
    )
    request = type("Request", (), {"url": "http://127.0.0.1/v1", "headers": {}})()
    return EndpointResponse(request, raw)


def read_reply(status: int, body: bytes, expects: str) -> None:
    """Read a reply, name it, and look at all of it if it is an answer."""
    received = whole(response_of(status, body, "application/json"), AttemptClock(5, 5), ())
    outcome = classify(received, expects=expects)
    assert isinstance(outcome, Outcome)
    assert isinstance(received.shown(outcome.detail), str)
    if outcome in ANSWERS and expects == "choices":
        reply = ChatReply(received.payload, endpoint="a", latency_ms=1.0, cost_usd=None, attempts=())
        assert isinstance(reply.text, str)
        assert reply._repr_html_()
        _ = (reply.message, reply.choices, reply.finish_reason, reply.tool_calls, reply.usage)
        assert ChatChunk(chunk_of(received.payload)).text is not None


def read_stream(body: bytes, kind: str, progress: type) -> None:
    """Read a stream to whatever end it has, and put it together."""
    clock = AttemptClock(5, 5)
    stream = EventStream(response_of(200, body, kind), clock, (), progress(), Limits(5.0, 5.0, None))
    received = stream.begin()
    assert isinstance(received, Received)
    if received.stream is None:
        assert isinstance(classify(received, expects=progress.expects), Outcome)
        return
    assembly, text = ChatAssembly(), TextAssembly()
    pieces = list(stream.held)
    while not (stream.over or stream.broken):
        pieces += stream.pull()
    for piece in pieces:
        assembly.add(piece)
        text.add(piece)
        assert isinstance(ChatChunk(piece).text, str)
    assert isinstance(assembly.text, str)
    assert json.dumps(assembly.whole())
    assert json.dumps(text.whole())
    assert len(json.dumps(pieces)) <= 20 * len(body) + 200
    if stream.broken is not None:
        assert isinstance(classify(stream.broken, expects=progress.expects), Outcome)
    stream.release()


REPLY = given(
    st.sampled_from([200, 201, 204, 301, 400, 403, 404, 429, 500, 529]),
    BODIES,
    st.sampled_from(["choices", "data", "output"]),
)
STREAM = given(STREAMS, TYPES, KINDS)
#: At random in CI, too, or the quarters below would be the same examples.
MANY = settings(max_examples=25_000, derandomize=False, suppress_health_check=list(HealthCheck))
#: The decoder below has 100,000 of its own.
MANY_STREAMS = settings(MANY, max_examples=5_000)

test_any_reply_is_named = REPLY(read_reply)
test_any_stream_has_an_end = STREAM(read_stream)
test_very_many_streams_have_an_end = pytest.mark.slow(MANY_STREAMS(STREAM(read_stream)))


@pytest.mark.slow
@pytest.mark.parametrize("quarter", range(4))
def test_a_hundred_thousand_replies_are_named(quarter: int) -> None:
    """In quarters, each of them thought of anew, for several processes."""
    MANY(REPLY(read_reply))()
