"""The registry: one lock, snapshots without it, waiters, and what many threads do to it at once."""

import threading
from typing import Any, List

import pytest
from fleet import endpoints_of

from syncfailover import BreakerState, ConfigurationError, Endpoint, EndpointRegistry, NoEndpointAvailable
from syncfailover.policy.health import ProbeResult
from syncfailover.policy.outcome import RATE_LIMIT, SERVER_ERROR, SUCCEEDED, Outcome
from syncfailover.testing import ManualClock

DOWN = Outcome(SERVER_ERROR, "HTTP 500")


def registry_of(count: int, clock: ManualClock, **options: Any) -> EndpointRegistry:
    """Make a registry of `count` endpoints that nobody listens at, on a clock that obeys."""
    endpoints = [Endpoint(f"e{i}", f"http://127.0.0.1:{9000 + i}") for i in range(count)]
    return EndpointRegistry(endpoints, clock=clock, sleep=clock.sleep, chance=lambda: 0.0, **options)


def ask(registry: EndpointRegistry, barrier: threading.Barrier, passed: List[Any]) -> None:
    """Ask for a permit at the same moment as everybody else, and keep it."""
    barrier.wait()
    try:
        passed.append(registry.acquire())
    except NoEndpointAvailable:
        return


def test_fifty_threads_at_half_open_let_one_pass(manual_clock: ManualClock) -> None:
    """However many threads ask at the very moment of recovery, exactly one gets the trial."""
    for _ in range(40):
        registry = registry_of(1, manual_clock)
        for _ in range(3):
            registry.report(registry.acquire(), DOWN)
        manual_clock.advance(30.0)
        barrier = threading.Barrier(50)
        passed: List[Any] = []

        threads = [threading.Thread(target=ask, args=(registry, barrier, passed)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(passed) == 1
        registry.report(passed[0], SUCCEEDED)
        assert registry.snapshot()["e0"].breaker is BreakerState.CLOSED


def test_in_flight_is_exact_under_threads(manual_clock: ManualClock) -> None:
    """After 16 threads times 500 attempts with every kind of end, nothing is counted as under way."""
    registry = registry_of(3, manual_clock, failure_threshold=10**9)
    barrier = threading.Barrier(16)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(500):
            attempt = registry.acquire()
            if (turn + number) % 3 == 0:
                registry.release(attempt)
            else:
                registry.report(attempt, DOWN if turn % 2 else SUCCEEDED)
            registry.report(attempt, DOWN)  # a second report changes nothing

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [state.in_flight for state in registry.snapshot().endpoints] == [0, 0, 0]


def test_a_snapshot_is_immutable_and_shared(manual_clock: ManualClock) -> None:
    """While nothing changes readers get the very same object; an old one keeps what it showed."""
    registry = registry_of(2, manual_clock)
    before = registry.snapshot()
    assert registry.snapshot() is before
    attempt = registry.acquire()
    after = registry.snapshot()
    assert (before["e0"].in_flight, after["e0"].in_flight) == (0, 1)
    registry.release(attempt)
    with pytest.raises(AttributeError):
        after["e0"].in_flight = 7


def test_a_snapshot_is_read_without_the_lock(manual_clock: ManualClock) -> None:
    """A reader does not wait for a thread that holds the lock."""
    registry = registry_of(1, manual_clock)
    seen = registry.snapshot()
    with registry._lock:
        done: List[Any] = []
        reader = threading.Thread(target=lambda: done.append(registry.snapshot()))
        reader.start()
        reader.join(2.0)
    assert done == [seen]


def test_a_waiter_is_woken_by_a_recovery() -> None:
    """`acquire` with a deadline returns as soon as somebody is eligible again."""
    registry = EndpointRegistry([Endpoint("a", "http://127.0.0.1:9")])
    registry.force_open("a")
    got: List[Any] = []
    waiter = threading.Thread(target=lambda: got.append(registry.acquire(deadline=registry.clock() + 5)))
    waiter.start()
    registry.reset("a")
    waiter.join(4.0)
    assert got[0].endpoint.name == "a"


def test_nobody_available_says_why_for_each(manual_clock: ManualClock) -> None:
    """The error names every endpoint, its state, the seconds to wait and the cause; it carries the snapshot."""
    registry = registry_of(2, manual_clock)
    registry.force_open("e1")
    for _ in range(3):
        registry.report(registry.acquire(), DOWN)
    with pytest.raises(NoEndpointAvailable) as caught:
        registry.acquire()
    assert str(caught.value) == (
        "no endpoint available: e0 open for 30.0 s (HTTP 500), e1 forced_open (breaker forced_open)"
    )
    assert caught.value.retry_after == pytest.approx(30.0)
    assert caught.value.snapshot["e0"].retry_at == pytest.approx(manual_clock() + 30.0)


def test_a_late_result_of_an_older_generation_is_harmless(manual_clock: ManualClock) -> None:
    """A failure that arrives after the breaker moved on neither opens nor closes it."""
    registry = registry_of(1, manual_clock)
    late = [registry.acquire() for _ in range(4)]
    for attempt in late[:3]:
        registry.report(attempt, DOWN)
    manual_clock.advance(30.0)
    registry.report(registry.acquire(), SUCCEEDED)
    registry.report(late[3], DOWN)
    assert registry.snapshot()["e0"].breaker is BreakerState.CLOSED
    assert registry.snapshot()["e0"].in_flight == 0


def test_events_come_in_order_and_outside_the_lock(manual_clock: ManualClock) -> None:
    """A listener may ask the registry anything; what it causes is told after what caused it."""
    registry = registry_of(1, manual_clock)
    heard: List[str] = []

    def on_opened(event: Any) -> None:
        assert registry.snapshot()["e0"].breaker is BreakerState.OPEN
        registry.reset("e0")
        heard.append(event.name)

    registry.on("breaker_opened", on_opened)
    registry.on("all_down", lambda event: heard.append(event.name))
    registry.on("breaker_closed", lambda event: heard.append(event.name))
    registry.on("recovered", lambda event: heard.append(event.name))
    for _ in range(3):
        registry.report(registry.acquire(), DOWN)
    assert heard == ["breaker_opened", "all_down", "breaker_closed", "recovered"]


def test_a_listener_that_raises_is_logged(manual_clock: ManualClock, caplog: Any) -> None:
    """A listener's exception reaches the log, not the caller, and the next listener still hears."""
    registry = registry_of(1, manual_clock)
    heard: List[Any] = []
    registry.on("breaker_opened", lambda event: 1 / 0)
    registry.on("breaker_opened", heard.append)
    for _ in range(3):
        registry.report(registry.acquire(), DOWN)
    assert len(heard) == 1
    assert "ZeroDivisionError" in caplog.text


def test_each_change_of_state_is_one_log_line(manual_clock: ManualClock, caplog: Any) -> None:
    """The log says who changed, from what to what, and why."""
    caplog.set_level("INFO", "syncfailover")
    registry = registry_of(2, manual_clock)
    registry.probed(ProbeResult("e0", alive=False, detail="connect refused"))
    registry.probed(ProbeResult("e0", alive=True, detail="HTTP 200", latency_ms=5.0))
    registry.probed(ProbeResult("e0", alive=True, detail="HTTP 200", latency_ms=5.0))
    assert [record.getMessage() for record in caplog.records] == [
        "e0: health_changed: unknown -> unhealthy: connect refused",
        "e0: health_changed: unhealthy -> healthy: HTTP 200",
    ]


def test_a_custom_balancer_is_any_object_with_pick(manual_clock: ManualClock) -> None:
    """It receives the eligible candidates and decides; what it returns is checked."""

    class Last:
        def pick(self, candidates: Any) -> Any:
            return candidates[-1]

    assert registry_of(3, manual_clock, balancer=Last()).acquire().endpoint.name == "e2"

    class Lost:
        def pick(self, candidates: Any) -> Any:
            return "e0"

    registry = registry_of(3, manual_clock, balancer=Lost())
    with pytest.raises(ConfigurationError, match="balancer: 'e0'"):
        registry.acquire()
    assert not registry._lock.locked()


def test_a_pair_rests_and_others_do_not(manual_clock: ManualClock) -> None:
    """A rate limit for one model leaves the endpoint's other models alone."""
    registry = registry_of(2, manual_clock)
    attempt = registry.acquire(model="big")
    registry.report(attempt, Outcome(RATE_LIMIT, "HTTP 429", 429, retry_after_s=7.0))
    resting = attempt.endpoint.name
    assert {registry.acquire(model="big").endpoint.name for _ in range(6)} == {"e0", "e1"} - {resting}
    assert {registry.acquire(model="small").endpoint.name for _ in range(6)} == {"e0", "e1"}
    manual_clock.advance(7.0)
    assert {registry.acquire(model="big").endpoint.name for _ in range(6)} == {"e0", "e1"}


def test_an_unknown_endpoint_is_named(manual_clock: ManualClock) -> None:
    """Orders to a breaker that does not exist say which there are."""
    with pytest.raises(ConfigurationError, match=r"endpoint: 'e9'.*e0, e1"):
        registry_of(2, manual_clock).force_open("e9")


def test_the_names_of_endpoints_lead_to_them(upstreams: Any) -> None:
    """A registry is read by name."""
    endpoints = endpoints_of(upstreams)
    assert EndpointRegistry(endpoints)["b"] is endpoints[1]
