"""Freezes: whoever slept with its machine marks nobody down for it, and drops what it held; a hung endpoint stays one."""

import socket
import threading
from contextlib import suppress
from typing import Any, Callable, Dict, List, Set

import pytest
from fleet import endpoints_of

from syncfailover import (
    Endpoint,
    EndpointRegistry,
    FailoverClient,
    FailoverSession,
    HealthMonitor,
    ProbeResult,
)
from syncfailover.policy.received import RESET, Received
from syncfailover.runtime.attempt import named
from syncfailover.runtime.crew import Job
from syncfailover.testing import FakeUpstream, ManualClock

NAMES = "abc"


class Crew:
    """Helpers that have not begun yet: the test makes their probes when it likes."""

    def __init__(self) -> None:
        self.jobs: List[Job] = []
        self.running = True

    def do(self, job: Job) -> None:
        """Leave it for later."""
        self.jobs.append(job)


class World:
    """A monitor whose thread is the test, on two clocks: one stands still while the machine sleeps."""

    def __init__(self) -> None:
        self.clock, self.sleepless = ManualClock(), ManualClock(5e6)
        self.registry = EndpointRegistry(
            [Endpoint(name, f"http://127.0.0.1:{port}/v1") for port, name in enumerate(NAMES, 1)],
            clock=self.clock,
        )
        self.dead: Set[str] = set()
        self.monitor = HealthMonitor(
            self.registry, self._probe, chance=lambda: 0.0, sleepless_clock=self.sleepless
        )
        self.crew: Any = Crew()
        self.monitor._crew = self.crew
        self.monitor._rounds.begin(self.clock())

    def _probe(self, endpoint: Endpoint, _timeout_s: float) -> ProbeResult:
        alive = endpoint.name not in self.dead
        return ProbeResult(endpoint.name, alive=alive, detail="HTTP 200" if alive else "connection reset")

    def runs(self, seconds: float) -> None:
        """Let time pass on a machine that is awake."""
        self.clock.advance(seconds)
        self.sleepless.advance(seconds)

    def look(self) -> List[Job]:
        """Have the thread look, and return the probes that it wants made; they are sent, but not answered."""
        self.monitor.tick()
        jobs, self.crew.jobs = self.crew.jobs, []
        for job in jobs:
            job._sent()
        return jobs

    def answered(self, jobs: List[Job]) -> None:
        """Have probes come back."""
        for job in jobs:
            job._done(self._probe(job._endpoint, 1.0))

    def lives(self, looks: int = 4) -> None:
        """Pass some time in which all is well."""
        for _ in range(looks):
            self.answered(self.look())
            self.runs(0.4)

    @property
    def statuses(self) -> Dict[str, str]:
        """What is known."""
        self.runs(0.3)  # or it would be that of a moment ago
        return {state.name: state.status.value for state in self.registry.snapshot().endpoints}


@pytest.fixture
def world() -> World:
    """A monitor on two clocks, of three endpoints that are well."""
    made = World()
    made.lives()
    assert set(made.statuses.values()) == {"healthy"}
    return made


def sleeps(world: World) -> None:
    """Sleep as a laptop does: the monotonic clock stands still."""
    world.sleepless.advance(8 * 3600.0)


def stops(world: World) -> None:
    """Stop as by SIGSTOP: all clocks go on."""
    world.runs(20.0)


either = pytest.mark.parametrize("freezes", [sleeps, stops])


def all_failed(world: World) -> Dict[str, int]:
    """Count the failures in a row of each endpoint."""
    return {name: node.health._bad for name, node in world.registry._pool.nodes.items()}


@either
def test_probes_under_way_prove_nothing(freezes: Callable[[World], None], world: World, caplog: Any) -> None:
    """Whatever becomes of them, before the thread has looked or after it; everybody is probed anew at once."""
    caplog.set_level("INFO")
    world.runs(1.0)
    before = world.look()
    assert len(before) == 3
    world.runs(0.3)
    freezes(world)
    world.dead.update(NAMES)
    world.answered(before[:1])
    assert all_failed(world) == {"a": 0, "b": 0, "c": 0}, "connections that broke in the night are no outage"
    anew = world.look()
    assert [job._endpoint.name for job in anew] == list(NAMES)
    world.answered(before)
    assert all_failed(world) == {"a": 0, "b": 0, "c": 0}
    (line,) = [message for message in caplog.messages if "woke" in message]
    assert "s late, as after a sleep of the machine" in line
    world.dead.clear()
    world.answered(anew)
    assert set(world.statuses.values()) == {"healthy"}


@either
def test_sleep_is_no_latency(freezes: Callable[[World], None], world: World) -> None:
    """An answer that was there in the morning says nothing of how quick its endpoint is."""
    world.runs(1.0)
    (job, *_others) = world.look()
    freezes(world)
    job._done(ProbeResult("a", alive=True, detail="HTTP 200", latency_ms=8 * 3600e3))
    world.answered(world.look())
    assert world.statuses["a"] == "healthy"
    assert world.registry.snapshot()["a"].latency_ms is None


def test_who_was_unknown_is_not_marked_down_by_a_freeze() -> None:
    """Where the first check decides at once, a frozen one decides nothing."""
    world = World()
    before = world.look()
    stops(world)
    world.dead.update(NAMES)
    world.answered(before)
    world.look()
    assert set(world.statuses.values()) == {"unknown"}


@either
def test_what_is_dead_after_it_is_found_dead(freezes: Callable[[World], None], world: World) -> None:
    """The probes that follow count as ever."""
    world.look()
    freezes(world)
    world.dead.add("b")
    for _ in range(14):
        world.answered(world.look())
        world.runs(0.5)
    assert world.statuses == {"a": "healthy", "b": "unhealthy", "c": "healthy"}


def test_calls_under_way_open_no_breaker(world: World) -> None:
    """Connections that broke in the night are no failures of their endpoint; those that break in the day are."""
    failed = named(Received(fault=RESET, detail="connection reset"), None)
    for frozen, state in ((True, "closed"), (False, "open")):
        attempts = [world.registry.acquire(exclude="bc") for _ in range(3)]
        if frozen:
            stops(world)
            world.lives(1)
        for attempt in attempts:
            world.registry.report(attempt, failed)
        world.runs(0.3)
        assert world.registry.snapshot()["a"].breaker == state


def test_a_busy_machine_is_no_excuse(world: World) -> None:
    """A look that is a little late, and a probe that is not back, is what it looks like."""
    world.runs(1.0)
    jobs = world.look()
    assert len(jobs) == 3
    world.answered(jobs[1:])
    world.runs(2.4)  # a look was due after half a second
    world.look()
    assert all_failed(world) == {"a": 1, "b": 0, "c": 0}
    assert "not back within" in world.registry.snapshot()["a"].reason


def test_a_clock_that_was_set_back_excuses_nothing(world: World) -> None:
    """Where the clock that goes on is that of the day, it may jump; only a jump ahead looks like sleep."""
    world.runs(1.0)
    world.look()
    world.sleepless._now -= 3600.0
    world.runs(1.2)
    world.look()
    assert all_failed(world) == {"a": 1, "b": 1, "c": 1}


def test_freezes_do_not_hide_an_outage_for_ever(world: World) -> None:
    """An endpoint that hangs is given up on though each of its probes was frozen; one that answers in between is not."""
    for _ in range(11):
        world.runs(3.0)  # where nothing was due for longer than half a second
        world.answered([job for job in world.look() if job._endpoint.name != "b"])
    assert world.statuses == {"a": "healthy", "b": "unhealthy", "c": "healthy"}


def test_a_long_interval_hides_no_freeze() -> None:
    """What tells a freeze is how late a look is, however rare probes are."""
    world = World()
    world.monitor = HealthMonitor(
        world.registry,
        world._probe,
        interval=600.0,
        chance=lambda: 0.0,
        sleepless_clock=world.sleepless,
    )
    world.monitor._crew = world.crew
    world.monitor._rounds.begin(world.clock())
    assert len(world.look()) == 3
    stops(world)
    assert len(world.look()) == 3
    assert all_failed(world) == {"a": 0, "b": 0, "c": 0}


def test_who_waits_for_a_helper_is_not_down(world: World) -> None:
    """Where there are fewer helpers than endpoints that hang, the others are not marked down for standing in line."""
    world.runs(1.0)
    for _ in range(10):
        world.monitor.tick()
        world.runs(0.5)
    assert len(world.crew.jobs) == 3
    assert all_failed(world) == {"a": 0, "b": 0, "c": 0}


class Server:
    """A server that answers every request, and notes who has closed a connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.opened, self.closed = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self.opened.release()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        body = b'{"choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}'
        with connection:
            while connection.recv(65536):  # a request is one piece
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        self.closed.release()

    def close(self) -> None:
        """Serve no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def test_idle_connections_of_everybody_are_dropped() -> None:
    """Of all clients and sessions that share the monitor: whoever is at the other end sees it; calls open new ones."""
    server = Server()
    registry = EndpointRegistry([Endpoint("a", server.url)], probe_interval=1e6)
    with FailoverClient(registry, model="m", probe_interval=1e6) as one, FailoverSession(
        registry, probe_interval=1e6
    ) as other:
        for _ in range(2):
            assert one.chat("before").text == "Hi"
            assert other.get("/anything").ok
        assert one._monitor is other._door.monitor
        assert not server.closed.acquire(blocking=False)
        one._monitor._thaw(30.0)
        assert all(server.closed.acquire(timeout=5.0) for _ in range(2))
        (again,) = one.chat("after").attempts
        assert again.outcome == "ok"
        assert other.get("/anything").ok
        assert sum(server.opened.acquire(blocking=False) for _ in range(9)) >= 4
    server.close()


def test_dropping_leaves_the_pool_as_it_was(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """No connection is lost from it or too many in it, whether it was opened, closed, or is in use."""
    client = make_client(endpoints_of(upstreams[:1]))
    (transport,) = client._caller.transports
    transport.drop_idle()
    client.chat("Hi")
    waiting = transport._pool.pool
    size = waiting.qsize()
    for _ in range(2):
        transport.drop_idle()
        assert waiting.qsize() == size
    connection = transport._pool._get_conn()
    transport.drop_idle()
    assert waiting.qsize() == size - 1
    transport._pool._put_conn(connection)
    assert client.chat("Hi").text
    assert transport._pool.pool is waiting
    transport._pool.close()
    transport.drop_idle()
