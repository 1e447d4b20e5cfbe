"""The upstream's life, scripts, log and gauges."""

import collections
import contextlib
import errno
import http.client
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from syncfailover import testing
from syncfailover.testing import (
    Blackhole,
    FakeUpstream,
    Fault,
    Hang,
    Ok,
    Raw,
    Refuse,
    Reset,
    Status,
    Truncate,
)

PROBE = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(upstream, timeout=0.2):
    """Open a connection."""
    return socket.create_connection(("127.0.0.1", upstream.port), timeout)


def refuses(upstream):
    """Whether a connect is refused."""
    try:
        connect(upstream).close()
    except ConnectionRefusedError:
        return True
    return False


# Life and death


def test_nothing_runs_before_it_is_started():
    """A new upstream has no port and no thread, and says so."""
    before = threading.active_count()
    upstream = FakeUpstream("eu-1")
    assert threading.active_count() == before
    assert repr(upstream) == "<FakeUpstream eu-1 http://127.0.0.1:0 stopped, 0 requests>"
    assert not upstream.alive
    with pytest.raises(RuntimeError, match="eu-1 is not started"):
        upstream.kill()


def test_starting_and_stopping_twice_is_starting_and_stopping_once(ask):
    """Start and stop are idempotent, and a restart takes the same port."""
    upstream = FakeUpstream()
    port = upstream.start().start().port
    assert upstream.url == f"http://127.0.0.1:{port}/v1"
    assert upstream.origin == f"http://127.0.0.1:{port}"
    assert ask(to=upstream).status == 200
    upstream.stop()
    upstream.stop()
    assert refuses(upstream)
    with upstream:
        assert upstream.port == port
        assert ask(to=upstream).status == 200
        assert repr(upstream) == f"<FakeUpstream upstream http://127.0.0.1:{port} up, 2 requests>"


def test_stopping_leaves_no_thread_behind():
    """Idle, hanging and delayed connections all end with the upstream."""
    before = set(threading.enumerate())
    with FakeUpstream() as upstream:
        upstream.probes.script(Hang(), Ok(delay_s=60), Ok())
        clients = [connect(upstream) for _ in range(3)]
        for number, client in enumerate(clients, 1):
            client.sendall(PROBE)
            assert upstream.wait_for(number)
        upstream.kill(for_s=60)  # a timer, too
        upstream.revive()
        clients.append(connect(upstream))
    for client in clients:
        client.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(1)
        assert not thread.is_alive(), thread


def test_a_taken_port_is_an_error():
    """Starting on somebody else's port raises, and the upstream stays stopped."""
    with FakeUpstream() as first:
        second = FakeUpstream(port=first.port)
        with pytest.raises(OSError, match="in use"):
            second.start()
        second.stop()
        assert not second.alive


def test_killing_resets_live_connections_and_refuses_new_ones(fake_upstream, ask):
    """A dead upstream is dead at once to all, and comes back on the same port."""
    port = fake_upstream.port
    fake_upstream.probes.script(Ok(), Hang())
    with connect(fake_upstream) as idle, connect(fake_upstream) as waiting:
        idle.sendall(PROBE)
        assert idle.recv(65536)
        waiting.sendall(PROBE)
        assert fake_upstream.wait_for(2)
        fake_upstream.kill()
        for client in (idle, waiting):
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert not fake_upstream.alive
    assert refuses(fake_upstream)
    fake_upstream.refuse()  # the same by its other name, and it changes nothing
    assert refuses(fake_upstream)
    fake_upstream.revive()
    fake_upstream.revive()
    assert (fake_upstream.alive, fake_upstream.port) == (True, port)
    assert ask().status == 200


def test_killing_ends_a_reply_that_nobody_reads(fake_upstream):
    """A connection stuck in the middle of a send does not outlive its upstream."""
    fake_upstream.always(Ok(headers={"X-Large": "x" * 30_000_000}))
    with connect(fake_upstream) as client:
        client.sendall(PROBE)
        assert fake_upstream.wait_for(1)
        assert fake_upstream.wait_for(lambda: fake_upstream.in_flight == 0)
        fake_upstream.kill()
        with pytest.raises(OSError, match="reset"):
            collections.deque(iter(lambda: client.recv(1 << 20), b""), maxlen=0)


def test_a_kill_may_be_for_a_while(fake_upstream, ask):
    """A death for some seconds ends by itself."""
    fake_upstream.kill(for_s=0.05)
    assert refuses(fake_upstream)
    assert fake_upstream.wait_for(lambda: fake_upstream.alive, timeout=2)
    assert ask().status == 200


def test_an_old_timer_does_not_revive_a_new_death(fake_upstream):
    """The last word counts: a kill without an end replaces one with an end."""
    fake_upstream.kill(for_s=0.03)
    fake_upstream.kill()
    assert not fake_upstream.wait_for(lambda: fake_upstream.alive, timeout=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel may answer beyond the backlog")
def test_a_black_hole_swallows_connects_and_requests(fake_upstream, ask):
    """Connects time out, live connections go silent, and on revival the request that was held is answered."""
    with connect(fake_upstream) as live:
        live.sendall(PROBE)
        assert live.recv(65536)
        fake_upstream.blackhole()
        assert not fake_upstream.alive
        with pytest.raises(socket.timeout):
            connect(fake_upstream, 0.05)
        live.settimeout(0.05)
        live.sendall(PROBE)
        with pytest.raises(socket.timeout):
            live.recv(1)
        assert len(fake_upstream.requests) == 1
        fake_upstream.revive()
        live.settimeout(2)
        assert live.recv(65536).endswith(b'{"status":"ok"}')
    assert ask().status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel may answer beyond the backlog")
def test_a_black_hole_may_turn_into_a_refusal(fake_upstream):
    """Killing a black hole resets what it held, unanswered."""
    with connect(fake_upstream) as live:
        live.sendall(PROBE)
        assert live.recv(65536)
        fake_upstream.blackhole()
        live.sendall(PROBE)
        fake_upstream.kill()
        with pytest.raises(ConnectionResetError):
            live.recv(1)
    assert refuses(fake_upstream)


def test_a_request_may_be_the_last_straw(fake_upstream, ask):
    """A scripted Refuse resets its own request and everybody else, before its client learns of it."""
    fake_upstream.script(Refuse())
    with connect(fake_upstream) as idle:
        assert fake_upstream.wait_for(lambda: fake_upstream.connections == 1)
        with pytest.raises(ConnectionResetError):
            ask()
        assert not fake_upstream.alive
        with pytest.raises(ConnectionResetError):
            idle.recv(1)
    assert refuses(fake_upstream)
    assert fake_upstream.requests[0].fault == Refuse()
    fake_upstream.revive()
    assert ask().status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel may answer beyond the backlog")
def test_a_request_may_open_a_black_hole(fake_upstream, ask):
    """A scripted Blackhole resets its own request, silences the port, and ends by itself if asked."""
    fake_upstream.script(Blackhole(for_s=0.2))
    with pytest.raises(ConnectionResetError):
        ask()
    with pytest.raises(socket.timeout):
        connect(fake_upstream, 0.05)
    assert fake_upstream.wait_for(lambda: fake_upstream.alive, timeout=2)
    assert ask().status == 200


def test_many_last_straws_at_once(fake_upstream):
    """Requests that all kill the upstream in the same moment do not wait for one another."""
    fake_upstream.always(Refuse())
    clients = [connect(fake_upstream) for _ in range(8)]
    started = time.monotonic()
    for client in clients:
        with contextlib.suppress(ConnectionError):  # the first may have killed it for the others
            client.sendall(PROBE)
    for client in clients:
        with client, contextlib.suppress(ConnectionError):
            assert client.recv(1) == b""
    assert refuses(fake_upstream)
    assert time.monotonic() - started < 0.9


# Scripts


def test_a_script_is_played_in_order_and_then_the_default(fake_upstream, ask):
    """Each next call takes one fault; when the script is over, the default answers; healing drops both."""
    fake_upstream.always(Status(503))
    fake_upstream.script(Status(429), Ok())
    fake_upstream.script(Status(500))
    assert [ask().status for _ in range(5)] == [429, 200, 500, 503, 503]
    assert ask("/health", payload=None).status == 503
    fake_upstream.script(Status(418))
    fake_upstream.heal()
    assert ask().status == ask("/health", payload=None).status == 200


def test_calls_and_probes_have_scripts_of_their_own(fake_upstream, ask):
    """An endpoint may pass its health checks and fail its calls, or the other way round."""
    fake_upstream.calls.always(Status(500))
    assert [ask("/v1/models", payload=None).status, ask().status] == [200, 500]
    fake_upstream.heal()
    fake_upstream.probes.script(Status(503))
    assert [ask().status, ask("/health?x=1", payload=None).status] == [200, 503]
    assert [request.path for request in fake_upstream.calls.requests] == ["/v1/chat/completions"] * 2
    assert [request.path for request in fake_upstream.probes.requests] == ["/v1/models", "/health?x=1"]


def test_what_is_a_probe_can_be_chosen(ask):
    """GETs of the given paths are probes, and no other request is."""
    with FakeUpstream(probe_paths=["/ping"]) as upstream:
        ask("/ping", to=upstream, payload=None)
        ask("/ping", to=upstream)
        ask("/health", to=upstream, payload=None)
        assert [request.is_probe for request in upstream.requests] == [True, False, False]


def test_only_faults_can_be_scripted(fake_upstream):
    """A status where a fault belongs is refused at once."""
    with pytest.raises(TypeError, match="503 is not a Fault"):
        fake_upstream.script(503)
    with pytest.raises(TypeError, match="not a Fault"):
        fake_upstream.always(Reset)
    assert repr(fake_upstream.calls).startswith("<Channel calls: 0 scripted, then Ok(")


# The log


def test_the_log_has_what_was_asked_and_what_was_answered(fake_upstream, ask):
    """A seen request has its parts, its time, its fault, and shows no key."""
    fake_upstream.script(Status(503))
    before = time.monotonic()
    ask("/v1/chat/completions?a=1", payload={"n": 1}, Authorization="Bearer made-up")
    (seen,) = fake_upstream.requests
    assert (seen.method, seen.path, seen.body, seen.json()) == (
        "POST",
        "/v1/chat/completions?a=1",
        b'{"n": 1}',
        {"n": 1},
    )
    assert seen.header("AUTHORIZATION") == "Bearer made-up"
    assert seen.header("x-none") is None
    assert before <= seen.at <= time.monotonic()
    assert (seen.fault, seen.is_probe, seen.connection) == (Status(503), False, 1)
    assert "made-up" not in repr(seen)
    assert repr(seen).startswith(
        "<SeenRequest POST /v1/chat/completions?a=1 on connection 1: Status(code=503"
    )


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Ok(), 200),
        (Status(429), 429),
        (Truncate(), 200),
        (Raw(b"HTTP/1.1 299 Odd\r\n\r\n"), 299),
        (Raw(b"SSH-2.0-OpenSSH_9.6\r\n"), None),
        (Reset(), None),
        (Hang(0.01), None),
        (Refuse(), None),
    ],
)
def test_the_log_has_the_status_where_one_was_sent(fake_upstream, ask, fault, status):
    """The status is that of the answer, and None where the answer has none."""
    fake_upstream.script(fault)
    with contextlib.suppress(OSError, http.client.HTTPException):
        ask()
    (seen,) = fake_upstream.requests
    assert seen.status == status


def test_clearing_the_log_loses_no_request_that_is_about_to_show(fake_upstream, ask):
    """A request shows once its answer is known, at its place; clearing forgets only what has been shown."""
    asked, gate = threading.Event(), threading.Event()

    class Held(Fault):
        """Reply when the gate opens."""

        def answer(self, reply):
            """Wait for the gate."""
            asked.set()
            gate.wait(10)
            return Ok().answer(reply)

    fake_upstream.script(Held(), Status(503))
    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(5)
    ask()
    assert [request.status for request in fake_upstream.requests] == [503]
    fake_upstream.clear_log()
    ask()
    gate.set()
    thread.join()
    assert [request.fault for request in fake_upstream.requests] == [Held(), Ok()]


def test_the_log_is_a_copy_and_can_be_cleared(fake_upstream, ask):
    """What a test does to the list does nothing to the log."""
    ask()
    fake_upstream.requests.clear()
    assert len(fake_upstream.requests) == 1
    fake_upstream.clear_log()
    assert fake_upstream.requests == []


def test_waiting_ends_when_it_happens_or_when_time_is_up(fake_upstream, ask):
    """One can wait for a count, of all requests or of a channel's, or for anything to be true."""
    assert not fake_upstream.wait_for(1, timeout=0.01)
    thread = threading.Thread(target=lambda: [ask(), ask("/health", payload=None)])
    thread.start()
    assert fake_upstream.wait_for(2)
    assert fake_upstream.probes.wait_for(1)
    assert not fake_upstream.calls.wait_for(2, timeout=0.01)
    assert fake_upstream.wait_for(lambda: fake_upstream.requests)
    thread.join()


# Many at once


def test_it_serves_a_hundred_connections_and_counts_them(fake_upstream):
    """A hundred requests can be in flight; the gauge sees them come and go."""
    gate = threading.Event()

    class Held(Fault):
        """Reply when the gate opens."""

        def answer(self, reply):
            """Wait for the gate."""
            gate.wait(10)
            return Ok().answer(reply)

    fake_upstream.always(Held())
    clients = [connect(fake_upstream, 10) for _ in range(100)]
    for client in clients:
        client.sendall(PROBE)
    assert fake_upstream.wait_for(lambda: fake_upstream.in_flight == 100)
    gate.set()
    for client in clients:
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert fake_upstream.in_flight == 0
    assert (fake_upstream.max_in_flight, fake_upstream.connections) == (100, 100)
    for client in clients:
        client.close()


def test_a_client_with_its_answer_finds_the_gauge_settled(fake_upstream):
    """A request stops being in flight before the last byte of its answer is sent."""
    with connect(fake_upstream) as client:
        for _ in range(200):
            client.sendall(PROBE)
            client.recv(65536)
            assert fake_upstream.in_flight == 0


def test_it_survives_being_killed_and_revived_under_load(fake_upstream, ask):
    """Whatever clients meet meanwhile, afterwards the upstream is whole and nothing is left in flight."""
    over = threading.Event()

    def hammer():
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask()

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(20):
        fake_upstream.kill()
        time.sleep(0.001 * (number % 4))
        fake_upstream.revive()
        time.sleep(0.002 * (number % 5))
    over.set()
    for thread in threads:
        thread.join()
    fake_upstream.revive()
    assert ask().status == 200
    assert fake_upstream.in_flight == 0


def _has_ipv6():
    """Tell whether the machine has an IPv6 loopback, by asking the kernel directly."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(("::1", 9)) == errno.ECONNREFUSED


def test_it_speaks_ipv6_where_there_is_any():
    """An IPv6 host appears in brackets in the URL."""
    upstream = FakeUpstream(host="::1")
    try:
        upstream.start()
    except OSError:
        assert not _has_ipv6()
        return
    with upstream:
        assert upstream.origin == f"http://[::1]:{upstream.port}"
        with socket.create_connection(("::1", upstream.port), 2) as client:
            client.sendall(PROBE)
            assert client.recv(65536).endswith(b'{"status":"ok"}')


def test_it_is_the_standard_library_alone():
    """Importing syncfailover.testing loads no pytest, and none of the rest of syncfailover's dependencies by itself."""
    code = (
        "import importlib.machinery, sys, types\n"
        "package = types.ModuleType('syncfailover')\n"
        "package.__path__ = [sys.argv[1]]\n"  # so that the root's own imports do not count
        "sys.modules['syncfailover'] = package\n"
        "import syncfailover.testing as testing\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'pytest', 'requests', 'urllib3', 'cachetools'}, loaded\n"
        "assert not [n for n in sys.modules if n.startswith('syncfailover.') and '.testing' not in n]\n"
        "assert testing.__all__ == sorted(testing.__all__)\n"
        "assert all(getattr(testing, name).__doc__ for name in testing.__all__)\n"
    )
    root = Path(testing.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code, str(root)], check=True)
