"""Bodies as they arrive: every coding and framing, cut anywhere, over real sockets and without delay."""

import gzip
import socket
import threading
import zlib
from contextlib import contextmanager

import pytest
import urllib3
from urllib3.exceptions import HTTPError

from syncfailover.runtime.live_body import LiveBody

TEXT = b"".join(b"data: token%d \xe2\x82\xac\n\n" % number for number in range(200))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def chunked(data, size):
    """Frame data in chunks."""
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@contextmanager
def serving(*pieces, close=True):
    """Answer one connection with these pieces, each in a send of its own; gives a pool that asks there."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
            if not close:
                done.wait(5)

    thread = threading.Thread(target=serve)
    thread.start()
    with urllib3.HTTPConnectionPool("127.0.0.1", listener.getsockname()[1], timeout=2) as pool:
        try:
            yield pool.urlopen("GET", "/", preload_content=False, retries=False)
        finally:
            done.set()
            thread.join(5)
            listener.close()


def read_all(body):
    """Read to the end; no part is empty but the last."""
    parts = list(iter(body.read, b""))
    return b"".join(parts)


CODINGS = {
    b"": TEXT,
    b"Content-Encoding: gzip\r\n": gzip.compress(TEXT),
    b"Content-Encoding: deflate\r\n": zlib.compress(TEXT),
    b"Content-Encoding: identity\r\n": TEXT,
}


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.decode().strip() or "none")
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_every_coding_and_framing_is_read_whole(coding, framing):
    """Chunked, with a length or until the end, packed or not, the body is what was sent, and reading on gives nothing."""
    data = CODINGS[coding]
    if framing == "chunked":
        pieces = [HEAD + coding + b"Transfer-Encoding: chunked\r\n\r\n", chunked(data, 37)]
    elif framing == "length":
        pieces = [HEAD + coding + b"Content-Length: %d\r\n\r\n" % len(data), data[:99], data[99:]]
    else:
        pieces = [HEAD + coding + b"Connection: close\r\n\r\n", data]
    with serving(*pieces) as raw:
        body = LiveBody(raw)
        assert read_all(body) == TEXT
        assert body.read() == b""
        body.release()


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_body_that_ends_too_soon_is_told(framing):
    """What was promised and did not come is an error, never a quiet end."""
    promise = (
        b"Transfer-Encoding: chunked\r\n\r\n" if framing == "chunked" else b"Content-Length: 9999\r\n\r\n"
    )
    sent = chunked(TEXT, 50)[:300] if framing == "chunked" else TEXT[:300]
    with serving(HEAD + promise, sent) as raw:
        body = LiveBody(raw)
        with pytest.raises((HTTPError, Exception), match=r"missing|IncompleteRead"):
            read_all(body)
        body.close()


def test_the_end_by_length_is_known_without_waiting():
    """A body with a length ends with its last byte, also where the connection stays open."""
    with serving(HEAD + b"Content-Length: %d\r\n\r\n" % len(TEXT), TEXT, close=False) as raw:
        body = LiveBody(raw)
        assert read_all(body) == TEXT
        body.release()


def test_a_part_comes_at_once():
    """A few bytes are given out though the body goes on and nothing more is sent."""
    with serving(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", close=False) as raw:
        body = LiveBody(raw)
        assert body.read() == b"hello"
        body.close()


def test_a_coding_that_nobody_asked_for_is_refused():
    """What cannot be decoded is an error that names it, not a stream of garbage."""
    with serving(HEAD + b"Content-Encoding: br\r\nConnection: close\r\n\r\n", b"xx") as raw, pytest.raises(
        HTTPError, match="not asked for: 'br'"
    ):
        LiveBody(raw)


def test_what_unpacks_to_much_comes_in_small_parts():
    """Ten megabytes packed into ten kilobytes never stand in memory at once."""
    bomb = gzip.compress(b"\n" * 10_000_000)
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with serving(head, bomb) as raw:
        body = LiveBody(raw)
        sizes = [len(part) for part in iter(body.read, b"")]
        assert sum(sizes) == 10_000_000
        assert max(sizes) <= 16 * 1024
        body.release()
