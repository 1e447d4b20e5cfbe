"""Situations that every call must come through, each with a primary and a fallback of lower priority, over real sockets.

Each is met in up to four ways: a whole answer (plain), the same sent as a stream (wire), a stream that is collected,
and a stream that is read in a loop. The defaults hold unless a test says otherwise. What is waited for between attempts
is skipped by the clock; what a socket waits for is scaled down.
"""

import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from syncfailover import (
    ContentFiltered,
    ContextLengthExceeded,
    Endpoint,
    FailoverClient,
    StreamInterrupted,
    Timeouts,
)
from syncfailover.testing import (
    FakeUpstream,
    Fault,
    Hang,
    Ok,
    Reset,
    Status,
    Stream,
    StreamCut,
    StreamError,
    StreamGarbage,
    StreamStall,
    Truncate,
)

#: A busy machine may take so many seconds more.
SLACK_S = 0.6
SIXTY = " ".join(f"token{number}" for number in range(60))
FORTY = " ".join(f"token{number}" for number in range(40))
BROKEN = {"after": 40, "tokens": 60}
RATE_LIMIT = {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}
TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 8000 tokens.",
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
    }
}
FILTERED = {
    "error": {
        "message": "The response was filtered: violence.",
        "type": "invalid_request_error",
        "code": "content_filter",
    }
}


class SkippingClock:
    """The machine's own clock, put forward instead of waiting."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        """Read it."""
        return time.monotonic() + self.ahead_s

    def skip(self, seconds: float) -> None:
        """Be so many seconds later at once."""
        self.ahead_s += seconds


def plain(client: FailoverClient, **params: Any) -> Any:
    """Ask for a whole answer."""
    return client.chat("Hi", **params)


def wire(client: FailoverClient, **params: Any) -> Any:
    """Ask for a whole answer, sent as a stream."""
    return client.chat("Hi", wire_stream=True, **params)


def collect(client: FailoverClient, **params: Any) -> Any:
    """Take a stream as a whole."""
    return client.chat("Hi", stream=True, **params).collect()


def loop(client: FailoverClient, **params: Any) -> Any:
    """Read a stream chunk by chunk."""
    stream = client.chat("Hi", stream=True, **params)
    text = ""
    for chunk in stream:
        text = chunk.text if chunk.restarted else text + chunk.text
    assert text == stream.reply.text
    return stream.reply


Way = Callable[..., Any]
every_way = pytest.mark.parametrize("ask", [plain, wire, collect, loop])
streams = pytest.mark.parametrize("ask", [wire, collect, loop])
whole = pytest.mark.parametrize("ask", [wire, collect])


class Stage:
    """A primary, a fallback, and a client of both."""

    def __init__(self, running: ExitStack, upstreams: Dict[str, FakeUpstream]) -> None:
        self._running = running
        self.primary, self.fallback = upstreams["primary"], upstreams["fallback"]
        self.clock = SkippingClock()

    def client(self, *, primary: Any = None, fallback: Any = None, **options: Any) -> FailoverClient:
        """Make the client, which chance treats with its shortest pauses."""
        options = {"chance": lambda: 0.0, **options}
        made = FailoverClient(
            [
                Endpoint("primary", self.primary.url, **(primary or {})),
                Endpoint("fallback", self.fallback.url, priority=1, **(fallback or {})),
            ],
            model="gpt-4.1",
            probe_when="never",
            clock=self.clock,
            sleep=self.clock.skip,
            **options,
        )
        return self._running.enter_context(made)

    def timed(self, ask: Way, client: FailoverClient, **params: Any) -> Tuple[Any, float]:
        """Make a call; return its reply and the seconds that it took, those that were skipped included."""
        began = self.clock()
        reply = ask(client, **params)
        return reply, self.clock() - began


@pytest.fixture(scope="module")
def pair() -> Iterator[Dict[str, FakeUpstream]]:
    """Two upstreams for all the tests here."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(FakeUpstream(name)) for name in ("primary", "fallback")}


@pytest.fixture
def stage(pair: Dict[str, FakeUpstream]) -> Iterator[Stage]:
    """Both upstreams, well again after the test."""
    with ExitStack() as running:
        yield Stage(running, pair)
    for upstream in pair.values():
        upstream.heal()
        upstream.revive()
        upstream.clear_log()


def tried(told: Any) -> List[Tuple[str, str]]:
    """Return endpoint and outcome of each attempt of a reply or an error."""
    return [attempt[:2] for attempt in told.attempts]


ANSWERED, RESCUED = ("primary", "ok"), ("fallback", "ok")


@every_way
def test_a_rate_limit_of_two_seconds(stage: Stage, ask: Way) -> None:
    """429 with `Retry-After: 2` once: the primary answers, after two seconds."""
    stage.primary.script(Status(429, RATE_LIMIT, {"Retry-After": "2"}))
    reply, took_s = stage.timed(ask, stage.client())
    assert tried(reply) == [("primary", "rate_limited"), ANSWERED]
    assert 1.95 < took_s < 2.0 + SLACK_S
    assert not stage.fallback.requests


@every_way
@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_rate_limit_that_stays(stage: Stage, ask: Way, chance: float) -> None:
    """429 for ever: at most three attempts of a call go there, and never more than four of all calls in 3 s."""
    stage.primary.calls.always(Status(429, RATE_LIMIT))
    client = stage.client(chance=lambda: chance)
    asked_at: List[float] = []
    client.on("attempt", lambda event: event.endpoint == "primary" and asked_at.append(stage.clock()))
    for _ in range(40):
        reply = ask(client)
        assert tried(reply)[-1] == RESCUED
        assert tried(reply).count(("primary", "rate_limited")) <= 3
        stage.clock.skip(0.25)
    for began in asked_at:
        assert sum(began <= at < began + 3.0 for at in asked_at) <= 4
    assert len(asked_at) == len(stage.primary.requests) > 4


@every_way
def test_a_server_error_once(stage: Stage, ask: Way) -> None:
    """500 once: one quick retry, and the primary answers."""
    stage.primary.script(Status(500))
    reply = ask(stage.client())
    assert tried(reply) == [("primary", "server_error"), ANSWERED]
    assert 0.3 < reply.attempts[1].wait_s < 1.0
    assert not stage.fallback.requests


@every_way
def test_unavailable_for_ever(stage: Stage, ask: Way) -> None:
    """503 for ever: the fallback answers at once, and after three calls the primary is left alone."""
    stage.primary.calls.always(Status(503))
    client = stage.client()
    for number in range(5):
        reply = ask(client)
        assert tried(reply) == [("primary", "overloaded"), RESCUED][number >= 3 :]
        assert reply.attempts[-1].wait_s == 0.0
    assert len(stage.primary.requests) == 3


@every_way
def test_a_reset_before_the_headers(stage: Stage, ask: Way) -> None:
    """A reset once: the call is answered."""
    stage.primary.script(Reset())
    reply = ask(stage.client())
    assert tried(reply) == [("primary", "reset"), ANSWERED]
    assert [attempt.maybe_billed for attempt in reply.attempts] == [True, True]


@every_way
@pytest.mark.parametrize("timeout", [Timeouts(read=0.1), Timeouts(total=0.3)])
def test_no_response(stage: Stage, ask: Way, timeout: Timeouts) -> None:
    """One attempt at the silent primary; when its time is over the fallback is asked at once."""
    stage.primary.calls.always(Hang())
    reply, took_s = stage.timed(ask, stage.client(), timeout=timeout)
    assert [attempt.endpoint for attempt in reply.attempts] == ["primary", "fallback"]
    assert tried(reply)[0][1] in ("silent", "late")
    assert len(stage.primary.requests) == 1
    attempt_s = timeout.read or timeout.total / 2
    assert attempt_s - 0.02 < took_s < attempt_s + SLACK_S


@streams
@pytest.mark.parametrize("comments_every_s", [None, 0.02])
def test_a_first_token_that_is_late(stage: Stage, ask: Way, comments_every_s: Any) -> None:
    """No content in `first_token` seconds: the fallback answers, whatever comments keep the connection alive."""
    stage.primary.script(Stream(first_token_s=5.0, comments_every_s=comments_every_s))
    reply, took_s = stage.timed(ask, stage.client(), timeout=Timeouts(first_token=0.1))
    assert tried(reply) == [("primary", "late"), RESCUED]
    assert 0.09 < took_s < 0.1 + SLACK_S


CUTS = [StreamCut(how=how, **BROKEN) for how in ("reset", "chunked", "content-length", "close")]
ODD = [StreamGarbage(**BROKEN), StreamError(**BROKEN), StreamError(done=True, **BROKEN)]


@whole
@pytest.mark.parametrize("fault", [*CUTS, *ODD], ids=repr)
def test_a_break_in_the_middle_of_a_whole_answer(stage: Stage, ask: Way, fault: Fault) -> None:
    """Cut after 40 of 60 tokens, or garbage or an error there: who wants the whole gets it, from one endpoint."""
    stage.primary.script(fault)
    stage.fallback.script(Stream(tokens=60))
    reply = ask(stage.client())
    assert reply.text == SIXTY
    assert tried(reply) == [("primary", "interrupted"), RESCUED]


@pytest.mark.parametrize("fault", [*CUTS, *ODD], ids=repr)
def test_a_break_in_the_middle_of_a_loop(stage: Stage, fault: Fault) -> None:
    """By default the reader is told, with the text so far; with `on_break="restart"` it begins anew."""
    stage.primary.script(fault, fault)
    stage.fallback.script(Stream(tokens=60))
    client = stage.client()
    with pytest.raises(StreamInterrupted) as caught:
        loop(client)
    assert caught.value.text == FORTY
    assert tried(caught.value) == [("primary", "interrupted")]
    assert not stage.fallback.requests
    assert loop(client, on_break="restart").text == SIXTY


@pytest.mark.parametrize("how", ["reset", "chunked", "content-length"])
def test_a_whole_answer_that_is_cut(stage: Stage, how: str) -> None:
    """Without a stream, a body that was cut is no answer: the call gets a whole one."""
    stage.primary.script(Truncate(how=how))
    reply = plain(stage.client())
    assert tried(reply) == [("primary", "truncated"), ANSWERED]


@streams
@pytest.mark.parametrize("comments_every_s", [None, 0.02])
def test_a_stream_that_stalls(stage: Stage, ask: Way, comments_every_s: Any) -> None:
    """Noticed within the stall limit: the whole answer, or the text so far; and the next call is fine."""
    stage.primary.script(StreamStall(comments_every_s=comments_every_s, **BROKEN))
    stage.fallback.script(Stream(tokens=60))
    client = stage.client(timeout=Timeouts(stall=0.1))
    began = time.monotonic()
    if ask is loop:
        with pytest.raises(StreamInterrupted, match="stalled: no content for") as caught:
            ask(client)
        assert caught.value.text == FORTY
    else:
        reply = ask(client)
        assert reply.text == SIXTY
        assert tried(reply) == [("primary", "interrupted"), RESCUED]
    assert 0.09 < time.monotonic() - began < 0.1 + SLACK_S
    assert tried(ask(client)) == [ANSWERED]


@streams
@pytest.mark.parametrize("hold", [False, True])
def test_no_done_but_a_finish_reason(stage: Stage, ask: Way, hold: bool) -> None:
    """Whole, at once and with its usage, also when the server then keeps the connection open and silent."""
    usage = {"prompt_tokens": 7, "completion_tokens": 60, "total_tokens": 67}
    stage.primary.script(Stream(tokens=60, done=False, hold=hold, usage=usage))
    reply, took_s = stage.timed(ask, stage.client())
    assert (reply.text, reply.finish_reason) == (SIXTY, "stop")
    assert dict(reply.usage) == usage
    assert tried(reply) == [ANSWERED]
    assert took_s < SLACK_S


@every_way
def test_too_long_a_prompt(stage: Stage, ask: Way) -> None:
    """The same model is not asked a second time: nobody is, or an endpoint that declares a larger window."""
    stage.primary.calls.always(Status(400, TOO_LONG))
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 8000") as caught:
        ask(stage.client())
    assert tried(caught.value) == [("primary", "context_length")]
    assert not stage.fallback.requests
    reply = ask(stage.client(fallback={"context_window": 128_000}))
    assert tried(reply) == [("primary", "context_length"), RESCUED]


@every_way
def test_filtered_content(stage: Stage, ask: Way) -> None:
    """One attempt, and the provider's reason reaches the caller."""
    stage.primary.calls.always(Status(400, FILTERED))
    with pytest.raises(ContentFiltered, match="The response was filtered: violence") as caught:
        ask(stage.client())
    assert tried(caught.value) == [("primary", "content_filtered")]
    assert (caught.value.status, caught.value.code) == (400, "content_filter")
    assert not stage.fallback.requests


@streams
def test_a_fallback_that_rejects_prefill(stage: Stage, ask: Way) -> None:
    """What was said so far is never sent on: no attempt ends with an assistant's message that the caller did not send."""
    stage.primary.script(*CUTS)
    stage.fallback.calls.always(Stream(tokens=60))
    client = stage.client(failure_threshold=9)
    for _ in CUTS:
        assert ask(client, on_break="restart").text == SIXTY
    seen = [request.json()["messages"] for request in stage.primary.requests + stage.fallback.requests]
    assert seen == 8 * [[{"role": "user", "content": "Hi"}]]


@every_way
@pytest.mark.parametrize("how", ["refused", "503", "500"])
def test_an_outage_of_a_minute(stage: Stage, ask: Way, how: str) -> None:
    """Twenty calls are all served; the primary is back within 30 s, and was asked no more often than there were calls."""
    client = stage.client()
    if how == "refused":
        stage.primary.kill()
    else:
        stage.primary.calls.always(Status(int(how)))
    attempts: List[Any] = []
    for _ in range(20):
        reply = ask(client)
        assert reply.endpoint == "fallback"
        attempts += [attempt for attempt in reply.attempts if attempt.endpoint == "primary"]
        stage.clock.skip(3.0)
    assert len(attempts) <= 20
    stage.primary.heal()
    stage.primary.revive()
    back_s, endpoint = 0.0, ""
    while endpoint != "primary":
        stage.clock.skip(2.0)
        back_s += 2.0
        endpoint = ask(client).endpoint
    assert back_s <= 30.0
    assert tried(ask(client)) == [ANSWERED]


@every_way
def test_probes_shorten_the_way_back(stage: Stage, ask: Way) -> None:
    """With health checks every two seconds, the primary is back with the first call after three good ones."""
    client = stage.client()
    stage.primary.kill()
    for _ in range(5):
        client._monitor.probe_all()
        assert ask(client).endpoint == "fallback"
        stage.clock.skip(2.0)
    stage.primary.revive()
    for _ in range(3):
        client._monitor.probe_all()
        stage.clock.skip(2.0)
    assert tried(ask(client)) == [ANSWERED]


#: What fails, in which ways of asking, and whether it may have been billed.
FAILURES = [
    *(
        pytest.param(ask, Status(503), False, id=f"{ask.__name__} 503")
        for ask in (plain, wire, collect, loop)
    ),
    *(
        pytest.param(ask, Status(401), False, id=f"{ask.__name__} 401")
        for ask in (plain, wire, collect, loop)
    ),
    pytest.param(plain, Truncate(), True, id="plain truncated"),
    *(
        pytest.param(ask, StreamError(after=0), True, id=f"{ask.__name__} error before content")
        for ask in (wire, collect, loop)
    ),
    *(
        pytest.param(ask, StreamCut(**BROKEN), True, id=f"{ask.__name__} cut")
        for ask in (wire, collect, loop)
    ),
]


@pytest.mark.parametrize(("ask", "fault", "billed"), FAILURES)
def test_a_fallback_that_answers(stage: Stage, ask: Way, fault: Fault, billed: bool) -> None:
    """Model and usage are the fallback's, what failed costs nothing, and it says whether it may have been billed."""
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
    stage.primary.calls.always(fault)
    stage.fallback.script(Ok(usage=usage) if ask is plain else Stream(usage=usage))
    client = stage.client(
        primary={"prices": {"gpt-4.1": 8.0}, "models": {"gpt-4.1": "primary-model"}},
        fallback={"prices": {"gpt-4.1": 10.0}, "models": {"gpt-4.1": "fallback-model"}},
    )
    reply = ask(client, on_break="restart")
    assert (reply.model, reply.endpoint) == ("fallback-model", "fallback")
    assert dict(reply.usage) == usage
    assert reply.cost_usd == 10.0
    *failed, last = reply.attempts
    assert last.cost_usd == 10.0
    assert failed
    for attempt in failed:
        assert (attempt.endpoint, attempt.cost_usd, attempt.maybe_billed) == ("primary", None, billed)
    numbers = client.metrics()
    assert numbers["total_cost_usd"] == 10.0
    assert numbers["endpoints"]["primary"]["total_cost_usd"] == 0.0
    assert numbers["endpoints"]["primary"]["unpriced_requests"] == 0
    assert (numbers["total_requests"], numbers["failover_count"]) == (1, 1)
