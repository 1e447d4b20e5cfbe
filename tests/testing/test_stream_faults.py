"""Each fault of a stream, as a client meets it on the wire."""

import contextlib
import http.client
import json
import time
import zlib

import pytest

from syncfailover.testing import (
    Answer,
    ErrorBody,
    Fault,
    Flow,
    GarbageJson,
    Hang,
    Ok,
    Step,
    Stream,
    StreamCut,
    StreamError,
    StreamGarbage,
    StreamStall,
    Truncate,
)
from syncfailover.testing.replies import Replies
from syncfailover.testing.wire import Message

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses"]
TEN = [f"{' ' if number else ''}token{number}" for number in range(10)]


@contextlib.contextmanager
def live(upstream, path="/v1/chat/completions", **asked):
    """Ask for a stream and hand out the response, unread."""
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    try:
        connection.request("POST", path, json.dumps({"model": "m", "stream": True, **asked}))
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def reads(response):
    """Read what there is, as it comes, until the body ends; raise if it does not end well."""
    while True:
        part = response.read1(65536)
        if not part:
            break
        yield part
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


def read(response):
    """Return the whole body, or what there was of it, and the error that broke it."""
    parts = []
    try:
        parts.extend(reads(response))
    except (OSError, http.client.HTTPException) as error:
        return b"".join(parts), error
    return b"".join(parts), None


def data_of(body):
    """Return the data of each event that is complete."""
    return [event.partition(b"data: ")[2].decode() for event in body.split(b"\n\n")[:-1]]


def tokens(body):
    """Return the pieces of text in a stream of any format."""
    found = []
    for data in data_of(body):
        with contextlib.suppress(ValueError):
            event = json.loads(data)
            found += [
                choice["text"] if "text" in choice else choice["delta"].get("content")
                for choice in event.get("choices", [])
            ]
            if event.get("type") == "response.output_text.delta":
                found.append(event["delta"])
    return list(filter(None, found))


# Stream


def test_a_stream_has_any_number_of_tokens_or_any_text(fake_upstream, ask):
    """Tokens are numbered; a text is the script's, and wins; a plain reply says the same."""
    fake_upstream.script(Stream(tokens=10), Stream(tokens=0), Stream(text="a b"), Stream(2, text="c"))
    said = []
    for _ in range(4):
        with live(fake_upstream) as response:
            said.append(tokens(read(response)[0]))
    assert said == [TEN, [], ["a", " b"], ["c"]]
    fake_upstream.script(Stream(tokens=10))
    assert ask().json()["choices"][0]["message"]["content"] == "".join(TEN)


def test_a_stream_varies_its_end(fake_upstream, ask):
    """[DONE] and finish_reason may be missing, and usage, headers and reason be anything."""
    fake_upstream.script(
        Stream(done=False, finish_reason=None, headers={"X-Request-Id": "r1"}),
        Stream(finish_reason="length", usage={"total_tokens": 7}),
    )
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    bare, other = ask(payload=asked), ask(payload=asked)
    assert bare.headers["X-Request-Id"] == "r1"
    assert bare.events()[-1][1] != "[DONE]"
    assert all(not chunk["choices"] or not chunk["choices"][0]["finish_reason"] for chunk in bare.chunks())
    assert other.chunks()[-2]["choices"][0]["finish_reason"] == "length"
    assert other.chunks()[-1]["usage"] == {"total_tokens": 7}


@pytest.mark.parametrize("coding", ["chunked", "close", "content-length", "gzip"])
def test_tokens_come_at_their_pace(fake_upstream, coding):
    """Headers and role come first, then the first token, then one after the other, in any coding."""
    fake_upstream.script(Stream(tokens=4, first_token_s=0.04, interval_s=0.02, coding=coding))
    started = time.monotonic()
    with live(fake_upstream) as response:
        unpack = zlib.decompressobj(47 if coding == "gzip" else -15)
        seen, body = {}, b""
        for part in reads(response):
            body += unpack.decompress(part) if coding == "gzip" else part
            seen.setdefault(len(tokens(body)), time.monotonic() - started)
    assert body.endswith(b"data: [DONE]\n\n")
    assert tokens(body) == TEN[:4]
    for count, after_s in seen.items():
        assert after_s >= (0.04 + 0.02 * (count - 1) if count else 0)


@pytest.mark.parametrize("coding", ["chunked", "close", "content-length", "gzip"])
def test_nothing_waits_for_what_comes_later(fake_upstream, coding):
    """What has been said can be read while the rest takes its time, compressed or not."""
    fake_upstream.script(Stream(tokens=2, interval_s=60, coding=coding))
    with live(fake_upstream) as response:
        unpack = zlib.decompressobj(47).decompress if coding == "gzip" else bytes
        body = b""
        for part in reads(response):
            body += unpack(part)
            if tokens(body):
                break
        assert tokens(body) == TEN[:1]
        assert fake_upstream.in_flight == 1


@pytest.mark.parametrize(
    ("coding", "header"),
    [
        ("chunked", ("Transfer-Encoding", "chunked")),
        ("gzip", ("Content-Encoding", "gzip")),
        ("content-length", ("Transfer-Encoding", None)),
        ("close", ("Connection", "close")),
    ],
)
def test_every_coding_says_where_the_body_ends(fake_upstream, session, coding, header):
    """Each coding is named in the headers, and a client finds the whole body in it."""
    fake_upstream.script(Stream(tokens=10, coding=coding))
    url = fake_upstream.url + "/chat/completions"
    reply = session.post(url, json={"stream": True})
    assert reply.headers.get(header[0]) == header[1]
    assert tokens(reply.content) == TEN
    assert reply.content.endswith(b"[DONE]\n\n")
    assert session.post(url, json={}).ok
    assert fake_upstream.connections == (2 if coding == "close" else 1)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_comments_fill_the_pauses(fake_upstream, newline):
    """Comments come while the stream waits, in its own ends of line, and never when it does not."""
    fake_upstream.script(
        Stream(tokens=2, first_token_s=0.05, interval_s=0.03, comments_every_s=0.01, newline=newline)
    )
    with live(fake_upstream) as response:
        body, _error = read(response)
    before, between, after = body.decode().split("token")
    comment = f": keep-alive{newline}{newline}"
    assert (before.count(comment), between.count(comment), after.count(comment)) == (4, 2, 0)


@pytest.mark.parametrize(("newline", "space"), [("\r\n", True), ("\r", True), ("\n", False), ("\r\n", False)])
@pytest.mark.parametrize("path", PATHS)
def test_events_may_be_written_in_other_ways(fake_upstream, path, newline, space):
    """Any end of line and a missing space are the same stream to whoever reads it by the standard."""
    fake_upstream.script(Stream(tokens=10, newline=newline, space=space))
    with live(fake_upstream, path) as response:
        text = read(response)[0].decode()
    assert ("data: " in text) is space
    assert newline == "\n" or "\n" not in text.replace(newline, "")
    usual = text.replace(newline, "\n") if space else text.replace(newline, "\n").replace("data:", "data: ")
    assert tokens(usual.encode()) == TEN


@pytest.mark.parametrize("coding", ["chunked", "close", "gzip"])
def test_a_held_stream_has_said_everything_and_does_not_end(fake_upstream, coding):
    """After [DONE] the connection stays open and silent until the client leaves."""
    fake_upstream.script(Stream(hold=True, coding=coding))
    with live(fake_upstream) as response:
        unpack = zlib.decompressobj(47).decompress if coding == "gzip" else bytes
        body = b""
        for part in reads(response):
            body += unpack(part)
            if body.endswith(b"[DONE]\n\n"):
                break
        assert fake_upstream.in_flight == 1
    assert fake_upstream.wait_for(lambda: fake_upstream.in_flight == 0)


def test_a_large_stream_is_cheap(fake_upstream):
    """Ten thousand tokens without a pause arrive whole, in large reads."""
    fake_upstream.script(Stream(tokens=10_000, coding="content-length"))
    with live(fake_upstream) as response:
        parts = list(reads(response))
    assert len(tokens(b"".join(parts))) == 10_000
    assert len(parts) < 1_000


# Breaks


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("how", ["reset", "close", "chunked", "content-length"])
def test_a_cut_breaks_off_after_its_tokens(fake_upstream, path, how, after):
    """What was said arrives; then the client gets the error that the coding can tell, which is none with close."""
    fake_upstream.script(StreamCut(after=after, tokens=10, how=how))
    errors = {"reset": ConnectionResetError, "close": type(None)}
    with live(fake_upstream, path) as response:
        body, error = read(response)
    assert isinstance(error, errors.get(how, http.client.IncompleteRead))
    assert tokens(body) == TEN[:after]
    assert not any(end in body for end in (b"[DONE]", b'"stop"', b"response.completed"))
    assert fake_upstream.disconnects == 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("comments_every_s", [None, 0.01])
def test_a_stall_goes_silent_with_the_connection_open(fake_upstream, path, comments_every_s):
    """After its tokens come comments or nothing, until the client leaves, which frees the connection at once."""
    fake_upstream.script(StreamStall(after=3, tokens=10, comments_every_s=comments_every_s))
    wanted = b"" if comments_every_s is None else b": keep-alive\n\n" * 3
    with live(fake_upstream, path) as response:
        body = b""
        for part in reads(response):
            body += part
            if len(tokens(body)) == 3 and body.endswith(wanted):
                break
        assert tokens(body) == TEN[:3]
        assert fake_upstream.in_flight == 1
        left = time.monotonic()
    assert fake_upstream.wait_for(lambda: fake_upstream.in_flight == 0)
    assert time.monotonic() - left < 1
    assert fake_upstream.disconnects == 1


def test_an_error_comes_as_an_event(fake_upstream):
    """By default it is OpenAI's error object and ends the stream well; [DONE] and a name only if asked for."""
    fake_upstream.script(
        StreamError(after=3, tokens=10),
        StreamError(after=0, body={"error": {"code": 502}}, done=True, event="error", status=500),
        StreamError(body="overloaded"),
    )
    with live(fake_upstream) as response:
        body, error = read(response)
        assert (response.status, error) == (200, None)
        assert tokens(body) == TEN[:3]
        assert set(json.loads(data_of(body)[-1])["error"]) == {"message", "type", "param", "code"}
    with live(fake_upstream) as response:
        body, _error = read(response)
        assert response.status == 500
        assert tokens(body) == []
        assert body.endswith(b'event: error\ndata: {"error":{"code":502}}\n\ndata: [DONE]\n\n')
    with live(fake_upstream) as response:
        assert read(response)[0].endswith(b"data: overloaded\n\n")


@pytest.mark.parametrize("after", [0, 2, 99])
def test_an_error_of_the_responses_api_is_typed(fake_upstream, after):
    """It counts up like every other event, and has its fields at the top."""
    fake_upstream.script(StreamError(after=after))
    with live(fake_upstream, "/v1/responses") as response:
        body, _error = read(response)
    *others, last = [json.loads(data) for data in data_of(body)]
    assert (last["type"], last["sequence_number"]) == ("error", len(others))
    assert set(last) == {"type", "code", "message", "param", "sequence_number"}
    assert b"event: error\n" in body


@pytest.mark.parametrize("path", PATHS)
def test_garbage_comes_between_good_events(fake_upstream, path):
    """One event is no JSON, or whatever bytes are given, and the rest is as if nothing had happened."""
    fake_upstream.script(StreamGarbage(after=3, tokens=10), StreamGarbage(data=b"two\nlines \xff"))
    with live(fake_upstream, path) as response:
        body, error = read(response)
    (place,) = [place for place, data in enumerate(data_of(body)) if data == '{"choices": [{"del']
    assert error is None
    assert tokens(body) == TEN
    assert len(tokens(b"\n\n".join(body.split(b"\n\n")[: place + 1]))) == 3
    with live(fake_upstream, path) as response:
        assert b"\n\ndata: two\ndata: lines \xff\n\n" in read(response)[0]


@pytest.mark.parametrize(
    "fault",
    [StreamCut(3, 10, 0.02), StreamStall(3, 10, 0.02), StreamError(3, 10, 0.02), StreamGarbage(3, 10, 0.02)],
)
def test_what_comes_before_a_break_has_a_pace_too(fake_upstream, fault):
    """Three tokens have two pauses between them."""
    fake_upstream.script(fault)
    started = time.monotonic()
    with live(fake_upstream) as response, contextlib.suppress(ConnectionResetError):
        body = b""
        for part in reads(response):
            body += part
            if len(tokens(body)) == 3:
                break
    assert time.monotonic() - started >= 0.04


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fault", "nearest"),
    [
        (StreamCut(how="close"), Truncate(how="close")),
        (StreamCut(), Truncate(how="reset")),
        (StreamStall(), Hang()),
        (StreamError(body={"error": "no"}, status=206), ErrorBody({"error": "no"}, 206)),
        (StreamGarbage(), GarbageJson()),
    ],
)
def test_asked_for_no_stream_it_does_the_nearest_thing(fault, nearest, path):
    """To a plain request a stream's fault is the plain fault that has the same effect."""

    def reply(ok):
        return Replies("Hello.", ["m"], None).reply(Message("POST", path, "HTTP/1.1", {}, b"{}"), ok)

    assert fault.answer(reply) == nearest.answer(reply)


def test_a_truncated_reply_may_end_in_a_reset(fake_upstream, ask):
    """Half of the body, then an RST."""
    fake_upstream.script(Truncate(how="reset"))
    with pytest.raises(ConnectionResetError):
        ask()


def test_a_fault_of_ones_own_may_take_its_time(fake_upstream, ask):
    """Anybody may say step by step what goes out, and how."""

    class Backwards(Fault):
        """Stream the events in the wrong order."""

        def answer(self, reply):
            """Turn the healthy reply around."""
            whole = reply(Ok())
            return Answer(Flow(whole, [Step(event.encode(), 0.001) for event in whole.events.all()][::-1]))

    fake_upstream.script(Backwards())
    events = ask(payload={"stream": True}).events()
    assert (events[0], len(events)) == ((None, "[DONE]"), 6)


# Who left


def test_answers_that_nobody_stayed_for_are_counted(fake_upstream, ask):
    """Only a client that hangs up before the last byte counts, not one that has its answer, nor the upstream's end."""
    ask()
    assert fake_upstream.disconnects == 0
    fake_upstream.always(Stream(tokens=1000, interval_s=0.001))
    for count in (1, 2):
        with live(fake_upstream) as response:
            next(reads(response))
        assert fake_upstream.wait_for(lambda count=count: fake_upstream.disconnects == count)
        assert fake_upstream.in_flight == 0
    with live(fake_upstream) as response:
        next(reads(response))
        fake_upstream.kill()
        assert fake_upstream.in_flight == 0
    assert fake_upstream.disconnects == 2
