"""The health monitor: over real sockets, with real threads, and gone when it should be."""

import gc
import threading
import time
import weakref
from typing import Any, List, Set

import pytest
import requests
from fleet import endpoints_of

from syncfailover import EndpointRegistry, FailoverClient, HealthMonitor, HealthStatus, ProbeResult
from syncfailover.testing import FakeUpstream, Hang, Status, Trickle

FAST = {"probe_interval": 0.1, "probe_timeout": 0.3}


def threads_of_ours(but: Any = ()) -> List[str]:
    """Name the threads that the package started, but for some."""
    return [t.name for t in threading.enumerate() if t.name.startswith("syncfailover-") and t not in but]


def gone(but: Any, timeout: float = 2.0) -> bool:
    """Wait until no thread of a monitor is left but those that were there before."""
    deadline = time.monotonic() + timeout
    while threads_of_ours(but) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return not threads_of_ours(but)


@pytest.fixture
def before() -> Set[threading.Thread]:
    """The threads there were before the test."""
    return set(threading.enumerate())


def test_it_finds_who_is_alive(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """All endpoints are probed in parallel; one that refuses and one that answers 503 are UNHEALTHY."""
    upstreams[1].kill()
    upstreams[2].probes.always(Status(503))
    client = make_client(probe_when="always", **FAST)
    assert client.wait_until_ready(3.0)
    assert client.registry.wait_for(
        lambda now: all(s.status is not HealthStatus.UNKNOWN for s in now.endpoints), 3.0
    )
    assert [state.status.value for state in client.status().endpoints] == [
        "healthy",
        "unhealthy",
        "unhealthy",
    ]
    assert client.status()["b"].reason == "connect refused"
    assert client.status()["a"].latency_ms > 0


def test_the_key_goes_with_the_probe(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A probe is a GET of the health path with the endpoint's own key."""
    make_client(probe_when="always", **FAST).wait_until_ready(3.0)
    assert upstreams[0].probes.wait_for(1, 3.0)
    seen = upstreams[0].probes.requests[0]
    assert (seen.method, seen.path, seen.header("authorization")) == ("GET", "/health", "Bearer sk-secret-a")


def test_a_path_that_is_missing_proves_life_and_a_refused_key_rests(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """404, 405 and 429 are alive; 401 is alive too, but its key is not used until a probe says otherwise."""
    for upstream, status in zip(upstreams, (404, 429, 401)):
        upstream.probes.always(Status(status))
    client = make_client(probe_when="always", **FAST)
    client.wait_until_ready(3.0)
    assert client.registry.wait_for(
        lambda now: all(s.status is HealthStatus.HEALTHY for s in now.endpoints), 3.0
    )
    assert [state.eligible for state in client.status().endpoints] == [True, True, False]
    upstreams[2].heal()
    assert client.registry.wait_for(lambda now: now["c"].eligible, 3.0)


def test_a_trickling_or_hung_probe_delays_nobody(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """The deadline is for the whole probe, and the others are probed on time meanwhile."""
    upstreams[0].probes.always(Trickle(interval_s=0.05))
    upstreams[1].probes.always(Hang())
    client = make_client(probe_when="always", **FAST)
    client.wait_until_ready(3.0)
    down = HealthStatus.UNHEALTHY
    assert client.registry.wait_for(lambda now: now["a"].status is now["b"].status is down, 3.0)
    assert "0.3 s" in client.status()["a"].reason
    upstreams[2].clear_log()
    assert upstreams[2].probes.wait_for(5, 2.0)


def test_a_probe_that_never_returns_counts_as_failed(before: Any) -> None:
    """A probe stuck beyond its own deadline is given up on, and its late result changes nothing."""
    stuck, started = threading.Event(), threading.Event()

    def probe(endpoint: Any, timeout_s: float) -> ProbeResult:
        started.set()
        stuck.wait(5.0)
        return ProbeResult(endpoint.name, alive=True, detail="too late", latency_ms=1.0)

    with FakeUpstream() as upstream:
        registry = EndpointRegistry(endpoints_of([upstream]))
        monitor = HealthMonitor(registry, probe, interval=30.0, timeout=0.1)
        monitor.probe_soon()
        assert started.wait(2.0)
        assert registry.wait_for(lambda now: now["a"].status is HealthStatus.UNHEALTHY, 2.0)
        stuck.set()
        assert not registry.wait_for(lambda now: now["a"].status is HealthStatus.HEALTHY, 0.2)
        monitor.close()
    assert gone(before)


def test_a_probe_that_raises_counts_as_failed() -> None:
    """A custom probe's exception is a failed probe, and its message, which may hold a secret, is not repeated."""

    def probe(endpoint: Any, timeout_s: float) -> ProbeResult:
        raise ValueError("sk-secret")

    with FakeUpstream() as upstream:
        registry = EndpointRegistry(endpoints_of([upstream]))
        monitor = HealthMonitor(registry, probe, probe_when="never")
        assert monitor.probe_all()[0].detail == "probe raised ValueError"
        assert registry.snapshot()["a"].status is HealthStatus.UNHEALTHY


def test_an_idle_monitor_leaves_busy_endpoints_alone(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """With "idle", an endpoint that served a call within the interval is not probed; the others are."""
    client = make_client(probe_when="idle", balancer="round_robin", probe_interval=0.4, probe_timeout=0.3)
    client.registry.force_open("b")
    client.registry.force_open("c")
    stop = time.monotonic() + 1.5
    while time.monotonic() < stop:
        client.chat("Hi")
    assert len(upstreams[0].probes.requests) <= 1
    assert len(upstreams[1].probes.requests) >= 2


def test_probes_keep_their_interval(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Between two probes of an endpoint lies the interval, give or take 5 % and the machine's mood."""
    client = make_client(probe_when="always", probe_interval=0.2, probe_timeout=0.1)
    client.wait_until_ready(3.0)
    assert upstreams[0].probes.wait_for(8, 5.0)
    times = [request.at for request in upstreams[0].probes.requests][1:]
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    assert 0.15 < sum(gaps) / len(gaps) < 0.3


def test_close_ends_the_threads(before: Any, upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Within a second after `close()`, even with a probe under way, no thread is left; twice is harmless."""
    upstreams[0].probes.always(Hang())
    client = make_client(probe_when="always", probe_interval=0.05, probe_timeout=0.8)
    client.chat("Hi")
    assert upstreams[0].probes.wait_for(1, 2.0)
    assert "syncfailover-monitor" in threads_of_ours(before)
    began = time.monotonic()
    client.close()
    client.close()
    assert time.monotonic() - began < 1.3
    assert gone(before, 0.5)


def test_a_dropped_client_takes_its_threads_along(before: Any, upstreams: List[FakeUpstream]) -> None:
    """A client that is simply dropped is collected, and its threads end."""
    client = FailoverClient(endpoints_of(upstreams), model="gpt-4.1", **FAST)
    client.chat("Hi")
    assert client.wait_until_ready(3.0)
    assert threads_of_ours(before)
    ref = weakref.ref(client)
    del client
    gc.collect()
    assert ref() is None
    assert gone(before)


def test_there_is_one_monitor_thread_however_many_start_it(
    before: Any, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """Fifty threads making the first call start one monitor."""
    client = make_client(probe_when="always", **FAST)
    barrier = threading.Barrier(50)

    def call() -> None:
        barrier.wait()
        client.chat("Hi")

    threads = [threading.Thread(target=call) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threads_of_ours(before).count("syncfailover-monitor") == 1


def test_ready_is_told_without_a_monitor_too(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """With probe_when="never", waiting for readiness probes once, here and now."""
    client = make_client()
    assert client.wait_until_ready(1.0)
    for upstream in upstreams:
        upstream.kill()
    fresh = make_client()
    assert not fresh.wait_until_ready(0.2)


def test_a_recovered_probe_lets_a_trial_pass_early(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """When probes that failed succeed again, an open breaker admits a trial long before its time."""
    client = make_client(probe_when="always", recovery_timeout=60.0, **FAST)
    upstreams[0].calls.always(Status(500))
    for _ in range(12):
        client.chat("Hi")
    upstreams[0].kill()
    assert client.registry.wait_for(lambda now: now["a"].status is HealthStatus.UNHEALTHY, 3.0)
    assert client.status()["a"].breaker == "open"
    upstreams[0].heal()
    upstreams[0].revive()
    assert client.registry.wait_for(lambda now: now["a"].eligible, 3.0)
    assert client.status()["a"].breaker == "half_open"
    assert "a" in {client.chat("Hi").endpoint for _ in range(40)}


def test_a_shared_registry_is_probed_once(
    before: Any, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """Clients and mounted sessions over one registry share its monitor, which ends with the last of them."""
    registry = EndpointRegistry(endpoints_of(upstreams), **FAST)
    clients = [make_client(registry, probe_when="always") for _ in range(3)]
    session = requests.Session()
    registry.mount(session, "https://api.openai.com/v1")
    for client in clients:
        client.chat("Hi")
    session.get("https://api.openai.com/v1/models")
    assert threads_of_ours(before).count("syncfailover-monitor") == 1
    session.close()
    session.close()
    for client in clients:
        assert threads_of_ours(before)
        client.close()
        client.close()
    assert gone(before)
