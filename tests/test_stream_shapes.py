"""What providers send inside of a stream, in their own words, to the pure policy and over real sockets.

`streams/` holds it as data, a file per provider: `opening` is what comes before any content, `content` is the first of
it, and each case's `sent` is what then breaks the stream: a text is sent as it is, an object is an event. Every case is
told before the first content, with the opening and without, and after it.

before, after     `outcome` (after content it is always "interrupted"), whether the call `goes` "elsewhere", "nowhere" or
                  to a "larger window", what it does to the `breaker` ("failure", "neutral"), and what `rests` ("key",
                  "pair"). A case without `after` cannot happen there; one that is `alone` has no opening.
answers           what follows the content of a stream that is whole, in an odd shape; its `usage`, and its `reason`.

Whatever came with status 200 may have been billed.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import pytest
from requests.structures import CaseInsensitiveDict

from syncfailover import Endpoint, FailoverClient, FailoverError, StreamInterrupted
from syncfailover.completion.sse import SSEDecoder
from syncfailover.policy.breaker import BreakerState
from syncfailover.policy.breaker_config import BreakerConfig
from syncfailover.policy.course import Course
from syncfailover.policy.health import HealthConfig
from syncfailover.policy.node import Attempt
from syncfailover.policy.outcome import ANSWERS, BEGUN, classify
from syncfailover.policy.paths import progress_of
from syncfailover.policy.pool import EndpointPool
from syncfailover.policy.received import BROKEN_OFF, INTERRUPTED, Received
from syncfailover.policy.retry import FailoverRetry, RetryBudget
from syncfailover.policy.steps import Stop
from syncfailover.testing import Answer, FakeUpstream, Fault, ManualClock

STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}
FACTS: Dict[str, Dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "streams").glob("*.json"))
}
#: Where a call goes that was refused by the first endpoint, whose context window is the second's.
GOES = {"elsewhere": "b", "larger window": "c", "nowhere": None}
WINDOWS = {"a": 8000, "b": 8000, "c": 100_000}
WEIGHTS = {"a": 1000, "b": 10, "c": 1}


def encoded(sent: Sequence[Any]) -> bytes:
    """Write what is sent: texts as they are, objects as events."""
    parts = []
    for item in sent:
        if isinstance(item, dict):
            name = f"event: {item['event']}\n" if "event" in item else ""
            data = item["data"] if isinstance(item["data"], str) else json.dumps(item["data"])
            item = f"{name}data: {data}\n\n"  # noqa: PLW2901
        parts.append(item.encode())
    return b"".join(parts)


class Told:
    """One case: what is sent, and what follows from it."""

    def __init__(self, provider: str, case: Dict[str, Any], when: str, *, opened: bool = True) -> None:
        facts = FACTS[provider]
        self.path = "responses" if facts.get("path") == "responses" else "chat/completions"
        self.headers = {**STREAM, **case.get("headers", {})}
        #: What comes first, and in another write the rest.
        self.first = encoded(facts["opening"]) if opened and "alone" not in case else b""
        if when != "before" and "alone" not in case:
            self.first += encoded(facts["content"])
        self.rest = encoded(case["sent"])
        self.expected: Dict[str, Any] = case.get(when, {})
        self.outcome = "interrupted" if when == "after" else self.expected.get("outcome")
        self.case = case


def cases(when: str) -> Iterator[Any]:
    """Give every case before or after the content; before it, also at the very beginning."""
    for provider, facts in FACTS.items():
        for case in facts["cases"]:
            if when in case:
                yield pytest.param(Told(provider, case, when), id=f"{provider}: {case['says']}")
            if when == "before" and facts["opening"] and "alone" not in case and case["sent"]:
                alone = Told(provider, case, when, opened=False)
                yield pytest.param(alone, id=f"{provider}: {case['says']}, at the very beginning")


BEFORE = list(cases("before"))
AFTER = list(cases("after"))
ANSWERED = [
    pytest.param(Told(provider, case, "answers"), id=f"{provider}: {case['says']}")
    for provider, facts in FACTS.items()
    for case in facts["answers"]
]


def changed(pool: EndpointPool) -> Tuple[str, Optional[str]]:
    """Tell what the first attempt did to the breaker of the first endpoint, and what rests there."""
    node = pool.nodes["a"]
    key, pair = node.key_rests_until > 0.0, pool.roster.rests.until("a", "gpt-4.1") > 0.0
    breaker = "failure" if node.breaker.state.name is BreakerState.OPEN else "neutral"
    return breaker, "key" if key else "pair" if pair else None


# In the pure policy


def read(told: Told) -> List[Received]:
    """Read a body as a door does; a stream that begins and then breaks is told twice."""
    body, headers = told.first + told.rest, CaseInsensitiveDict(told.headers)
    says_so = "event-stream" in headers["Content-Type"] or body.startswith((b"data:", b":"))
    if body.lstrip().startswith((b"{", b"[", b"<")) or not says_so:
        try:
            return [Received(200, headers, body, json.loads(body))]
        except ValueError:
            return [Received(200, headers, body)]
    progress, decoder = progress_of(told.path)(), SSEDecoder()
    for event in [*decoder.feed(body), *decoder.end()]:
        progress.take(event)
        if progress.over or progress.broken:
            break
    begun = [Received(200, headers, stream=progress)] if progress.begun else []
    if progress.whole and not progress.broken:
        return begun
    if progress.error is not None and not begun:
        return [Received(200, headers, b"{}", progress.error)]
    fault = INTERRUPTED if begun else BROKEN_OFF
    return [*begun, Received(200, headers, payload=progress.error, fault=fault, detail=progress.detail)]


class Bench:
    """The three endpoints, without sockets, and one call on its way."""

    def __init__(self) -> None:
        self.pool = EndpointPool(
            [
                Endpoint(n, "http://127.0.0.1:1/v1", weight=WEIGHTS[n], context_window=WINDOWS[n])
                for n in "abc"
            ],
            balancer="weighted",
            breaker=BreakerConfig(failure_threshold=1),
            health=HealthConfig(),
            budget=RetryBudget(),
            chance=lambda: 0.0,
        )
        retry = FailoverRetry()
        self.course = Course(self.pool, retry, "gpt-4.1", 30.0, read_s=None, chance=lambda: 0.0, streams=True)

    def goes(self, received: Received, expects: str) -> Tuple[Any, Optional[str]]:
        """Report what came of the first attempt; return its outcome and who is asked next."""
        first = self.course.begin(0.0)
        assert first.endpoint.name == "a"
        outcome = classify(received, expects=expects)
        self.pool.report(first, outcome, 0.0)
        step = self.course.after(first, outcome, 0.0)
        assert isinstance(step, (Attempt, Stop))
        return outcome, step.endpoint.name if isinstance(step, Attempt) else None


@pytest.mark.parametrize("told", [*BEFORE, *AFTER])
def test_the_policy_names_it(told: Told) -> None:
    """Name, next endpoint, breaker, rests and billing follow from the provider's own words."""
    came = read(told)
    if told.outcome == "interrupted":
        assert classify(came[0], expects="choices") is BEGUN
    else:
        assert len(came) == 1
    bench = Bench()
    outcome, goes = bench.goes(came[-1], progress_of(told.path).expects)
    expected = told.expected
    assert outcome.rule.name == told.outcome
    assert expected.get("detail", "") in outcome.detail
    assert goes == GOES[expected["goes"]]
    assert changed(bench.pool) == (expected["breaker"], expected["rests"])
    assert outcome.rule.maybe_billed


@pytest.mark.parametrize("told", ANSWERED)
def test_the_policy_takes_an_odd_shape_for_an_answer(told: Told) -> None:
    """A stream that is whole by its provider's customs has begun and is not broken."""
    (came,) = read(told)
    assert classify(came, expects=progress_of(told.path).expects) in ANSWERS
    assert came.stream is None or (came.stream.whole and came.stream.usage == told.case["usage"])


# Over real sockets


class Says(Fault):
    """Send a case, in one write, or its first part in one and the rest in another."""

    def __init__(self, told: Told, *, at_once: bool = False) -> None:
        self.told, self.at_once = told, at_once

    def answer(self, _reply: Any) -> Answer:
        """Write it as a body of known length."""
        told = self.told
        headers = {**told.headers, "Content-Length": len(told.first) + len(told.rest)}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        first = f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + told.first
        if self.at_once or not told.first:
            return Answer(first + told.rest)
        return Answer(first + told.rest, piece=max(len(first), len(told.rest)), interval_s=0.002)


@pytest.fixture(scope="module")
def running() -> Iterator[Dict[str, FakeUpstream]]:
    """Three upstreams for all the tests here: what breaks are bodies."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(FakeUpstream(name, text="All of it.")) for name in "abc"}


@pytest.fixture
def client(running: Dict[str, FakeUpstream]) -> Iterator[FailoverClient]:
    """A client that asks `a` first, and on whose clock nothing that rests gets up."""
    clock = ManualClock()
    endpoints = [
        Endpoint(name, upstream.url, weight=WEIGHTS[name], context_window=WINDOWS[name])
        for name, upstream in running.items()
    ]
    with FailoverClient(
        endpoints,
        model="gpt-4.1",
        probe_when="never",
        timeout=5.0,
        failure_threshold=1,
        clock=clock,
        sleep=clock.sleep,
    ) as made:
        yield made
    for upstream in running.values():
        upstream.heal()
        upstream.clear_log()


def ask(client: FailoverClient, told: Told, **options: Any) -> Any:
    """Make the call that such a stream answers."""
    if told.path == "responses":
        return client.responses.create(input="Hi", **options)
    return client.chat("Hi", **options)


def text_of(reply: Any) -> Any:
    """Return what it says."""
    return reply.output_text if reply.object == "response" else reply.text


def follow(client: FailoverClient, told: Told, *, restart: bool) -> Tuple[Any, Optional[FailoverError]]:
    """Make a call and read its stream to the end; return its attempts and the error."""
    try:
        stream = ask(client, told, stream=True, on_break="restart" if restart else "raise")
        for _ in stream:
            pass
    except FailoverError as error:
        return error.attempts, error
    assert stream.text == text_of(stream.reply) == "All of it."
    return stream.attempts, None


def check(client: FailoverClient, told: Told, attempts: Any) -> None:
    """Compare the first attempt, and what is known after it, with what should be."""
    assert attempts[0][:2] == ("a", told.outcome)
    assert attempts[0].maybe_billed
    assert told.expected.get("detail", "") in attempts[0].detail
    pool = client.registry._pool
    assert changed(pool) == (told.expected["breaker"], told.expected["rests"])
    assert [state.in_flight for state in client.status().endpoints] == [0, 0, 0]


@pytest.mark.parametrize("told", [*BEFORE, *AFTER])
def test_a_call_goes_where_it_should(
    client: FailoverClient, running: Dict[str, FakeUpstream], told: Told
) -> None:
    """Somebody else answers whole, or the error's class says what happened; after content with `on_break="restart"`."""
    running["a"].script(Says(told))
    attempts, error = follow(client, told, restart=True)
    goes = GOES[told.expected["goes"]]
    if goes is None:
        assert [attempt.endpoint for attempt in attempts] == ["a"]
        rule = classify(read(told)[-1], expects=progress_of(told.path).expects).rule
        assert type(error) is rule.error
    else:
        assert error is None
        assert [attempt[:2] for attempt in attempts[1:]] == [(goes, "ok")]
    check(client, told, attempts)


@pytest.mark.parametrize("told", AFTER)
def test_after_content_the_caller_is_told(
    client: FailoverClient, running: Dict[str, FakeUpstream], told: Told
) -> None:
    """By default nobody else is asked, and the error has the text so far, also where all came at once."""
    running["a"].script(Says(told, at_once=True))
    attempts, error = follow(client, told, restart=False)
    assert type(error) is StreamInterrupted
    assert error.text == "Hel"
    assert len(attempts) == 1
    check(client, told, attempts)


@pytest.mark.parametrize("told", ANSWERED)
def test_an_odd_shape_is_an_answer(
    client: FailoverClient, running: Dict[str, FakeUpstream], told: Told
) -> None:
    """A stream that is whole by its provider's customs is read to its end, as a loop and as a whole."""
    running["a"].script(Says(told), Says(told))
    stream = ask(client, told, stream=True)
    for _ in stream:
        pass
    reply = ask(client, told, wire_stream=True)
    assert stream.text == text_of(stream.reply) == text_of(reply) == "Hello"
    for read in (reply, stream.reply):
        assert (read.status if told.path == "responses" else read.finish_reason) == told.case["reason"]
    assert reply.get("usage") == told.case["usage"]
    assert [attempt[:2] for attempt in reply.attempts] == [("a", "ok")]
