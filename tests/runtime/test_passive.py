"""Passive mode: where no thread can run, calls keep fresh what is known, one at a time, and are not the slower for it."""

import os
import subprocess
import sys
import textwrap
import threading
from types import ModuleType
from typing import Any, Dict, List

import pytest
from fleet import endpoints_of
from forked import in_child, no_more_threads

from syncfailover import Endpoint, EndpointRegistry, FailoverClient, HealthMonitor, ProbeResult
from syncfailover.policy.outcome import SUCCEEDED
from syncfailover.runtime import process
from syncfailover.testing import FakeUpstream, Hang, ManualClock

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

#: Three intervals and a timeout: older than that nobody is known.
STALE_S = 3 * 2.0 + 1.0


class Probed:
    """A probe that notes whom it asks; it finds everybody alive, after a time by the clock if it is told so."""

    def __init__(self, clock: ManualClock) -> None:
        self.names: List[str] = []
        self.takes_s = 0.0
        self.stuck = threading.Event()
        self.stuck.set()
        self._clock = clock

    def __call__(self, endpoint: Endpoint, _timeout_s: float) -> ProbeResult:
        """Probe."""
        self.names.append(endpoint.name)
        self.stuck.wait(5.0)
        self._clock.advance(self.takes_s)
        return ProbeResult(endpoint.name, alive=True, detail="HTTP 200", latency_ms=1.0)


class World:
    """A registry of three on a clock of its own, in a process that can start threads or cannot."""

    def __init__(self, monkeypatch: Any) -> None:
        self.clock = ManualClock()
        self.has_threads = False
        self.registry = EndpointRegistry(
            [Endpoint(name, f"http://127.0.0.1:{port}/v1") for port, name in enumerate("abc", 1)],
            clock=self.clock,
        )
        self.probed = Probed(self.clock)
        real = process.start_thread

        def start(*args: Any) -> threading.Thread:
            if not self.has_threads:
                raise process.NoThread("can't start new thread: raise the limit")
            return real(*args)

        monkeypatch.setattr(process, "start_thread", start)

    def monitor(self, probe_when: str = "always") -> HealthMonitor:
        """Make a monitor of the registry."""
        return HealthMonitor(self.registry, self.probed, probe_when=probe_when)

    def call(self, monitor: HealthMonitor, calls: int = 1, total_s: float = 30.0) -> List[str]:
        """Begin calls, one after the other, and return whom they have probed."""
        before = len(self.probed.names)
        for _ in range(calls):
            monitor.start(total_s)
        return self.probed.names[before:]


@pytest.fixture
def world(monkeypatch: Any) -> World:
    """Three endpoints, a clock, and no threads."""
    return World(monkeypatch)


def test_calls_probe_who_was_not_heard_of_for_too_long(world: World) -> None:
    """Each call one of them, the one that was silent for the longest; then nobody for as long again."""
    monitor = world.monitor()
    assert world.call(monitor, 5) == []
    world.clock.advance(STALE_S - 0.1)
    assert world.call(monitor, 5) == []
    world.clock.advance(0.1)
    assert world.call(monitor) == ["a"]
    assert sorted(world.call(monitor, 5)) == ["b", "c"]
    world.clock.advance(STALE_S - 0.1)
    assert world.call(monitor, 5) == []
    world.clock.advance(0.1)
    assert len(world.call(monitor, 5)) == 3


def test_the_first_call_waits_for_no_probe(world: World) -> None:
    """However long the program has been there, and however old is what it knows."""
    monitor = world.monitor()
    world.registry.probed(ProbeResult("b", alive=True, detail="HTTP 200"))
    world.clock.advance(1000.0)
    assert world.call(monitor) == []
    assert world.call(monitor) == ["b"]
    assert world.call(monitor) == []


def test_nobody_waits_for_the_one_that_probes(world: World) -> None:
    """While one call probes, twenty others go on at once, and probe nobody."""
    monitor = world.monitor()
    monitor.start()
    world.clock.advance(STALE_S)
    world.probed.stuck.clear()
    prober = threading.Thread(target=monitor.start)
    prober.start()
    while not world.probed.names:
        threading.Event().wait(0.001)
    barrier = threading.Barrier(20)
    others = [threading.Thread(target=lambda: (barrier.wait(), monitor.start())) for _ in range(20)]
    for other in others:
        other.start()
    for other in others:
        other.join(4.0)
    assert not any(other.is_alive() for other in others)
    assert prober.is_alive()
    assert world.probed.names == ["a"]
    world.probed.stuck.set()
    prober.join(5.0)


def test_who_answers_calls_is_not_probed(world: World) -> None:
    """Live traffic tells as much as a probe."""
    monitor = world.monitor()
    monitor.start()
    world.clock.advance(STALE_S - 1.0)
    attempt = world.registry.acquire(exclude="bc")
    world.registry.report(attempt, SUCCEEDED)
    world.clock.advance(1.0)
    assert sorted(world.call(monitor, 5)) == ["b", "c"]


def test_a_probe_takes_no_more_than_a_quarter_of_a_call(world: World) -> None:
    """A call in a hurry leaves it to another one."""
    monitor = world.monitor()
    monitor.start()
    world.clock.advance(STALE_S)
    assert world.call(monitor, 3, total_s=3.9) == []
    assert world.call(monitor, total_s=4.0) == ["a"]


def test_what_a_probe_takes_is_part_of_the_call(
    world: World, upstreams: List[FakeUpstream], monkeypatch: Any
) -> None:
    """It counts in the call's time and in its latency."""
    registry = EndpointRegistry(endpoints_of(upstreams), clock=world.clock)
    monitor = HealthMonitor(registry, world.probed)
    with FailoverClient(registry, model="m") as client:
        monkeypatch.setattr(client._caller, "monitor", monitor)
        client.chat("first")
        world.clock.advance(100.0)
        world.probed.takes_s = 0.9
        assert client.chat("second").latency_ms >= 900.0


def test_threads_are_asked_for_again(world: World) -> None:
    """A limit that ends is noticed within half a minute; until then nobody asks in vain."""
    monitor = world.monitor()
    assert world.registry.snapshot().mode == "active", "for all that anybody knows"
    monitor.start()
    world.clock.advance(1.0)
    assert world.registry.snapshot().mode == "passive"
    world.has_threads = True
    world.clock.advance(28.9)
    monitor.start()
    assert not monitor.running
    world.clock.advance(0.1)
    monitor.start()
    assert monitor.running
    world.clock.advance(1.0)
    assert world.registry.snapshot().mode == "active"
    monitor.close()


def test_never_is_passive_and_keeps_fresh_what_a_probe_once_told(world: World) -> None:
    """Without a thread though there could be one; who was never probed never is, whatever calls it answers."""
    world.has_threads = True
    monitor = world.monitor("never")
    assert world.registry.snapshot().mode == "passive"
    monitor.start()
    world.registry.report(world.registry.acquire(), SUCCEEDED)
    world.clock.advance(1000.0)
    assert world.call(monitor, 5) == []
    world.registry.probed(ProbeResult("c", alive=True, detail="HTTP 200"))
    world.clock.advance(STALE_S)
    assert world.call(monitor, 5) == ["c"]
    assert not monitor.running


def test_who_never_probes_does_not_hide_who_does(world: World) -> None:
    """Over one registry the mode is that of whoever probes."""
    world.has_threads = True
    registry, transports = world.registry, HealthMonitor(world.registry, world.probed)._transports
    users = [ManualClock(), ManualClock()]
    active = HealthMonitor.shared(registry, transports, "always", users[0])
    HealthMonitor.shared(registry, transports, "never", users[1])
    assert registry.snapshot().mode == "active"
    active.close()


def test_a_running_thread_costs_a_call_nothing(world: World) -> None:
    """Not even a look at the clock."""
    world.has_threads = True
    monitor = world.monitor()
    monitor.start()
    real, looks = world.registry.clock, []
    world.registry.clock = lambda: looks.append(threading.current_thread().name) or real()
    assert monitor.start() == 0.0
    assert threading.current_thread().name not in looks
    monitor.close()


def test_ready_is_told_in_time_where_calls_probe(
    world: World, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """All are probed here and now, but no more are begun once the time is over."""
    client = make_client(probe_when="always", probe_timeout=5.0)
    assert client.wait_until_ready(15.0)
    assert all(state.status.value == "healthy" for state in client.status().endpoints)
    for upstream in upstreams:
        upstream.probes.always(Hang())
    fresh = make_client(probe_when="always", probe_timeout=0.2)
    assert not fresh.wait_until_ready(0.1)
    asked = sum(len(upstream.probes.requests) for upstream in upstreams)
    assert asked == 3 + 1, "the second and the third would have been too late"


# Real limits


def passively(client: FailoverClient, caplog: Any) -> Dict[str, Any]:
    """Call where no thread can run and endpoint a is dead; tell how that went."""
    texts = [client.chat("Hi").text for _ in range(12)]
    heard: List[str] = []
    client.on("breaker_opened", lambda event: heard.append(event.endpoint))
    client.registry.force_open("b")
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("syncfailover-")]
    return {
        "answers": sum(text.startswith("Hello") for text in texts),
        "mode": client.status().mode,
        "a": client.status()["a"].breaker.value,
        "heard": heard,
        "threads": ours,
        "told": [record.getMessage() for record in caplog.records if record.name == process.__name__],
    }


def expected(why: str) -> Dict[str, Any]:
    """Return how it has to go, and what is said."""
    told = (
        f"no background thread can run ({why}); endpoints are probed by the calls that find them not heard of"
    )
    return {"answers": 12, "mode": "passive", "a": "open", "heard": ["b"], "threads": [], "told": [told]}


def test_everything_works_at_the_limit_of_threads(upstreams: List[FakeUpstream], caplog: Any) -> None:
    """Calls, breakers and listeners; one warning says what to do."""
    upstreams[0].kill()
    client = FailoverClient(endpoints_of(upstreams), model="m", timeout=5.0, hedge_after=1.0)

    def work() -> Any:
        no_more_threads()
        return passively(client, caplog)

    why = "can't start new thread: raise the limit: ulimit -u, or pids.max of the container"
    assert in_child(work, os.fork) == str(expected(why))


def test_everything_works_under_uwsgi_without_threads(
    upstreams: List[FakeUpstream], make_client: Any, caplog: Any, monkeypatch: Any
) -> None:
    """Which has them stand still between requests, so none is begun."""
    uwsgi: Any = ModuleType("uwsgi")
    uwsgi.has_threads = 0
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    monkeypatch.setattr(process, "_to_be_told", [True])
    upstreams[0].kill()
    client = make_client(probe_when="always")
    why = "uWSGI runs without threads: start it with --enable-threads"
    assert passively(client, caplog) == expected(why)


def run(program: str, upstreams: List[FakeUpstream]) -> "subprocess.CompletedProcess[str]":
    """Run a program that has `endpoints`, with every warning an error."""
    head = f"""
        import atexit, sys, threading
        from syncfailover import Endpoint, FailoverClient
        endpoints = [Endpoint(f"e{{n}}", url, "key") for n, url in enumerate({[up.url for up in upstreams]})]
    """
    text = textwrap.dedent(head) + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, timeout=30.0, check=False
    )


AT_EXIT: Dict[str, str] = {
    "a client that has called": """
        client = FailoverClient(endpoints, model="m", hedge_after=1000.0)
        print(client.chat("Hi").text)
        atexit.register(lambda: print(client.chat("Hi").text))
        """,
    "a client that has not": """
        client = FailoverClient(endpoints, model="m", hedge_after=1000.0)
        print("")
        atexit.register(lambda: print(client.chat("Hi").text))
        """,
    "a client made then": """
        def bye():
            with FailoverClient(endpoints, model="m") as client:
                client.on("breaker_opened", lambda event: None)
                client.registry.force_open("e1")
                print(client.chat("Hi").text, client.wait_until_ready())
        print("")
        atexit.register(bye)
        """,
}


@pytest.mark.parametrize("program", AT_EXIT)
def test_a_call_while_the_interpreter_ends(program: str, upstreams: List[FakeUpstream]) -> None:
    """It is answered, and not a word is said about threads that cannot be had any more."""
    done = run(AT_EXIT[program], upstreams)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Hello from" in done.stdout.splitlines()[1]


ISOLATED = """
    import os
    try:
        import _interpreters as interpreters
        made = interpreters.create("isolated")
    except ImportError:
        import _xxsubinterpreters as interpreters
        made = interpreters.create(isolated=True)
    interpreters.run_string(made, {program!r})
    os._exit(0)  # Python 3.12 crashes when it takes an interpreter apart that has loaded ssl
"""
INSIDE = """
import logging, sys, warnings
sys.path[:] = {path!r}
warnings.simplefilter("ignore")  # requests goes without charset_normalizer there, and says so
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from syncfailover import Endpoint, FailoverClient
with FailoverClient([Endpoint("a", {url!r}, "key")], model="m", hedge_after=1000.0) as client:
    print(client.chat("Hi").text, client.wait_until_ready(), client.status().mode, flush=True)
"""

if sys.version_info >= (3, 9):  # before, no interpreter could be isolated

    def test_everything_works_in_an_isolated_interpreter(upstreams: List[FakeUpstream]) -> None:
        """Which allows no daemon threads."""
        inside = INSIDE.format(path=sys.path, url=upstreams[0].url)
        program = textwrap.dedent(ISOLATED).format(program=inside)
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=30.0, check=False
        )
        warning, answer = done.stdout.splitlines()
        assert answer == "Hello from upstream-1. True passive"
        assert "interpreter" in warning
        assert "use the main interpreter" in warning
        assert (done.returncode, done.stderr) == (0, "")
