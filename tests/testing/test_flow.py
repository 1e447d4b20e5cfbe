"""Events to bytes, bytes to writes: no socket needed."""

import math
import zlib

import pytest

from syncfailover.testing.answer import Answer
from syncfailover.testing.flow import Flow, Step
from syncfailover.testing.sse import DONE, Event, Events
from syncfailover.testing.wire import Response, as_stream


def writes(steps, coding="close", **options):
    """Return what each write sends, without the head, and the pauses before them."""
    flow = Flow(Response(body=b"whole"), steps, coding, **options)
    first, *rest = flow.writes(is_last=False)
    head, _, data = first.data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    return [Step(data, first.pause_s), *rest]


def test_what_needs_no_pause_needs_no_write_of_its_own():
    """Steps are joined up to the next pause, and the head goes out with the first of them."""
    steps = [Step(b"a"), Step(b"b"), Step(b"c", 1), Step(b"d"), Step(b"e", 2)]
    assert writes(steps) == [Step(b"ab"), Step(b"cd", 1), Step(b"e", 2)]


def test_a_write_has_a_limit():
    """Nothing is lost when much is joined, and no write is much larger than its limit."""
    sent = writes([Step(b"x" * 1000)] * 1000)
    assert sum(len(step.data) for step in sent) == 1_000_000
    assert max(len(step.data) for step in sent) < 70_000
    assert len(sent) < 20


def test_chunks_end_with_their_mark_unless_they_are_cut():
    """Each step is a chunk; an empty one is none, for it would be the end."""
    steps = [Step(b"hello"), Step(b""), Step(b"!")]
    assert writes(steps, "chunked") == [Step(b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n")]
    assert writes(steps, "chunked", is_complete=False) == [Step(b"5\r\nhello\r\n1\r\n!\r\n")]


def test_after_endless_silence_nothing_is_written():
    """The end mark of a held body waits behind the infinite pause."""
    assert writes([Step(b"a"), Step(b"", math.inf)], "chunked") == [
        Step(b"1\r\na\r\n"),
        Step(b"0\r\n\r\n", math.inf),
    ]


def test_each_step_can_be_unpacked_when_it_arrives():
    """Compression holds nothing back, and the whole is one gzip stream."""
    sent = writes([Step(b"one", 1), Step(b"two", 1)], "gzip")
    unpacker = zlib.decompressobj(31)
    unpacked = []
    for step in sent:
        chunks = step.data
        while chunks:
            size, _, chunks = chunks.partition(b"\r\n")
            unpacked.append(unpacker.decompress(chunks[: int(size, 16)]))
            chunks = chunks[int(size, 16) + 2 :]
    assert list(filter(None, unpacked)) == [b"one", b"two"]
    assert unpacker.eof


@pytest.mark.parametrize(
    ("coding", "header"),
    [
        ("chunked", b"Transfer-Encoding: chunked"),
        ("gzip", b"Content-Encoding: gzip"),
        ("content-length", b"Content-Length: 5"),
        ("close", b"Connection: close"),
    ],
)
@pytest.mark.parametrize("is_last", [False, True])
def test_the_head_says_how_the_body_ends(coding, header, is_last):
    """The length promised is that of the whole; a client that wants to close is told so, once."""
    answer = Answer(Flow(Response(202, b"whole"), [Step(b"who")], coding))
    assert answer.status == 202
    head = b"".join(step.data for step in answer.steps(is_last=is_last))
    assert header in head
    assert head.count(b"Connection: close") == (is_last or coding == "close")


def test_an_event_is_written_line_by_line():
    """Data of several lines takes several fields, whatever they end with; a name comes first."""
    assert Event(b"a\nb\r\nc\rd").encode() == b"data: a\ndata: b\ndata: c\ndata: d\n\n"
    assert Event(b"").encode() == b"data: \n\n"
    assert Event(b"{}", "error").encode("\r\n", space=False) == b"event:error\r\ndata:{}\r\n\r\n"


def test_a_stream_is_a_response_as_well():
    """Its body is all of its events, for whoever takes no interest in them."""
    events = Events([Event(b"1")], [Event(b"2"), Event(b"3")], [DONE])
    stream = as_stream(events, {"X-A": "b"})
    assert stream.body == b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata: [DONE]\n\n"
    assert stream.encode().startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream")
    assert (events.are_typed, Events([], [], [Event(b"{}", "a")]).are_typed) == (False, True)
