"""Each fault, as a client meets it on the wire."""

import http.client
import socket
import time

import pytest
import requests

from syncfailover.testing import (
    Answer,
    CloseAfter,
    Empty,
    ErrorBody,
    FakeUpstream,
    Fault,
    GarbageJson,
    Hang,
    Html,
    Ok,
    Raw,
    Redirect,
    Reset,
    Status,
    Trickle,
    Truncate,
    WrongLength,
)

PROBE = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def everything(upstream, request=PROBE):
    """Send bytes and read until the upstream closes."""
    with socket.create_connection(("127.0.0.1", upstream.port), 5) as client:
        client.sendall(request)
        parts = []
        while True:
            part = client.recv(65536)
            if not part:
                return b"".join(parts)
            parts.append(part)


def test_ok_may_be_slow(fake_upstream, ask):
    """A delay passes before the first byte."""
    fake_upstream.script(Ok(delay_s=0.05))
    started = time.monotonic()
    assert ask().status == 200
    assert time.monotonic() - started >= 0.05


def test_an_upstream_may_be_slow_as_a_whole(fake_upstream, ask):
    """The upstream's own delay is added to every answer, whatever it is, from the moment it is set."""
    fake_upstream.delay_s = 0.05
    fake_upstream.script(Status(500))
    started = time.monotonic()
    assert ask().status == 500
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("code", [400, 401, 402, 429, 500, 503, 529])
def test_a_status_has_openais_error_by_default(fake_upstream, ask, code):
    """Any error status comes with an error object, and the connection stays usable."""
    fake_upstream.script(Status(code))
    reply = ask()
    assert reply.status == code
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_a_status_may_have_any_body_and_headers(fake_upstream, ask):
    """A list goes out as JSON, text as it is, and headers as given; success has no error body."""
    fake_upstream.script(
        Status(429, [{"error": {"code": 429}}], {"Retry-After": "1.5"}),
        Status(500, "<oops>", {"Content-Type": "text/html"}),
        Status(503, b""),
        Status(204),
    )
    replies = [ask() for _ in range(4)]
    assert replies[0].json() == [{"error": {"code": 429}}]
    assert replies[0].headers["Retry-After"] == "1.5"
    assert (replies[1].body, replies[1].headers["Content-Type"]) == (b"<oops>", "text/html")
    assert [reply.body for reply in replies[2:]] == [b"", b""]


@pytest.mark.parametrize(
    ("fault", "status", "start"),
    [
        (ErrorBody(), 200, b'{"error":{"code":502,'),
        (ErrorBody({"error": "overloaded"}, 206), 206, b'{"error":"overloaded"}'),
        (Html(), 200, b"<!DOCTYPE html>"),
        (Html(502), 502, b"<!DOCTYPE html>"),
        (GarbageJson(), 200, b'{"id":'),
        (Empty(), 200, b""),
    ],
)
def test_a_success_may_be_none(fake_upstream, session, fault, status, start):
    """Replies that look like success arrive whole, with a right length, and keep the connection."""
    fake_upstream.script(fault)
    reply = session.post(fake_upstream.url + "/chat/completions", json={})
    assert reply.status_code == status
    assert reply.headers["Content-Type"].startswith(
        "text/html" if isinstance(fault, Html) else "application/json"
    )
    assert reply.content.startswith(start)
    assert reply.headers["Content-Length"] == str(len(reply.content))
    if isinstance(fault, (GarbageJson, Empty, Html)):
        with pytest.raises(ValueError, match=r"Expecting value|Unterminated string"):
            reply.json()
    assert session.post(fake_upstream.url + "/chat/completions", json={}).ok
    assert fake_upstream.connections == 1


def test_a_reset_comes_after_the_request_was_read(fake_upstream, ask):
    """The client gets an RST instead of a header, and the log has the request."""
    fake_upstream.script(Reset())
    with pytest.raises(ConnectionResetError):
        ask(payload={"n": 1})
    assert fake_upstream.requests[0].json() == {"n": 1}


def test_a_hang_lasts_until_the_client_gives_up(fake_upstream, session):
    """A silent upstream costs the client its read timeout, and then forgets the request."""
    fake_upstream.script(Hang())
    with pytest.raises(requests.ReadTimeout):
        session.post(fake_upstream.url + "/chat/completions", json={}, timeout=0.05)
    session.close()
    assert fake_upstream.wait_for(lambda: fake_upstream.in_flight == 0, timeout=2)


def test_a_hang_may_end_with_a_close(fake_upstream, ask):
    """After its seconds a hang closes the connection without a byte."""
    fake_upstream.script(Hang(0.03))
    with pytest.raises(http.client.RemoteDisconnected):
        ask()


def test_a_trickle_never_pauses_for_long(fake_upstream):
    """The whole reply arrives, headers and all, in as many small pieces as it takes."""
    fake_upstream.always(Trickle(interval_s=0.0005, bytes_per_write=1))
    sizes = []
    with socket.create_connection(("127.0.0.1", fake_upstream.port), 5) as client:
        client.sendall(PROBE)
        data = b""
        while not data.endswith(b'{"status":"ok"}'):
            piece = client.recv(65536)
            sizes.append(len(piece))
            data += piece
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(sizes) > len(data) // 4


@pytest.mark.parametrize("how", ["content-length", "chunked"])
def test_a_truncated_body_is_noticed_when_its_end_was_promised(fake_upstream, how):
    """A body cut short under a length, or in chunks, raises in the client."""
    fake_upstream.script(Truncate(0.5, how))
    connection = http.client.HTTPConnection("127.0.0.1", fake_upstream.port, timeout=5)
    connection.request("POST", "/v1/chat/completions", b"{}", {"Content-Type": "application/json"})
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    connection.close()


def test_a_truncated_body_is_silent_when_nothing_was_promised(fake_upstream, session):
    """Without a length the client takes half a body for a whole one."""
    fake_upstream.script(Truncate(0.5, "close"))
    reply = session.post(fake_upstream.url + "/chat/completions", json={})
    assert reply.status_code == 200
    assert "Content-Length" not in reply.headers
    with pytest.raises(ValueError, match=r"Expecting value|Unterminated string"):
        reply.json()


def test_nothing_at_all_of_a_chunked_body_is_no_end_mark(fake_upstream):
    """A fraction of 0 sends the head alone, not the empty chunk that would end the body."""
    fake_upstream.always(Truncate(0, "chunked"))
    assert everything(fake_upstream).endswith(b"Transfer-Encoding: chunked\r\n\r\n")


def test_a_wrong_length_promises_too_much(fake_upstream):
    """The body is whole, the length is larger, and the connection closes."""
    fake_upstream.always(WrongLength(3))
    data = everything(fake_upstream)
    assert b"Content-Length: 18\r\n" in data
    assert data.endswith(b'{"status":"ok"}')


def test_close_after_breaks_its_promise(fake_upstream):
    """The reply says keep-alive, and the connection closes after it."""
    fake_upstream.always(CloseAfter())
    data = everything(fake_upstream)
    assert b"Connection: keep-alive\r\n" in data
    assert data.endswith(b'{"status":"ok"}')


def test_connections_may_have_a_short_life(ask):
    """With close_after_requests every connection ends silently after that many replies."""
    with FakeUpstream(close_after_requests=2) as upstream:
        data = everything(upstream, PROBE * 3)
        assert data.count(b'{"status":"ok"}') == 2
        assert b"close" not in data


def test_raw_bytes_go_out_as_they_are(fake_upstream):
    """Exactly the bytes given are sent, and the connection closes or stays as asked."""
    fake_upstream.probes.script(Raw(b"HTTP/1.1 100 Continue\r\n\r\n", close=False), Raw(b"SSH-2.0\r\n"))
    assert everything(fake_upstream, PROBE * 2) == b"HTTP/1.1 100 Continue\r\n\r\nSSH-2.0\r\n"


def test_a_redirect_points_elsewhere(fake_upstream, ask):
    """A redirect has its location and its code."""
    fake_upstream.script(Redirect("http://127.0.0.1:1/v1", 307))
    reply = ask()
    assert (reply.status, reply.headers["Location"]) == (307, "http://127.0.0.1:1/v1")


def test_garbage_from_the_client_gets_a_400(fake_upstream):
    """What is not HTTP is told so, and nothing is logged."""
    assert everything(fake_upstream, b"\x16\x03\x01 hello\r\n\r\n").startswith(
        b"HTTP/1.1 400 Bad Request\r\n"
    )
    assert fake_upstream.requests == []


def test_a_fault_of_ones_own_is_a_fault(fake_upstream, ask):
    """Anybody may subclass Fault and say what to answer."""

    class Shout(Fault):
        """Reply in capitals."""

        def answer(self, reply):
            """Change the healthy reply."""
            whole = reply(Ok())
            return Answer(whole._replace(body=whole.body.upper()))

    fake_upstream.script(Shout())
    assert b"HELLO FROM UPSTREAM." in ask().body
