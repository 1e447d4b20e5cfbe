"""Counters: exact under threads and faults, to the call."""

import threading
from decimal import Decimal
from typing import Any, List

from fleet import endpoints_of

from syncfailover import FailoverError
from syncfailover.testing import FakeUpstream, Ok, Status


def test_counters_equal_what_the_upstreams_saw(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Eight threads times 50 calls under faults: every attempt and every dollar is counted once."""
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    for upstream in upstreams:
        upstream.calls.always(Ok(usage=usage))
        upstream.calls.script(*[Ok(usage=usage), Status(500), Ok(usage=usage), Status(429)] * 10)
    endpoints = [endpoint.replace(prices={"gpt-4.1": (1.0, 2.0)}) for endpoint in endpoints_of(upstreams)]
    client = make_client(endpoints, failure_threshold=1000)
    barrier = threading.Barrier(8)
    answered: List[Any] = []
    failed: List[Any] = []

    def work() -> None:
        barrier.wait()
        for _ in range(50):
            try:
                answered.append(client.chat("Hi"))
            except FailoverError as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics = client.metrics()
    assert (metrics["total_requests"], metrics["failed_requests"]) == (400, len(failed))
    for name, upstream in zip("abc", upstreams):
        assert metrics["endpoints"][name]["total_requests"] == len(upstream.calls.requests)
        served = sum(1 for reply in answered if reply.endpoint == name)
        assert metrics["endpoints"][name]["successful_requests"] == served
    moved = sum(1 for call in [*answered, *failed] if len({a.endpoint for a in call.attempts}) > 1)
    assert metrics["failover_count"] == moved
    assert metrics["total_cost_usd"] == float(len(answered) * Decimal("0.00012"))
