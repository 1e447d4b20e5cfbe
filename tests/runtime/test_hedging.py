"""Hedging over real sockets: the tail is cut, the load is bounded, and what was called off leaves nothing behind."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, List, NamedTuple

import pytest
from fleet import endpoints_of

from syncfailover import (
    AllEndpointsFailed,
    ConfigurationError,
    DeadlineExceeded,
    FailoverClient,
    FailoverRetry,
    FailoverSession,
    RequestRejected,
)
from syncfailover.policy.node import Attempt
from syncfailover.runtime.hedging import Hedging, Race
from syncfailover.testing import FakeUpstream, Hang, Ok, Reset, Status

#: Prices and usage of a reply that costs 0.00012 USD.
PRICES = {"gpt-4.1": (1.0, 2.0)}
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


class Run(NamedTuple):
    """What many threads' calls came to."""

    latencies_ms: List[float]
    replies: List[Any]

    def quantile(self, q: float) -> float:
        """Return a quantile of the latencies."""
        return sorted(self.latencies_ms)[int(q * (len(self.latencies_ms) - 1))]


def load(client: FailoverClient, calls: int, threads: int = 8) -> Run:
    """Make that many calls, shared among threads."""
    turns, run = iter(range(calls)), Run([], [])
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if next(turns, None) is None:
                    return
            began = time.monotonic()
            reply = client.chat("Hi")
            run.latencies_ms.append((time.monotonic() - began) * 1000.0)
            run.replies.append(reply)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return run


def asked(upstreams: List[FakeUpstream]) -> int:
    """Count the calls that the upstreams have seen."""
    return sum(len(upstream.calls.requests) for upstream in upstreams)


def threads_named(part: str) -> List[threading.Thread]:
    """List the live threads of that name."""
    return [thread for thread in threading.enumerate() if part in thread.name]


def gone(part: str) -> bool:
    """Wait until no thread of that name is left."""
    for thread in threads_named(part):
        thread.join(5.0)
    return not threads_named(part)


def earn(client: FailoverClient, hedges: int = 1) -> None:
    """Make the calls that so many hedges are paid from; those that teach it what is usual come with them."""
    for _ in range(20 * hedges):
        client.chat("Hi")


@pytest.fixture
def hedged(upstreams: List[FakeUpstream], make_client: Any) -> Callable[..., FailoverClient]:
    """Make a client whose first call goes to `a`, a hedge of it to `b`, and that may hedge."""

    def make(hedges: int = 2, endpoints: Any = None, **options: Any) -> FailoverClient:
        options = {"hedge_after": 60, "balancer": _InOrder(), **options}
        client: FailoverClient = make_client(endpoints, **options)
        earn(client, hedges)
        for upstream in upstreams:
            upstream.clear_log()
        return client

    return make


class _InOrder:
    """A balancer that takes the first."""

    def pick(self, candidates: Any) -> Any:
        """Take the first."""
        return candidates[0]


# The proof


@pytest.mark.quiet
@pytest.mark.parametrize(
    ("hedge_after", "layout"),
    [("p95", "three peers"), (60, "an exit")],
)
def test_the_tail_is_cut(hedge_after: Any, layout: str, fake_upstreams: Any, make_client: Any) -> None:
    """With one endpoint at 2 s for 5 % of its calls, p99 stays below 3 x p50 at no more than 5 % of load."""
    upstreams = fake_upstreams(3 if layout == "three peers" else 2, delay_s=0.04)
    endpoints = endpoints_of(upstreams)
    if layout == "an exit":
        endpoints[1] = endpoints[1].replace(priority=1)
    client = make_client(endpoints, hedge_after=hedge_after, timeout=10.0)
    calls = 0
    for _ in range(3):  # whatever else the machine does lengthens the tail, and never shortens it
        upstreams[0].calls.heal()
        load(client, 300)  # so many hedges are saved up, and what is usual is known
        upstreams[0].calls.script(*[*[Ok()] * 9, Ok(delay_s=2.0), *[Ok()] * 10] * 30)
        run = load(client, 400)
        calls += 300 + len(run.replies)
        if run.quantile(0.99) < 3 * run.quantile(0.50):
            break
    assert run.quantile(0.99) < 3 * run.quantile(0.50)
    assert asked(upstreams) <= calls + client.metrics()["hedged_requests"] <= calls * 1.05
    # Nothing is left: no request, no thread, and of the connections only those that are idle in the pool.
    assert gone("syncfailover-hedge")
    for upstream in upstreams:
        assert upstream.wait_for(lambda upstream=upstream: upstream.in_flight == 0)
    client.close()
    assert gone("syncfailover-timer")
    assert gone("-connection-")  # the upstreams' threads, one for each


def test_without_hedging_the_tail_is_long(fake_upstreams: Any, make_client: Any) -> None:
    """The same load without hedging has calls of 2 s: the proof proves something."""
    upstreams = fake_upstreams(2, delay_s=0.04)
    upstreams[0].calls.script(*[*[Ok()] * 9, Ok(delay_s=2.0), *[Ok()] * 10] * 10)
    run = load(make_client(endpoints_of(upstreams), timeout=10.0), 80)
    assert run.quantile(0.99) > 2000


# One hedge


def test_the_second_endpoint_answers_where_the_first_is_silent(
    upstreams: List[FakeUpstream], hedged: Any
) -> None:
    """Ledger, reply, metrics and events tell of both, and the winner is last; nothing failed over."""
    upstreams[1].calls.always(Ok(usage=USAGE))
    endpoints = [endpoint.replace(prices=PRICES) for endpoint in endpoints_of(upstreams)]
    client = hedged(endpoints=endpoints)
    upstreams[0].calls.script(Hang())
    told: List[Any] = []
    client.on("attempt", told.append)
    failovers: List[Any] = []
    client.on("failover", failovers.append)
    before = client.metrics()
    reply = client.chat("Hi")
    assert [(a.endpoint, a.outcome) for a in reply.attempts] == [("a", "stalled"), ("b", "ok")]
    assert (reply.endpoint, reply.cost_usd) == ("b", 0.00012)
    assert reply.attempts[0].latency_ms >= 60
    assert reply.attempts[1].latency_ms < reply.attempts[0].latency_ms <= reply.latency_ms < 1000
    assert "called off after" in reply.attempts[0].detail
    assert reply.attempts[0].detail.endswith("b had answered")
    assert sorted((event.endpoint, event.data.outcome) for event in told) == [("a", "stalled"), ("b", "ok")]
    assert failovers == []
    metrics = client.metrics()
    assert metrics["hedged_requests"] == 1
    assert metrics["failover_count"] == before["failover_count"] == 0
    assert metrics["failed_requests"] == metrics["endpoints"]["a"]["failed_requests"] == 0
    assert metrics["endpoints"]["a"]["outcomes"]["stalled"] == 1
    assert metrics["total_cost_usd"] == pytest.approx(before["total_cost_usd"] + 0.00012)
    assert all(state.in_flight == 0 for state in client.status().endpoints)


def test_a_first_that_answers_after_all_wins(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """The second attempt is called off, at once, and says nothing about its endpoint."""
    client = hedged()
    upstreams[0].calls.script(Ok(delay_s=0.2))
    upstreams[1].calls.always(Hang())
    reply = client.chat("Hi")
    assert [(a.endpoint, a.outcome) for a in reply.attempts] == [("b", "outpaced"), ("a", "ok")]
    assert reply.latency_ms < 1000
    assert upstreams[1].wait_for(lambda: upstreams[1].in_flight == 0)
    assert client.metrics()["hedged_requests"] == 1
    assert client.metrics()["failover_count"] == 0
    assert client.registry._pool.nodes["b"].breaker.last_failure in (None, "")


def test_a_first_that_fails_waits_for_the_second(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """What fails while the other is under way does not end the call, nor does it ask a third."""
    client = hedged()
    upstreams[0].calls.script(Status(500, delay_s=0.15))
    upstreams[1].calls.script(Ok(delay_s=0.3))
    reply = client.chat("Hi")
    assert [(a.endpoint, a.outcome) for a in reply.attempts] == [("a", "server_error"), ("b", "ok")]
    assert upstreams[2].calls.requests == []
    assert client.metrics()["endpoints"]["a"]["failed_requests"] == 1


def test_a_second_that_fails_first_leaves_the_call_to_the_first(
    upstreams: List[FakeUpstream], hedged: Any
) -> None:
    """The ledger says how it really ended, and the winner is last."""
    client = hedged()
    upstreams[0].calls.script(Ok(delay_s=0.25))
    upstreams[1].calls.script(Status(500))
    reply = client.chat("Hi")
    assert [(a.endpoint, a.outcome) for a in reply.attempts] == [("b", "server_error"), ("a", "ok")]


def test_where_both_fail_a_third_is_asked(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """Both are in the ledger, and neither is asked again in that round."""
    client = hedged()
    upstreams[0].calls.script(Status(503, delay_s=0.15))
    upstreams[1].calls.script(Status(503, delay_s=0.15))
    reply = client.chat("Hi")
    assert [a.endpoint for a in reply.attempts] == ["a", "b", "c"]


def test_a_request_that_two_may_have_processed_goes_to_no_third(
    upstreams: List[FakeUpstream], hedged: Any
) -> None:
    """A hedge is the one other endpoint that a request of unknown fate is sent to."""
    client = hedged()
    for upstream in upstreams[:2]:
        upstream.calls.script(*[_ResetAfter(0.1)] * 2)  # a kept connection is mended once
    with pytest.raises(AllEndpointsFailed) as caught:
        client.chat("Hi")
    assert [(a.endpoint, a.outcome) for a in caught.value.attempts] == [("a", "reset"), ("b", "reset")]
    upstreams[1].heal()
    upstreams[0].calls.script(Reset(), Reset())
    upstreams[1].calls.script(Ok(delay_s=0.2))  # the one other: late, and yet not hedged
    assert [a.endpoint for a in client.chat("Hi").attempts] == ["a", "b"]
    assert upstreams[2].calls.requests == []


class _ResetAfter(Reset):
    """A reset that takes its time."""

    def __init__(self, seconds: float) -> None:
        object.__setattr__(self, "seconds", seconds)

    def answer(self, reply: Any) -> Any:
        """Wait, and end with a reset."""
        return super().answer(reply)._replace(delay_s=self.seconds)


def test_a_rejection_by_either_ends_the_call(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """What no endpoint could cure is told at once, and the other is called off."""
    client = hedged()
    upstreams[0].calls.script(Hang())
    upstreams[1].calls.script(Status(400))
    with pytest.raises(RequestRejected) as caught:
        client.chat("Hi")
    assert [(a.endpoint, a.outcome) for a in caught.value.attempts] == [("a", "stalled"), ("b", "rejected")]
    assert upstreams[0].wait_for(lambda: upstreams[0].in_flight == 0)


def test_a_rejection_that_the_caller_fails_over_on_ends_nothing(
    upstreams: List[FakeUpstream], hedged: Any
) -> None:
    """A status in `status_forcelist` of the second leaves the call to the first."""
    client = hedged(max_retries=FailoverRetry(3, status_forcelist=[400]))
    upstreams[0].calls.script(Ok(delay_s=0.25))
    upstreams[1].calls.script(Status(400))
    assert client.chat("Hi").endpoint == "a"


def test_the_deadline_ends_both(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """Two silent endpoints cost the caller no more than the call's time, and both are let go."""
    client = hedged(endpoints=endpoints_of(upstreams[:2]))
    for upstream in upstreams:
        upstream.calls.always(Hang())
    began = time.monotonic()
    with pytest.raises((DeadlineExceeded, AllEndpointsFailed)) as caught:
        client.chat("Hi", timeout=0.5)
    assert time.monotonic() - began < 0.8
    assert sorted(a.endpoint for a in caught.value.attempts) == ["a", "b"]
    assert gone("syncfailover-hedge")
    assert all(state.in_flight == 0 for state in client.status().endpoints)


@pytest.mark.parametrize("why", ["nobody else", "busy"])
def test_with_nobody_else_to_ask_the_first_goes_on(
    why: str, upstreams: List[FakeUpstream], hedged: Any
) -> None:
    """A hedge that finds no endpoint changes nothing."""
    endpoints = endpoints_of(upstreams[: 1 if why == "nobody else" else 2])
    if why == "busy":
        endpoints[1] = endpoints[1].replace(max_concurrency=1)
    client = hedged(endpoints=endpoints)
    upstreams[0].calls.script(Ok(delay_s=0.2))
    taken = client.registry.acquire(exclude=["a"]) if why == "busy" else None
    assert [a.endpoint for a in client.chat("Hi").attempts] == ["a"]
    if taken is not None:
        client.registry.release(taken)
    assert client.metrics()["hedged_requests"] == 0


def test_silent_endpoints_open_their_breaker(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """Three calls in a row that were called off beyond what is usual there open it; a fourth is not sent there."""
    client = hedged(hedges=4)
    upstreams[0].calls.always(Hang())
    outcomes = [client.chat("Hi").attempts[0].outcome for _ in range(3)]
    assert outcomes == ["stalled"] * 3
    assert client.status()["a"].breaker.value == "open"
    assert [a.endpoint for a in client.chat("Hi").attempts] == ["b"]


def test_the_budget_bounds_the_load(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """With every call late, one in twenty is hedged."""
    client = hedged(hedges=1, hedge_after=2, failure_threshold=1000)
    upstreams[0].delay_s = 0.02
    for _ in range(99):
        client.chat("Hi")
    assert 3 <= client.metrics()["hedged_requests"] <= 6
    assert len(upstreams[1].calls.requests) <= 6


def test_a_quiet_time_saves_no_more_than_fifty() -> None:
    """However many calls were in time, the hedges at once are bounded."""
    budget = Hedging("p95")._lore.budget
    for _ in range(5000):
        budget.deposit()
    assert sum(budget.withdraw(0.0) for _ in range(100)) == 50


# What is not hedged


def test_settings_that_cannot_work_are_refused(upstreams: List[FakeUpstream]) -> None:
    """The message names the field and the value."""
    for value in (0, -1, float("nan"), float("inf"), True, "p99", "95", "", object(), b"p95", [95]):
        with pytest.raises(ConfigurationError, match="hedge_after") as caught:
            FailoverClient(endpoints_of(upstreams), model="m", hedge_after=value)  # type: ignore[arg-type]
        assert caught.value.field == "hedge_after"
        assert repr(value) in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"hedge_after.*ambiguous='raise'"):
        FailoverClient(
            endpoints_of(upstreams),
            model="m",
            hedge_after="p95",
            max_retries=FailoverRetry(ambiguous="raise"),
        )


def test_a_session_hedges_what_it_can_send_again(upstreams: List[FakeUpstream]) -> None:
    """Plain JSON is hedged; a stream in either direction is not."""
    body = {"model": "gpt-4.1", "messages": []}
    with FailoverSession(
        endpoints_of(upstreams), hedge_after=60, probe_when="never", balancer=_InOrder()
    ) as session:
        for _ in range(60):
            session.post("/chat/completions", json=body)
        slow = Ok(delay_s=0.2)
        upstreams[0].calls.script(slow, slow, slow)
        response = session.post("/chat/completions", json=body)
        assert (response.endpoint, response.json()["object"]) == ("b", "chat.completion")
        assert [a.endpoint for a in response.attempts] == ["a", "b"]
        encoded = json.dumps(body).encode()
        assert session.post("/chat/completions", data=iter([encoded])).endpoint == "a"
        assert session.post("/chat/completions", json=body, stream=True).endpoint == "a"


def test_a_method_that_may_not_be_repeated_is_not_hedged(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """`allowed_methods` without POST keeps a chat from being sent twice."""
    client = hedged(hedges=3, max_retries=FailoverRetry(3, allowed_methods=["GET"]))
    upstreams[0].calls.script(Ok(delay_s=0.2))
    assert [a.endpoint for a in client.chat("Hi").attempts] == ["a"]


# Interruptions


def test_an_interrupted_caller_calls_the_second_off(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """Ctrl-C while the caller waits for the second attempt, the first having failed, ends that one too."""
    client = hedged()
    upstreams[0].calls.script(Status(500, delay_s=0.15))
    upstreams[1].calls.always(Hang())
    failed = threading.Event()
    client.on("attempt", lambda event: failed.set())

    def interrupt() -> None:
        failed.wait(5.0)
        threading.Event().wait(
            0.05
        )  # a signal just before a lock is waited for would be seen only after the wait
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        client.chat("Hi", timeout=20.0)
    helper.join()
    assert gone("syncfailover-hedge")
    assert upstreams[1].wait_for(lambda: upstreams[1].in_flight == 0)
    assert all(state.in_flight == 0 for state in client.status().endpoints)


def test_what_raises_in_the_second_attempt_alone_is_not_the_callers(
    upstreams: List[FakeUpstream], hedged: Any
) -> None:
    """A header that cannot be sent to `b` leaves the call to `a`, and no trace of `b`, which was never asked."""
    keys = {"b": "sk-secret-b"}
    endpoints = endpoints_of(upstreams[:2])
    endpoints[1] = endpoints[1].replace(api_key=lambda: keys["b"])
    client = hedged(endpoints=endpoints)
    keys["b"] = "sk-\nsecret"
    upstreams[0].calls.script(Ok(delay_s=0.25))
    reply = client.chat("Hi")
    assert reply.endpoint == "a"
    assert all(a.endpoint == "a" or a.outcome == "never_sent" for a in reply.attempts)
    assert client.status()["b"].in_flight == 0


def test_a_thread_limit_leaves_calls_unhedged(
    upstreams: List[FakeUpstream], hedged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be had, the first attempt goes on alone."""
    client = hedged()
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("syncfailover"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    upstreams[0].calls.script(Ok(delay_s=0.2), Status(503, delay_s=0.2))
    assert [a.endpoint for a in client.chat("Hi").attempts] == ["a"]
    assert [a.endpoint for a in client.chat("Hi").attempts] == ["a", "b"]
    client._caller.terms.hedging.close()  # no thread for the timer either
    assert client.chat("Hi").attempts[-1].outcome == "ok"


# Life and death


def test_closing_ends_the_timer(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """`close()` ends its thread and may be called again."""
    client = hedged()
    assert threads_named("syncfailover-timer")
    client.close()
    client.close()
    assert gone("syncfailover-timer")


def test_a_dropped_client_lets_its_thread_go(upstreams: List[FakeUpstream]) -> None:
    """Also while calls that are over still have their places in the timer, an hour ahead."""
    client = FailoverClient(
        endpoints_of(upstreams), model="gpt-4.1", probe_when="never", hedge_after=3_600_000
    )
    for _ in range(3):
        client.chat("Hi")
    assert threads_named("syncfailover-timer")
    del client
    gc.collect()
    assert gone("syncfailover-timer")


def test_calls_leave_no_cycles(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """A call in which no hedge was needed is freed without the garbage collector."""
    client = hedged(hedge_after=3_600_000)
    gc.collect()
    gc.disable()
    try:
        before = [x for x in gc.get_objects() if isinstance(x, Attempt)]
        for _ in range(20):
            client.chat("Hi")
        client._caller.terms.hedging._timer._clockwork._sweep()
        assert len([x for x in gc.get_objects() if isinstance(x, Attempt)]) <= len(before) + 2
        assert len([x for x in gc.get_objects() if isinstance(x, Race)]) <= 2
    finally:
        gc.enable()


FORGETFUL = """
from syncfailover import Endpoint, FailoverClient
from syncfailover.policy.node import Attempt
from syncfailover.runtime.hedging import Hedging, Race
from syncfailover.testing import FakeUpstream, Hang
ups = [FakeUpstream().start() for _ in range(2)]
client = FailoverClient([Endpoint(n, u.url) for n, u in zip("ab", ups)], model="m", hedge_after=AFTER)
for _ in range(60):
    client.chat("Hi")
print("done")
"""


@pytest.mark.parametrize("after", ["60000", "3", "'p95'"])
def test_a_program_that_forgets_to_close_exits_at_once(after: str) -> None:
    """Neither the timer nor a hedge holds it up, and nothing is printed on the way out."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL.replace("AFTER", after)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
    assert time.monotonic() - began < 8


def test_a_connect_that_was_called_off_leaves_nothing(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """Its error keeps no frame, and so no pool of connections, until the collector comes."""
    client = hedged()
    upstreams[0].calls.script(Ok(delay_s=0.2))
    upstreams[1].blackhole()
    gc.disable()
    try:
        assert [a.outcome for a in client.chat("Hi").attempts] == ["outpaced", "ok"]
        assert gone("syncfailover-hedge")
        client.close()
        upstreams[1].revive()
        assert gone("-connection-")
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_with_a_timer_running(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """The child hedges by a timer of its own, whoever held the locks."""
    client = hedged()
    upstreams[0].calls.script(Hang())
    with client._caller.terms.hedging._lore.lock:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                inherited = threads_named("syncfailover-timer")
                reply = client.chat("Hi")
                code = 0 if reply.endpoint == "b" and not inherited else 2
            finally:
                os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0


def test_a_closed_client_leaves_no_connection(upstreams: List[FakeUpstream], hedged: Any) -> None:
    """Nor does it take the garbage collector to close what a call that was called off had to do with."""
    client = hedged()
    upstreams[0].calls.script(Hang())
    gc.disable()
    try:
        assert client.chat("Hi").endpoint == "b"
        client.close()
        assert gone("-connection-")  # the upstreams' threads, one for each
    finally:
        gc.enable()
