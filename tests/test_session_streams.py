"""A session with `stream=True`: the body is the caller's to read, byte for byte, and failing over ends where it begins."""

import gzip
import time
from typing import Any, Iterator, List

import pytest
import requests
from fleet import endpoints_of

from syncfailover import Endpoint, FailoverSession
from syncfailover.testing import FakeUpstream, Hang, Raw, Status, Stream, StreamCut, StreamStall, Truncate

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
#: A busy machine may take so many seconds more.
SLACK_S = 0.5


@pytest.fixture
def session(upstreams: List[FakeUpstream]) -> Iterator[FailoverSession]:
    """A session over three upstreams."""
    with FailoverSession(endpoints_of(upstreams), probe_when="never", timeout=5) as session:
        yield session


def post(session: FailoverSession, **options: Any) -> Any:
    """Ask for a stream."""
    return session.post("/chat/completions", json=CHAT, stream=True, **options)


def names(response: Any) -> List[Any]:
    """Return endpoint and outcome of each attempt."""
    return [attempt[:2] for attempt in response.attempts]


# What comes is what was sent


#: Content codings, with bytes that nobody here needs to understand.
BODIES = [
    pytest.param({"Content-Encoding": "br"}, b"\x8b\x02\x80not really brotli\x03", id="brotli"),
    pytest.param({"Content-Encoding": "zstd"}, b"\x28\xb5\x2f\xfdnot really zstd", id="zstd"),
    pytest.param({"Content-Encoding": "gzip"}, gzip.compress(b'{"choices": []}' * 100), id="gzip"),
    pytest.param({"Content-Type": "text/event-stream"}, b"data: 1\r\n\r\n: c\r\rdata:2\n\n", id="events"),
    pytest.param({"Content-Type": "audio/mpeg"}, bytes(range(256)) * 300, id="binary"),
    pytest.param({"Content-Type": "text/html"}, b"<html></html>", id="html"),
    pytest.param({}, b'{"error": {"message": "in the body"}}', id="an error with status 200"),
    pytest.param({}, b"", id="empty"),
]


@pytest.mark.parametrize(("headers", "body"), BODIES)
def test_raw_bytes_pass_through_untouched(
    session: FailoverSession, upstreams: List[FakeUpstream], headers: Any, body: bytes
) -> None:
    """Whatever its coding, the body arrives as it was sent, with its headers, and nothing of it was read before."""
    upstreams[0].script(Status(200, body, headers))
    with post(session) as response:
        assert response.raw.read(decode_content=False) == body
        for name, value in headers.items():
            assert response.headers[name] == value
    assert names(response) == [("a", "ok")]


def test_requests_decodes_what_it_can(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """Gzip is decoded by the response's own methods, as ever."""
    text = b"data: 1\n\n" * 50
    upstreams[0].script(Status(200, gzip.compress(text), {"Content-Encoding": "gzip"}))
    assert b"".join(post(session).iter_content(7)) == text


@pytest.mark.parametrize("coding", ["chunked", "content-length", "close", "gzip"])
def test_events_arrive_in_every_coding(
    session: FailoverSession, upstreams: List[FakeUpstream], coding: str
) -> None:
    """The same events come out, however the body is framed; chunks are the connection's matter."""
    upstreams[0].script(Stream(tokens=5, coding=coding))
    body = b"".join(post(session).iter_content(None))
    assert body.count(b"data: ") >= 7
    assert body.endswith(b"data: [DONE]\n\n")


def test_the_first_event_arrives_before_the_second_is_sent(
    session: FailoverSession, upstreams: List[FakeUpstream]
) -> None:
    """Nothing waits for the rest of the body."""
    upstreams[0].script(StreamStall(after=1))
    with post(session) as response:
        parts = response.iter_content(None)
        assert b'"role":"assistant"' in next(parts)
        assert upstreams[0].in_flight == 1


# Where failing over ends


@pytest.mark.parametrize("how", ["reset", "chunked", "content-length"])
def test_before_the_first_byte_another_endpoint_answers(
    session: FailoverSession, upstreams: List[FakeUpstream], how: str
) -> None:
    """Headers alone are no answer: a connection that ends before the body begins is a failed attempt."""
    upstreams[0].script(Truncate(0.0, how=how))
    response = post(session)
    assert b"[DONE]" in response.content
    assert names(response) == [("a", "truncated"), ("b", "ok")]
    assert response.attempts[0].maybe_billed
    assert response.url.startswith(upstreams[1].url)


@pytest.mark.parametrize("beginning", [b"H", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"])
def test_headers_that_end_in_the_middle(
    session: FailoverSession, upstreams: List[FakeUpstream], beginning: bytes
) -> None:
    """A reply that breaks within its headers is a failed attempt as well."""
    upstreams[0].script(Raw(beginning))
    response = post(session)
    assert b"[DONE]" in response.content
    assert [name for name, _ in names(response)] == ["a", "b"]


def test_headers_and_silence(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """A body that does not begin in the attempt's time is not waited for."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    upstreams[0].script(Raw(head, close=False))
    began = time.monotonic()
    response = post(session, timeout=0.4)
    assert names(response) == [("a", "silent"), ("b", "ok")]
    assert 0.18 < time.monotonic() - began < 0.2 + SLACK_S


@pytest.mark.parametrize("how", ["reset", "chunked", "content-length"])
def test_after_the_first_byte_the_reader_gets_requests_own_error(
    session: FailoverSession, upstreams: List[FakeUpstream], how: str
) -> None:
    """What was read stays read: nobody else is asked, and what breaks the body raises as it does without us."""
    upstreams[0].script(StreamCut(after=3, tokens=10, how=how))
    response = post(session)
    read = []
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)) as caught:
        read.extend(response.iter_content(None))
    assert type(caught.value).__module__ == "requests.exceptions"
    assert b"token0" in b"".join(read) or how == "content-length"
    assert names(response) == [("a", "ok")]
    assert not upstreams[1].requests
    assert post(session).ok


# Its end


def test_reading_to_the_end_keeps_the_connection(upstreams: List[FakeUpstream]) -> None:
    """One connection serves call after call."""
    with FailoverSession(endpoints_of(upstreams[:1]), probe_when="never") as session:
        for _ in range(3):
            assert post(session).content.endswith(b"[DONE]\n\n")
    assert upstreams[0].connections == 1


def test_closing_frees_the_connection(upstreams: List[FakeUpstream]) -> None:
    """The server is hung up on at once, no permit stays out, and the next call is answered."""
    endpoint = Endpoint("a", upstreams[0].url, max_concurrency=1)
    with FailoverSession([endpoint], probe_when="never") as session:
        upstreams[0].script(StreamStall(after=1), Stream(tokens=1000, interval_s=0.01))
        for _ in range(2):
            response = post(session)
            parts = response.iter_content(None)
            next(parts)
            response.close()
            assert upstreams[0].wait_for(lambda: upstreams[0].in_flight == 0, 2.0)
        assert upstreams[0].disconnects == 2
        assert [state.in_flight for state in session.registry.snapshot().endpoints] == [0]
        assert post(session).ok


# Its time


def test_the_body_may_take_what_the_whole_call_has_left(
    session: FailoverSession, upstreams: List[FakeUpstream]
) -> None:
    """An attempt's share ends with the headers and the first byte."""
    upstreams[0].script(Stream(tokens=20, interval_s=0.02))
    began = time.monotonic()
    assert b"token19" in post(session, timeout=0.6 + SLACK_S).content
    assert time.monotonic() - began > 0.37
    with FailoverSession(endpoints_of(upstreams[:2]), probe_when="never") as other:
        upstreams[0].script(Stream(tokens=20, interval_s=0.02))
        response = post(other, timeout=(1.0, 0.1))
        assert b"token19" in response.content
        assert names(response) == [("a", "ok")]


@pytest.mark.parametrize(
    "fault", [Stream(tokens=1000, interval_s=0.02), StreamStall(after=1)], ids=["slow", "silent"]
)
def test_a_body_that_outlasts_the_call_raises(upstreams: List[FakeUpstream], fault: Any) -> None:
    """A byte now and then does not stretch the deadline, and utter silence does not either."""
    upstreams[0].script(fault)
    with FailoverSession(endpoints_of(upstreams[:2]), probe_when="never", timeout=0.3) as session:
        began = time.monotonic()
        response = post(session)
        with pytest.raises(requests.ConnectionError, match="timed out"):
            list(response.iter_content(None))
        assert 0.28 < time.monotonic() - began < 0.3 + SLACK_S
        assert names(response) == [("a", "ok")]
        assert post(session).ok
    assert upstreams[0].wait_for(lambda: upstreams[0].in_flight == 0, 2.0)


def test_headers_that_outlast_the_attempt_go_elsewhere(
    session: FailoverSession, upstreams: List[FakeUpstream]
) -> None:
    """The attempt's share of the deadline bounds the wait for headers."""
    upstreams[0].script(Hang())
    began = time.monotonic()
    response = post(session, timeout=0.4)
    assert names(response) == [("a", "silent"), ("b", "ok")]
    assert 0.18 < time.monotonic() - began < 0.2 + SLACK_S
    assert response.content.endswith(b"[DONE]\n\n")
