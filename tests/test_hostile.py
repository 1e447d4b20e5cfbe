"""Servers that mean harm, or know no better: no caller is hurt, and the call goes elsewhere."""

import gzip
import http.client
import pickle
import signal
import socket
import threading
import time
from typing import Any, List

import pytest
from fleet import endpoints_of

from syncfailover import (
    AllEndpointsFailed,
    ConfigurationError,
    DeadlineExceeded,
    Endpoint,
    EndpointRegistry,
    FailoverRetry,
    FailoverSession,
)
from syncfailover.testing import FakeUpstream, Ok, Raw, Redirect, Status

CHAT = {"model": "gpt-4.1", "messages": []}


def answer(text: str) -> bytes:
    """Return a whole HTTP reply whose chat says `text`."""
    body = b'{"choices": [{"message": {"content": "%s"}}]}' % text.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize("status", [100, 102, 103])
def test_early_hints_are_not_the_answer(status: int, upstreams: List[FakeUpstream], make_client: Any) -> None:
    """An interim reply is skipped; the next caller does not get this one's answer."""
    hint = b"HTTP/1.1 %d Early\r\nLink: </x>\r\n\r\n" % status
    upstreams[0].calls.script(Raw(hint + answer("one"), close=False), Raw(hint + answer("two"), close=False))
    client = make_client(endpoints_of(upstreams[:1]))
    assert [client.chat("1").text, client.chat("2").text] == ["one", "two"]


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999999999999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\nxx\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\xfd\xfc",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_broken_framing_fails_over(reply: bytes, upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A reply that is no HTTP, or contradicts itself, is a fault of the endpoint, never a raw exception."""
    upstreams[0].calls.always(Raw(reply))
    client = make_client(endpoints_of(upstreams[:2]), timeout=4.0)
    for _ in range(8):
        assert client.chat("Hi").endpoint == "b"
    assert client.status()["a"].breaker == "open"
    assert [state.in_flight for state in client.status().endpoints] == [0, 0]


@pytest.mark.parametrize("code", ["²", "9" * 5000, "", [], {"a": 1}, 10**30, True])
def test_odd_error_codes_are_only_odd(code: Any, upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Whatever stands in an error's code is read or left alone, and no permit is lost over it."""
    upstreams[0].calls.always(Status(500, body={"error": {"code": code, "message": "?"}}))
    first, second = endpoints_of(upstreams[:2])
    client = make_client([first.replace(max_concurrency=1), second])
    assert [client.chat("Hi").endpoint for _ in range(4)] == ["b"] * 4
    assert client.status()["a"].in_flight == 0


def test_a_gzip_bomb_is_put_out(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Decoding is bounded by the deadline."""
    bomb = gzip.compress(b" " * 400_000_000, 9)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    upstreams[0].calls.always(Raw(head + bomb))
    began = time.monotonic()
    assert make_client(endpoints_of(upstreams[:2]), timeout=0.8).chat("Hi").endpoint == "b"
    assert time.monotonic() - began < 1.5


def test_a_handshake_that_never_ends_was_never_sent(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A silent TLS port is gone from at once, even by a caller who must not risk a double bill."""
    listener = socket.create_server(("127.0.0.1", 0))
    silent = Endpoint("silent", f"https://127.0.0.1:{listener.getsockname()[1]}/v1", "k")
    client = make_client(
        [silent, endpoints_of(upstreams[:1])[0].replace(priority=1)],
        max_retries=FailoverRetry(ambiguous="raise"),
        timeout=1.0,
    )
    reply = client.chat("Hi")
    assert [attempt.outcome for attempt in reply.attempts] == ["never_sent", "ok"]
    assert "TLS" in reply.attempts[0].detail
    listener.close()


def test_a_redirect_at_home_does_not_replay_the_callers_key(upstreams: List[FakeUpstream]) -> None:
    """Not even a redirect within the endpoint's own origin is followed with the session's own headers."""
    upstreams[0].calls.always(Redirect(upstreams[0].url + "/other", 307))
    with FailoverSession(endpoints_of(upstreams[:2]), probe_when="never") as session:
        session.headers["Authorization"] = "Bearer callers-key"
        assert session.post("/chat/completions", json=CHAT).url.startswith(upstreams[1].url)
    sent = {request.header("authorization") for upstream in upstreams for request in upstream.requests}
    assert sent == {"Bearer sk-secret-a", "Bearer sk-secret-b"}


@pytest.mark.parametrize("location", ["http://h:99999/", "http://[::1", "//", ""])
def test_a_redirect_to_nowhere_is_a_fault(location: str, upstreams: List[FakeUpstream]) -> None:
    """A location that is no URL fails over like any other redirect."""
    upstreams[0].calls.always(Status(302, headers={"Location": location}))
    with FailoverSession(endpoints_of(upstreams[:2]), probe_when="never") as session:
        assert session.post("/chat/completions", json=CHAT).ok


def test_a_sessions_response_holds_no_key(upstreams: List[FakeUpstream]) -> None:
    """Request, URL, pickle and `raise_for_status()` of a response show what the caller sent, not the endpoint's key."""
    endpoint = endpoints_of(upstreams[:1])[0].replace(params={"key": "param-secret-0123"})
    upstreams[0].calls.always(Status(400))
    with FailoverSession([endpoint], probe_when="never") as session:
        response = session.post("/chat/completions", json=CHAT)
    assert upstreams[0].requests[0].path == "/v1/chat/completions?key=param-secret-0123"
    with pytest.raises(Exception, match="400") as caught:
        response.raise_for_status()
    for shown in (
        response.url,
        str(caught.value),
        str(response.request.headers),
        repr(pickle.dumps(response)),
    ):
        assert "secret" not in shown
    assert (response.endpoint, len(response.attempts)) == ("a", 1)


def test_own_parameters_are_not_logged(upstreams: List[FakeUpstream], make_client: Any, caplog: Any) -> None:
    """urllib3's debug log does not show an endpoint's query parameters, which may hold a key."""
    caplog.set_level("DEBUG")
    endpoint = endpoints_of(upstreams[:1])[0].replace(params={"key": "param-secret-0123"})
    assert make_client([endpoint]).chat("Hi").text
    assert "chat/completions" in caplog.text
    assert "param-secret" not in caplog.text


def test_streams_give_their_connections_back(upstreams: List[FakeUpstream]) -> None:
    """A streamed body that was read to its end frees its connection, although the response is kept."""
    with FailoverSession(endpoints_of(upstreams[:1]), probe_when="never") as session:
        kept = []
        for _ in range(10):
            response = session.post("/chat/completions", json=CHAT, stream=True)
            assert b"".join(response.iter_content(100))
            kept.append(response)
        assert upstreams[0].connections == 1


def test_a_head_and_a_stream_read_whole_are_no_failures(upstreams: List[FakeUpstream]) -> None:
    """What is no JSON by the caller's own wish does not count against the endpoint."""
    events = b"data: {}\n\ndata: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(events)
    with FailoverSession(endpoints_of(upstreams[:2]), probe_when="never") as session:
        for upstream in upstreams[:2]:
            upstream.calls.always(Raw(head + events))
        assert session.post("/chat/completions", json={**CHAT, "stream": True}).content == events
        for upstream in upstreams[:2]:
            upstream.probes.always(Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"))
        assert session.head("/models").ok
        assert all(state.breaker == "closed" for state in session.status().endpoints)
        assert session.metrics()["endpoints"].keys() <= {"a", "b"}


def test_a_slow_listener_holds_up_only_its_own_calls(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Each call tells of its own attempts: nobody delivers for all the others."""
    client = make_client()
    client.on("attempt", lambda event: time.sleep(0.01))  # the slowness is what is tested
    slowest: List[float] = []

    def work() -> None:
        worst = 0.0
        for _ in range(20):
            began = time.monotonic()
            client.chat("Hi")
            worst = max(worst, time.monotonic() - began)
        slowest.append(worst)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(slowest) < 1.0


@pytest.mark.quiet
def test_an_interrupted_listener_costs_no_permit(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Ctrl-C while a listener hears of a change ends the call and gives the half-open trial back."""
    client = make_client(endpoints_of(upstreams[:1]), recovery_timeout=0.05, max_retries=0)
    upstreams[0].calls.script(Status(500), Status(500), Status(500))
    for _ in range(3):
        with pytest.raises(AllEndpointsFailed):
            client.chat("Hi")

    over = threading.Event()

    def leave(event: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        over.wait(5.0)

    stop = client.on("breaker_half_opened", leave)
    assert client.registry.wait_for(lambda now: now["a"].eligible, 2.0)
    # Where the listener is heard late, the call is still under way.
    upstreams[0].calls.script(Ok(delay_s=0.5))
    with pytest.raises(KeyboardInterrupt):
        client.chat("Hi")
    over.set()
    upstreams[0].calls.heal()
    stop()
    assert client.status()["a"].in_flight == 0
    assert client.chat("Hi").text


def test_a_key_is_used_again_once_it_works(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A refused key rests; one good answer, or `reset`, ends the rest."""
    upstreams[0].calls.script(Status(401))
    client = make_client(endpoints_of(upstreams[:2]))
    assert client.chat("Hi").endpoint == "b"
    assert "key rests" in str(client.status())
    client.registry.reset("a")
    assert {client.chat("Hi").endpoint for _ in range(4)} == {"a", "b"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verify", ""),
        ("headers", {"X A": "1"}),
        ("headers", {"X": "\u20ac"}),
        ("headers", {"X": "a\0b"}),
        ("headers", {"Content-Length": "3"}),
        ("headers", {"authorization": "a", "Authorization": "b"}),
        ("params", {"a": "\ud800"}),
        ("proxies", {"http": "http://"}),
        ("proxies", {"http": "ftp://x:1"}),
        ("proxies", {"foo": "http://x:1"}),
        ("proxies", {"http": "http://user:hunter2@x:99999"}),
        ("base_url", "http://exa%mple/v1"),
        ("base_url", "http://a..b/v1"),
        ("base_url", "http://./v1"),
        ("weight", 10**400),
        ("context_window", {1: 5}),
    ],
    ids=repr,
)
def test_what_could_not_be_sent_is_refused_at_once(field: str, value: Any) -> None:
    """A field that would only fail at the first call is an error when the endpoint is made, and shows no password."""
    with pytest.raises(ConfigurationError, match=f"^{field}") as caught:
        Endpoint(**{"name": "a", "base_url": "http://h/v1", field: value})
    assert "hunter2" not in str(caught.value)


def test_swapped_arguments_do_not_show_the_key() -> None:
    """A key in the place of the URL is described, not printed."""
    with pytest.raises(ConfigurationError, match=r"base_url: a text of \d+ characters") as caught:
        Endpoint("main", "sk-proj-0123456789", "https://api.example.com/v1")
    assert "sk-proj" not in f"{caught.value!r} {caught.value.value!r}"


def test_the_peer_of_a_mount_is_checked(upstreams: List[FakeUpstream]) -> None:
    """A prefix that could never match, or a session that is none, is an error at once."""
    registry = EndpointRegistry(endpoints_of(upstreams[:1]))
    for prefix in ("//h/v1", "ftp://h/v1", "https://h/v1?x=1", "https://u:pw@h/v1", "https://h:99999/"):
        with pytest.raises(ConfigurationError, match=r"^prefix: "):
            registry.mount(FailoverSession(registry, probe_when="never"), prefix)
    with pytest.raises(ConfigurationError, match=r"^session: None"):
        registry.mount(None, "https://h/v1")


def test_http_client_still_has_what_we_build_on() -> None:
    """The private method that skips interim replies exists in this Python."""
    assert callable(http.client.HTTPResponse._read_status)


def test_a_listener_that_uses_up_the_time_ends_the_call_as_late(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """No attempt begins after the deadline, whoever took the time, and the error says what was tried."""
    upstreams[0].calls.always(Status(503))
    client = make_client(endpoints_of(upstreams[:2]), balancer="round_robin")
    client.on("failover", lambda event: threading.Event().wait(0.3))
    with pytest.raises(DeadlineExceeded) as caught:
        client.chat("Hi", timeout=0.2)
    assert [attempt.endpoint for attempt in caught.value.attempts] == ["a"]
    assert upstreams[1].requests == []
    assert all(state.in_flight == 0 for state in client.status().values())


def test_a_turn_that_comes_at_the_last_moment_is_no_strange_error(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """Twenty callers whose time ends when the call before theirs does: each is answered, or late."""
    client = make_client(endpoints_of(upstreams[:1], max_concurrency=1), queue_timeout=5.0)
    upstreams[0].delay_s = 0.05
    ends: List[str] = []

    def call(number: int) -> None:
        try:
            ends.append(client.chat("Hi", timeout=0.05 * (number + 1)).text)
        except (DeadlineExceeded, AllEndpointsFailed) as error:
            ends.append(type(error).__name__)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 20
    assert client.metrics()["total_requests"] == 20
    assert client.status()["a"].in_flight == 0


def test_a_text_that_cannot_be_sent_is_no_model(make_client: Any) -> None:
    """A lone surrogate is refused by name, whatever becomes of the model at an endpoint."""
    with pytest.raises(ConfigurationError, match="model: "):
        make_client().chat("Hi", model="\ud800")


def test_a_session_that_was_closed_is_replaced(make_client: Any) -> None:
    """`client.session` is open as long as the client is."""
    client = make_client()
    for _ in range(2):
        with client.session as session:
            assert session.post("/chat/completions", json={"model": "m", "messages": []}).ok
