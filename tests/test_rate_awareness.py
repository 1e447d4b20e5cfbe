"""Rate limits over real sockets: an upstream that enforces what it announces, and never has to."""

import dataclasses
import threading
import time
from typing import Any, Callable, List

import pytest
from fleet import endpoints_of

from syncfailover import FailoverSession, NoEndpointAvailable
from syncfailover.testing import Answer, FakeUpstream, Fault, Ok, Status


class Window:
    """So many requests in each window of time, counted by the provider."""

    def __init__(self, limit: int, seconds: float, shown: Callable[[float], str]) -> None:
        self.limit, self.seconds = limit, seconds
        self._shown = shown
        self._lock = threading.Lock()
        self._ends = self._used = 0.0
        self.windows = self.refused = 0

    def take(self) -> Any:
        """Count a request; return whether it is served, and the headers that say so."""
        with self._lock:
            now = time.monotonic()
            if now >= self._ends:
                self._ends, self._used = now + self.seconds, 0
                self.windows += 1
            served = self._used < self.limit
            self._used += served
            self.refused += not served
            names = "limit", "remaining", "reset"
            values = self.limit, int(self.limit - self._used), self._shown(self._ends - now)
            return served, {f"x-ratelimit-{name}-requests": str(value) for name, value in zip(names, values)}


@dataclasses.dataclass(frozen=True)
class Limited(Fault):
    """Serve within the window, refuse beyond it, and announce it in each reply."""

    window: Window

    def answer(self, reply: Any) -> Answer:
        """Count, and answer."""
        served, headers = self.window.take()
        return (Ok(headers=headers) if served else Status(429, headers=headers)).answer(reply)


def at_once(threads: int, work: Callable[[], Any]) -> None:
    """Do something on several threads."""
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


@pytest.mark.parametrize(
    ("balancer", "shown"),
    [
        ("weighted", lambda seconds: f"{seconds * 1000:.0f}ms"),
        ("least_busy", lambda seconds: f"{seconds:.3f}"),
        ("lowest_latency", lambda seconds: f"{time.time() + seconds:.3f}"),
    ],
)
def test_nobody_is_refused_while_a_peer_has_room(
    shown: Any, balancer: str, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Eight threads, several windows: the one with a limit is used in each, and never has to refuse."""
    window = Window(16, 0.25, shown)
    upstreams[0].calls.always(Limited(window))
    client = make_client(endpoints_of(upstreams[:2]), balancer=balancer)
    until = time.monotonic() + 0.9

    def work() -> None:
        while time.monotonic() < until:
            client.chat("Hi")

    at_once(8, work)
    assert window.refused == 0
    assert window.windows >= 3
    assert client.metrics()["endpoints"]["a"]["total_requests"] >= 2 * window.windows
    assert client.metrics()["failover_count"] == 0


def test_conversations_are_steered_too(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """A home with little left is spared by its conversations, which come back to it."""
    window = Window(10, 0.3, lambda seconds: f"{seconds:.3f}s")
    upstreams[0].calls.always(Limited(window))
    client = make_client([endpoints_of(upstreams)[0].replace(weight=50), endpoints_of(upstreams)[1]])
    until = time.monotonic() + 0.8
    names = []
    while time.monotonic() < until:
        names.append(client.chat("Hi", affinity="user-42").endpoint)
    assert window.refused == 0
    assert set(names) == {"a", "b"}
    assert "ba" in "".join(names)


def test_where_only_the_lower_priority_has_room_it_is_not_used(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Little left is no reason for the emergency exit: it is asked after a refusal, not before."""
    left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"}
    upstreams[0].calls.always(Ok(headers=left))
    first, second = endpoints_of(upstreams[:2])
    client = make_client([first, second.replace(priority=1)])
    assert {client.chat("Hi").endpoint for _ in range(5)} == {"a"}


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_s_headers_count(status: int, make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """One refusal, then nobody asks there until the time that it named."""
    left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"}
    upstreams[0].script(Status(status, headers=left))
    client = make_client(endpoints_of(upstreams[:2]))
    assert {client.chat("Hi").endpoint for _ in range(10)} == {"b"}
    assert len(upstreams[0].requests) == 1


def test_a_session_is_steered_as_well(upstreams: List[FakeUpstream]) -> None:
    """The drop-in session reads the same headers."""
    left = {"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "1m0s"}
    upstreams[0].calls.always(Ok(headers=left))
    with FailoverSession(endpoints_of(upstreams[:2]), probe_when="never") as session:
        for _ in range(6):
            assert session.post("/chat/completions", json={"model": "m", "messages": []}).ok
    assert len(upstreams[0].requests) == 1


def test_garbage_in_the_headers_harms_no_call(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Whatever a provider writes there, its answer is an answer."""
    for value in ("", "soon", "-1", "nan", "1e999", "9" * 5000, "1s" * 2000):
        names = [
            f"x-ratelimit-{a}-{b}" for a in ("limit", "remaining", "reset") for b in ("requests", "tokens")
        ]
        upstreams[0].script(Ok(headers=dict.fromkeys(names, value)))
    client = make_client(endpoints_of(upstreams[:1]))
    assert all(client.chat("Hi").text for _ in range(7))
    assert client.status()["a"].in_flight == 0


def test_busy_is_not_down(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """With all bulkheads full a call is refused at once, and nobody is told that anything is down."""
    endpoints = endpoints_of(upstreams[:2], max_concurrency=1)
    client = make_client(endpoints)
    told: List[Any] = []
    for event in ("all_down", "breaker_opened", "health_changed"):
        client.on(event, told.append)
    for upstream in upstreams[:2]:
        upstream.delay_s = 0.4
    workers = [threading.Thread(target=client.chat, args=("Hi",)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for upstream in upstreams[:2]:
        assert upstream.wait_for(lambda up=upstream: up.in_flight == 1)
    with pytest.raises(NoEndpointAvailable, match=r"busy \(1 in flight\).*busy \(1 in flight\)"):
        client.chat("Hi")
    for worker in workers:
        worker.join()
    assert told == []
    assert [state.breaker.value for state in client.status().endpoints] == ["closed", "closed"]
    assert [upstream.max_in_flight for upstream in upstreams[:2]] == [1, 1]
    assert all(entry["uptime_hours"] > 0 for entry in client.metrics()["endpoints"].values())
