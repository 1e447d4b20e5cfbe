"""Calling an attempt off: its connection is closed at once in every phase, and nobody else's ever is."""

import socket
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest
from fleet import endpoints_of
from runtime.test_wire import certificate

from syncfailover import Endpoint, FailoverClient
from syncfailover.policy.node import Attempt
from syncfailover.policy.received import NEVER_SENT
from syncfailover.runtime.attempt_clock import AttemptClock, KillSwitch
from syncfailover.runtime.exchange import exchange
from syncfailover.runtime.target import EndpointRequest
from syncfailover.runtime.transport import EndpointTransport
from syncfailover.testing import FakeUpstream, Hang

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PHASES = {
    "before headers": None,
    "in the headers": HEAD,
    "in a body": HEAD + b'Content-Length: 1000\r\n\r\n{"choices": [',
    "in a large body": HEAD + b'Content-Length: 10000000\r\n\r\n{"choices": [',
    "in a chunk": HEAD + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"choices": [',
    "between chunks": HEAD + b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"choices": [\r\n',
    "in a body without length": HEAD + b'Connection: close\r\n\r\n{"choices": [',
}


class Stuck:
    """A server that sends part of an answer, and notes when the client hangs up.

    Args:
        part: what it sends after the request; None for nothing.
        listens: whether it reads a request first; a server that does not is stuck in a TLS handshake.

    """

    def __init__(self, part: Optional[bytes] = None, *, listens: bool = True) -> None:
        self._part, self._listens = part, listens
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.left = threading.Event()
        self.received = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(10.0)
        try:
            while self._listens and b"\r\n\r\n" not in self.received:
                self.received += connection.recv(65536)
            if self._part:
                connection.sendall(self._part)
            while True:
                more = connection.recv(65536)
                if not more:
                    break
                self.received += more
        except ConnectionError:
            pass
        except socket.timeout:
            return
        finally:
            connection.close()
        self.left.set()

    def close(self) -> None:
        """Give the port back."""
        self._listener.close()
        self._thread.join(10.0)


class _InOrder:
    """A balancer that takes the first."""

    def pick(self, candidates: Any) -> Any:
        """Take the first."""
        return candidates[0]


@pytest.fixture
def hedging(upstreams: List[FakeUpstream]) -> Iterator[Callable[[str], FailoverClient]]:
    """Make a client that asks the endpoint of this URL first, and is ready to hedge it with a good one."""
    made: List[FailoverClient] = []

    def make(url: str) -> FailoverClient:
        stuck = Endpoint("stuck", url, "k", max_latency_ms=5000)
        client = FailoverClient(
            [stuck, *endpoints_of(upstreams[:1])],
            model="m",
            probe_when="never",
            balancer=_InOrder(),
            hedge_after=50,
            timeout=20.0,
        )
        for _ in range(60):
            client._caller.terms.hedging._lore.budget.deposit()  # type: ignore[union-attr]
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.mark.parametrize("phase", PHASES)
def test_the_losers_connection_is_closed_at_once(phase: str, hedging: Any) -> None:
    """Wherever in the reply the first endpoint is stuck, it sees the client leave, and the caller goes on."""
    server = Stuck(PHASES[phase])
    began = time.monotonic()
    reply = hedging(f"http://127.0.0.1:{server.port}/v1").chat("Hi")
    assert server.left.wait(2.0)
    assert time.monotonic() - began < 1.5
    assert [(a.endpoint, a.outcome) for a in reply.attempts] == [("stuck", "outpaced"), ("a", "ok")]
    assert reply.attempts[0].maybe_billed
    server.close()


def test_a_tls_handshake_is_broken_off(hedging: Any) -> None:
    """An endpoint that accepts and says nothing is left, and no request was sent to it."""
    server = Stuck(listens=False)
    began = time.monotonic()
    reply = hedging(f"https://127.0.0.1:{server.port}/v1").chat("Hi")
    assert server.left.wait(2.0)
    assert time.monotonic() - began < 1.5
    assert (reply.attempts[0].outcome, reply.attempts[0].maybe_billed) == ("outpaced", False)
    assert b"POST" not in server.received
    server.close()


def test_a_connect_is_broken_off(upstreams: List[FakeUpstream], hedging: Any) -> None:
    """A host that does not answer costs the delay, not the connect timeout."""
    client = hedging(upstreams[1].url)
    upstreams[1].blackhole()
    began = time.monotonic()
    reply = client.chat("Hi")
    assert time.monotonic() - began < 1.0
    assert (reply.endpoint, reply.attempts[0].outcome, reply.attempts[0].maybe_billed) == (
        "a",
        "outpaced",
        False,
    )
    upstreams[1].revive()
    assert upstreams[1].calls.requests == []


def test_over_tls_a_silent_endpoint_is_left(tmp_path: Path, upstreams: List[FakeUpstream]) -> None:
    """Below TLS, whose state belongs to the thread that reads: the upstream sees the end, the caller no error."""
    context, bundle = certificate(tmp_path, "localhost")
    with FakeUpstream("tls", tls=context) as secure:
        first = Endpoint(
            "tls", f"https://localhost:{secure.port}/v1", "k", verify=bundle, max_latency_ms=5000
        )
        with FailoverClient(
            [first, *endpoints_of(upstreams[:1])],
            model="m",
            probe_when="never",
            balancer=_InOrder(),
            hedge_after=100,
            timeout=20.0,
        ) as client:
            for _ in range(40):
                client.chat("Hi")
            secure.calls.script(Hang())
            began = time.monotonic()
            assert client.chat("Hi").endpoint == "a"
            assert time.monotonic() - began < 1.5
            assert secure.wait_for(lambda: secure.in_flight == 0)
            assert client.chat("Hi").endpoint == "tls"


def test_what_is_called_off_before_connecting_is_not_sent(upstreams: List[FakeUpstream]) -> None:
    """Neither over a new connection nor over a kept one, which is not tried again either."""
    transport = EndpointTransport(endpoints_of(upstreams)[0])
    target = transport.target("/chat/completions", "m")

    def send(*, called_off: bool) -> Any:
        attempt = _attempt()
        if called_off:
            attempt.abort()
        headers = {**target.headers, "Content-Length": "2"}
        request = EndpointRequest.to(target, "POST", headers, b"{}")
        return exchange(transport, request, AttemptClock.of(attempt, 1.0), ())

    assert send(called_off=True).fault == NEVER_SENT
    assert upstreams[0].requests == []
    assert send(called_off=False).status == 200
    assert send(called_off=True).fault is not None
    assert len(upstreams[0].requests) == 1
    assert send(called_off=False).status == 200
    transport.close()


def _attempt() -> Attempt:
    """Make an attempt that takes part in a race."""
    attempt = Attempt.__new__(Attempt)
    attempt.timeout_s, attempt.repeatable, attempt.aborted, attempt.clock = 5.0, True, False, None
    attempt.race = object()
    return attempt


def test_a_socket_that_was_let_go_is_not_cut() -> None:
    """What was handed on is safe, what is held when it is cut is not, nor what is held later."""
    ours, theirs = socket.socketpair()
    switch = KillSwitch()
    switch.hold(ours)
    switch.let_go()
    switch.cut()
    ours.sendall(b"still there")
    assert theirs.recv(20) == b"still there"
    switch.hold(ours)
    assert theirs.recv(1) == b""
    ours.close()
    switch.cut()
    theirs.close()


def test_a_duplicate_is_closed_when_it_is_let_go() -> None:
    """What was made to cut off a connect leaves no descriptor behind."""
    ours, theirs = socket.socketpair()
    switch = KillSwitch()
    copies = [ours.dup(), ours.dup(), ours.dup()]
    for copy in copies:
        switch.hold(copy, owned=True)
    switch.hold(ours)
    assert [copy.fileno() for copy in copies] == [-1, -1, -1]
    switch.let_go()
    assert ours.fileno() != -1
    ours.close()
    theirs.close()


def test_calling_off_breaks_nobody_elses_call(upstreams: List[FakeUpstream]) -> None:
    """Many threads share few connections while attempts that are just over are called off: each call still succeeds.

    None may be sent twice, so that a connection that was cut would show.
    """
    transport = EndpointTransport(endpoints_of(upstreams)[0])
    target = transport.target("/chat/completions", "m")
    wrong: List[Any] = []
    barrier = threading.Barrier(7)
    over = threading.Event()
    current: List[Optional[Attempt]] = [None] * 6

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(75):
            attempt = _attempt()
            attempt.repeatable = False
            request = EndpointRequest.to(target, "POST", {**target.headers, "Content-Length": "2"}, b"{}")
            received = exchange(transport, request, AttemptClock.of(attempt, 1.0), ())
            if received.fault is not None and not attempt.aborted:
                wrong.append(received.detail)
            current[number] = attempt  # over: whoever calls it off now comes too late

    def call_off() -> None:
        barrier.wait()
        while not over.is_set():
            for attempt in current:
                if attempt is not None:
                    attempt.abort()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    aborter = threading.Thread(target=call_off)
    for thread in [*workers, aborter]:
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    aborter.join()
    transport.close()
    assert wrong == []
    assert len(upstreams[0].requests) == 450


def test_calling_off_in_mid_call_breaks_only_that_call(upstreams: List[FakeUpstream]) -> None:
    """Attempts called off at any moment of theirs, also the very last, leave those of other threads alone."""
    transport = EndpointTransport(endpoints_of(upstreams)[0])
    target = transport.target("/chat/completions", "m")
    wrong: List[Any] = []
    barrier = threading.Barrier(9)
    under_way: List[Attempt] = []
    over = threading.Event()

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(100):
            attempt = _attempt()
            attempt.repeatable = False
            request = EndpointRequest.to(target, "POST", {**target.headers, "Content-Length": "2"}, b"{}")
            clock = AttemptClock.of(attempt, 1.0)
            if number % 2:
                under_way.append(attempt)
            received = exchange(transport, request, clock, ())
            if received.fault is not None and not attempt.aborted:
                wrong.append(received.detail)

    def call_off() -> None:
        barrier.wait()
        while not over.is_set():
            if under_way:
                under_way.pop().abort()
            else:
                over.wait(0.0001)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    aborter = threading.Thread(target=call_off)
    for thread in [*threads, aborter]:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    aborter.join()
    transport.close()
    assert wrong == []
