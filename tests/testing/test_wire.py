"""Bytes to requests, responses to bytes: no socket needed."""

import pytest

from syncfailover.testing.wire import MalformedRequestError, MessageReader, Response, as_response


def reader(data, step):
    """Deliver data in steps of that many bytes, then the end."""
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    return MessageReader(lambda _size: pieces.pop(0) if pieces else b"")


POST = b"POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /z HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"3;note=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
)


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
def test_requests_are_found_however_the_bytes_arrive(step):
    """Pipelined requests, with a length and chunked, come out whole for any split of the stream."""
    messages = reader(POST + CHUNKED + POST, step)
    first, second, third, end = (messages.read() for _ in range(4))
    assert (first.method, first.path, first.body) == ("POST", "/v1/x?y=1", b"hello")
    assert (second.path, second.body) == ("/z", b"abcde")
    assert third == first
    assert end is None


def test_header_names_are_lower_case_and_repeats_are_joined():
    """Headers of the same name become one, separated by a comma."""
    message = reader(b"GET / HTTP/1.1\r\nX-A: 1\r\nx-a:2\r\n\r\n", 100).read()
    assert message.headers == {"x-a": "1, 2"}


def test_a_stream_that_ends_early_is_no_request():
    """A client that leaves in the middle of its body has asked for nothing."""
    assert reader(POST[:-1], 100).read() is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(data):
    """Garbage raises an error that says so."""
    with pytest.raises(MalformedRequestError, match=r"not an HTTP/1\.1 request"):
        reader(data, 100).read()


@pytest.mark.parametrize(
    ("data", "is_last"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        (b"HEAD / HTTP/1.1\r\n\r\n", True),
    ],
)
def test_keep_alive_follows_the_version_and_the_header(data, is_last):
    """HTTP/1.1 keeps a connection unless told otherwise, HTTP/1.0 the other way round."""
    assert reader(data, 100).read().is_last is is_last


def test_given_headers_win_over_default_ones():
    """A response's own headers replace the written ones whatever their case, and stand beside the others."""
    response = Response(429, b"{}", {"content-type": "x/y", "Retry-After": 2})
    assert response.encode() == (
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\ncontent-type: x/y\r\nRetry-After: 2\r\n\r\n{}"
    )


def test_an_unknown_status_is_written_all_the_same():
    """529, which no registry knows, has a reason phrase too."""
    assert Response(529).encode().startswith(b"HTTP/1.1 529 Unknown\r\n")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"a": 1}, (b'{"a":1}', "application/json")),
        ([1], (b"[1]", "application/json")),
        ("é", ("é".encode(), "text/plain; charset=utf-8")),
        (b"\x00", (b"\x00", "text/plain")),
    ],
)
def test_a_body_becomes_what_it_is(body, expected):
    """Text and bytes go out as they are, anything else as JSON."""
    response = as_response(200, body)
    assert (response.body, response.content_type) == expected
