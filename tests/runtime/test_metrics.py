"""Counters: exact under threads and faults, to the call."""

import contextlib
import json
import math
import os
import threading
from collections import Counter
from decimal import Decimal
from math import ceil
from typing import Any, Callable, Dict, List

import pytest
from fleet import endpoints_of

from syncfailover import EndpointRegistry, FailoverClient, FailoverError
from syncfailover.policy.health import ProbeResult
from syncfailover.policy.outcome import SERVER_ERROR, SUCCEEDED, Outcome
from syncfailover.runtime.metrics import Metrics
from syncfailover.testing import FakeUpstream, Html, ManualClock, Ok, Status, Truncate

NUMBERS = {
    "total_requests",
    "successful_requests",
    "failed_requests",
    "failover_count",
    "average_latency_ms",
    "p50_latency_ms",
    "p95_latency_ms",
    "p99_latency_ms",
    "total_cost_usd",
    "unpriced_requests",
    "uptime_hours",
    "success_rate",
    "failover_rate",
}
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def on_threads(count: int, work: Callable[[], Any]) -> None:
    """Do something on so many threads at once."""
    barrier = threading.Barrier(count)

    def begin() -> None:
        barrier.wait()
        work()

    threads = [threading.Thread(target=begin) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def exact(latencies: List[float], quantile: float) -> List[float]:
    """Return the ranks around a quantile."""
    ordered, rank = sorted(latencies), ceil(quantile * len(latencies))
    return ordered[max(0, rank - 2) : rank + 1]


@pytest.mark.parametrize("each", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_calls_of_many_threads_equal_what_the_upstreams_saw(
    each: int, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """Sixteen threads call under faults: every attempt, failover and dollar is counted once."""
    faults = [Status(500), Ok(usage=USAGE), Truncate(), Status(429), Html(), Status(400), Status(503)]
    for number, upstream in enumerate(upstreams):
        upstream.calls.always(Ok(usage=USAGE))
        for at in range(120):
            quiet = [Ok(usage=USAGE)] * (15 + number + at % 7)
            upstream.calls.script(*quiet, faults[at % len(faults)])
    endpoints = [endpoint.replace(prices={"gpt-4.1": (1.0, 2.0)}) for endpoint in endpoints_of(upstreams)]
    client = make_client(endpoints, failure_threshold=10**6, timeout=30.0)
    calls: List[Any] = []

    def work() -> None:
        for _ in range(each):
            try:
                calls.append(client.chat("Hi"))
            except FailoverError as error:
                calls.append(error)

    on_threads(16, work)
    metrics = client.metrics()
    answered = [call for call in calls if not isinstance(call, FailoverError)]
    ledger = [attempt for call in calls for attempt in call.attempts]
    assert metrics["total_requests"] == len(calls) == 16 * each
    assert metrics["successful_requests"] == len(answered)
    assert metrics["failed_requests"] == len(calls) - len(answered) > 0
    assert (
        metrics["failover_count"]
        == sum(len({a.endpoint for a in c.attempts}) > 1 for c in calls)
        > each // 10
    )
    assert metrics["success_rate"] == len(answered) / len(calls)
    assert metrics["failover_rate"] == metrics["failover_count"] / len(calls)
    assert metrics["total_cost_usd"] == float(len(answered) * Decimal("0.00012"))
    for name, upstream in zip("abc", upstreams):
        seen, counted = upstream.calls.requests, metrics["endpoints"][name]
        mine = [attempt for attempt in ledger if attempt.endpoint == name]
        assert counted["total_requests"] == len(seen) == len(mine)
        statuses = Counter(repr(request.fault) for request in seen)
        assert counted["successful_requests"] == statuses[repr(Ok(usage=USAGE))]
        assert counted["outcomes"] == dict(Counter(attempt.outcome for attempt in mine))
        assert counted["outcomes"]["rejected"] == statuses[repr(Status(400))]
        assert counted["outcomes"]["rate_limited"] == statuses[repr(Status(429))]
        assert counted["outcomes"]["truncated"] == statuses[repr(Truncate())]
        assert counted["outcomes"]["invalid_reply"] == statuses[repr(Html())]
        assert counted["total_cost_usd"] == float(statuses[repr(Ok(usage=USAGE))] * Decimal("0.00012"))
        check_percentiles(counted, [attempt.latency_ms for attempt in mine])
    check_percentiles(metrics, [call.latency_ms for call in answered], also=len(calls) - len(answered))


def check_percentiles(counted: Dict[str, Any], latencies: List[float], also: int = 0) -> None:
    """Compare with the exact ones; `also` so many whose latency is not known may lie anywhere."""
    for share in (50, 95, 99):
        ordered = sorted(latencies)
        low = max(0, ceil(share / 100 * (len(ordered) + also)) - also - 2)
        high = min(len(ordered) - 1, ceil(share / 100 * (len(ordered) + also)))
        value = counted[f"p{share}_latency_ms"]
        assert ordered[low] * 0.985 <= value <= ordered[high] * 1.015


def test_every_number_is_there_before_the_first_call(make_client: Any) -> None:
    """Finite, zero, and JSON: overall and for each endpoint."""
    metrics = make_client().metrics()
    for numbers in (metrics, *metrics["endpoints"].values()):
        assert set(numbers) >= NUMBERS
        for name in NUMBERS - {"uptime_hours"}:
            assert numbers[name] == 0
        assert 0 <= numbers["uptime_hours"] < 0.01
    assert set(metrics["endpoints"]) == {"a", "b", "c"}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_it_is_json_after_calls_too(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Failed, failed over and answered ones."""
    client = make_client()
    upstreams[0].script(Status(500))
    upstreams[1].script(Status(400))
    for _ in range(3):
        with contextlib.suppress(FailoverError):
            client.chat("Hi")
    metrics = client.metrics()
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_a_dictionary_is_consistent_while_calls_go_on(make_client: Any) -> None:
    """Each reading adds up, and no number ever falls."""
    client = make_client()
    done, readings = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            readings.append(client.metrics())

    reader = threading.Thread(target=read)
    reader.start()
    on_threads(4, lambda: [client.chat("Hi") for _ in range(60)])
    done.set()
    reader.join()
    before = 0
    for metrics in readings:
        total = metrics["total_requests"]
        assert total == metrics["successful_requests"] == metrics["unpriced_requests"] >= before
        assert total == sum(entry["total_requests"] for entry in metrics["endpoints"].values())
        before = total
    assert client.metrics()["total_requests"] == 240


@pytest.mark.parametrize(
    ("faults", "counts"),
    [
        ({}, [0, 0, 0, 0]),
        ({"a": 1}, [1, 1, 0, 0]),
        ({"a": 1, "b": 1}, [1, 1, 1, 0]),
        ({"a": 1, "b": 1, "c": 9}, [1, 1, 1, 0]),
    ],
)
def test_a_failover_is_a_call_that_left_an_endpoint(
    faults: Dict[str, int], counts: List[int], make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Once per call overall, and once at each endpoint that it left."""
    for name, upstream in zip("abc", upstreams):
        upstream.calls.script(*[Status(500)] * faults.get(name, 0))
    client = make_client(max_retries=2)
    try:
        client.chat("Hi")
    except FailoverError:
        assert faults.get("c")
    metrics = client.metrics()
    entries = [metrics, *metrics["endpoints"].values()]
    assert [entry["failover_count"] for entry in entries] == counts
    assert [entry["failover_rate"] for entry in entries] == [float(count) for count in counts]


def test_a_retry_at_the_same_endpoint_is_no_failover(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Nobody was left."""
    upstreams[0].script(Status(500))
    client = make_client(endpoints_of(upstreams[:1]))
    assert len(client.chat("Hi").attempts) == 2
    assert client.metrics()["failover_count"] == 0


def test_an_endpoint_is_not_up_while_its_breaker_is_open_or_its_probes_fail(upstreams: Any) -> None:
    """From the third failure to the success of its trial; from the third bad probe to the second good one."""
    clock = ManualClock(0.0)
    registry = EndpointRegistry(endpoints_of(upstreams), clock=clock, chance=lambda: 0.0)
    metrics = Metrics(registry)
    clock.advance(100.0)

    def call(name: str, outcome: Outcome) -> None:
        registry.report(registry.acquire({"a", "b", "c"} - {name}), outcome)

    for _ in range(3):
        call("a", Outcome(SERVER_ERROR, "HTTP 500"))
    clock.advance(40.0)  # open for 30 s, then on trial
    call("a", SUCCEEDED)
    for alive in (False, False, False):
        registry.probed(ProbeResult("b", alive, "refused", None, None))
    clock.advance(60.0)
    for _ in range(2):
        registry.probed(ProbeResult("b", True, "HTTP 200", 5.0, 200))
    clock.advance(160.0)
    up_s = {name: entry["uptime_hours"] * 3600 for name, entry in metrics.read()["endpoints"].items()}
    assert up_s == pytest.approx({"a": 320.0, "b": 300.0, "c": 360.0})
    assert metrics.read()["uptime_hours"] == pytest.approx(0.1)


def test_uptime_counts_from_when_the_client_was_made(upstreams: Any) -> None:
    """Also where its registry is older, and was down meanwhile; no endpoint is up longer than its client."""
    clock = ManualClock(0.0)
    registry = EndpointRegistry(endpoints_of(upstreams), clock=clock)
    registry.force_open("a")
    clock.advance(100.0)
    metrics = Metrics(registry)
    clock.advance(36.0)
    registry.reset("a")
    clock.advance(36.0)
    entries = metrics.read()["endpoints"]
    assert [entry["uptime_hours"] * 3600 for entry in entries.values()] == pytest.approx([36.0, 72.0, 72.0])


def test_a_list_of_models_has_no_price(make_client: Any) -> None:
    """Only what was asked of a model can be unpriced."""
    client = make_client()
    client.models.list()
    client.chat("Hi")
    metrics = client.metrics()
    assert (metrics["total_requests"], metrics["unpriced_requests"]) == (2, 1)
    assert sum(entry["unpriced_requests"] for entry in metrics["endpoints"].values()) == 1


def test_a_forked_child_counts_from_zero(upstreams: List[FakeUpstream]) -> None:
    """The parent's calls, money and downtimes are the parent's."""
    clock = ManualClock(0.0)
    endpoints = endpoints_of(upstreams, prices={"gpt-4.1": 8.0})
    client = FailoverClient(EndpointRegistry(endpoints, clock=clock), model="gpt-4.1", probe_when="never")
    client.chat("Hi")
    client.registry.force_open("a")
    clock.advance(3600.0)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            clock.advance(3600.0)
            os.write(writing, json.dumps(client.metrics()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        metrics = json.loads(pipe.read())
    client.close()
    assert (metrics["total_requests"], metrics["total_cost_usd"]) == (0, 0.0)
    assert metrics["uptime_hours"] == pytest.approx(1.0)
    ups = [entry["uptime_hours"] for entry in metrics["endpoints"].values()]
    assert ups == pytest.approx([0.0, 1.0, 1.0])
    assert all(math.isfinite(up) for up in ups)
