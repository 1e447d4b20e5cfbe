"""Replies of no particular provider over real sockets, and what follows from refusals in everybody's words.

The data is that of the policy's tests, `policy/wire/`; each preset's own refusals are in `test_provider_shapes.py`.
"""

import json
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from syncfailover import (
    Endpoint,
    FailoverClient,
    FailoverError,
    FailoverRetry,
    FailoverSession,
    RequestRejected,
)
from syncfailover.policy.outcome import KEY_REFUSED, Outcome
from syncfailover.testing import FakeUpstream, ManualClock, Status

SHAPES = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "policy" / "wire").glob("*.json"))
}
ANY = [pytest.param(case, id=case["says"]) for case in SHAPES["any"]]
#: Outcomes that are the caller's at once.
ENDS = ("ok", "rejected", "content_filtered")


def of_outcome(*outcomes: str) -> List[Any]:
    """Give every provider's cases of some outcomes."""
    return [
        pytest.param(case, id=f"{provider}: {case['says']}")
        for provider, cases in SHAPES.items()
        for case in cases
        if case["outcome"] in outcomes and case.get("expects", "choices") == "choices"
    ]


EVERYBODYS = of_outcome(*{case["outcome"] for cases in SHAPES.values() for case in cases})


def says(case: Dict[str, Any]) -> Status:
    """Answer with a case's status, headers and body, exactly."""
    data = case["text"].encode() if "text" in case else json.dumps(case["body"]).encode()
    return Status(case["status"], data, {"Content-Type": "application/json", **case.get("headers", {})})


@pytest.fixture(scope="module")
def running() -> Iterator[Dict[str, FakeUpstream]]:
    """Three upstreams for all the tests here."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(FakeUpstream(name)) for name in "abc"}


@pytest.fixture
def make(running: Dict[str, FakeUpstream]) -> Iterator[Callable[..., Any]]:
    """A function that makes clients, or sessions, whose clock stands; they ask `a` first, and `c` has the largest window."""
    with ExitStack() as stack:

        def made(kind: Any = FailoverClient, **options: Any) -> Any:
            clock = ManualClock()
            endpoints = [
                Endpoint("a", running["a"].url, "sk-secret-a", weight=1000, context_window=8000),
                Endpoint("b", running["b"].url, weight=10, context_window=8000),
                Endpoint("c", running["c"].url, context_window=100_000),
            ]
            options = {"probe_when": "never", "timeout": 5.0, "clock": clock, "sleep": clock.sleep, **options}
            return stack.enter_context(kind(endpoints, **options))

        yield made
    for upstream in running.values():
        upstream.heal()
        upstream.clear_log()


@pytest.mark.parametrize("case", ANY)
def test_a_reply_of_anybody(
    make: Callable[..., Any], running: Dict[str, FakeUpstream], case: Dict[str, Any]
) -> None:
    """It gets its name, is marked where it may have been billed, and goes to the next endpoint or to the caller."""
    running["a"].script(says(case))
    expects = case.get("expects", "choices")
    try:
        if expects == "choices":
            attempts = make(model="gpt-4.1").chat("Hi").attempts
        elif expects == "data":
            attempts = make(model="gpt-4.1").embeddings.create(input="Hi").attempts
        else:
            attempts = make(FailoverSession).get("/files", allow_redirects=False).attempts
    except FailoverError as error:
        attempts = error.attempts
        assert case["outcome"] in ENDS
    assert [attempt.endpoint for attempt in attempts] == list("a" if case["outcome"] in ENDS else "ab")
    assert attempts[0].outcome == case["outcome"]
    assert attempts[0].status == case["status"]
    assert attempts[0].maybe_billed is (
        case["outcome"] in ("ok", "invalid_reply") or 200 <= case["status"] < 300
    )


@pytest.mark.parametrize("case", EVERYBODYS)
def test_a_reply_where_a_stream_was_asked_for(
    make: Callable[..., Any], running: Dict[str, FakeUpstream], case: Dict[str, Any]
) -> None:
    """Refusals and answers that come whole mean the same to a call that asked for a stream."""
    running["a"].script(says(case))
    try:
        reply = make(model="gpt-4.1").chat("Hi", stream=True).collect()
        attempts = reply.attempts
    except FailoverError as error:
        attempts = error.attempts
    assert attempts[0][:2] == ("a", case["outcome"])
    assert attempts[0].status == case["status"]
    ends = case["outcome"] in ENDS
    then = "c" if case["outcome"] == "context_length" else "b"
    assert [attempt[:2] for attempt in attempts[1:]] == ([] if ends else [(then, "ok")])


@pytest.mark.parametrize("case", of_outcome("context_length"))
@pytest.mark.parametrize("stream", [False, True])
def test_too_long_a_prompt_goes_to_a_larger_window(
    make: Callable[..., Any], running: Dict[str, FakeUpstream], case: Dict[str, Any], stream: bool
) -> None:
    """Whoever declares no larger window than the one that refused is not asked; nor is that one again."""
    running["a"].script(says(case))
    reply = make(model="gpt-4.1").chat("Hi", wire_stream=stream)
    assert [attempt[:2] for attempt in reply.attempts] == [("a", "context_length"), ("c", "ok")]
    assert not running["b"].requests


@pytest.mark.parametrize("case", of_outcome("content_filtered"))
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_filtered_goes_nowhere(
    make: Callable[..., Any], running: Dict[str, FakeUpstream], case: Dict[str, Any], stream: bool
) -> None:
    """One attempt, and the provider's reason in the error."""
    running["a"].script(says(case))
    with pytest.raises(RequestRejected) as caught:
        make(model="gpt-4.1").chat("Hi", stream=stream)
    assert case["body"]["error"]["message"] in str(caught.value)
    assert [attempt[:2] for attempt in caught.value.attempts] == [("a", "content_filtered")]
    assert not caught.value.attempts[0].maybe_billed or case["status"] == 200


@pytest.mark.parametrize("case", of_outcome("key_refused", "quota_exhausted"))
def test_a_key_that_rests_is_told_once(
    make: Callable[..., Any],
    running: Dict[str, FakeUpstream],
    case: Dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning names endpoint and reason, and no key, however many calls find it out; the key is not used."""
    caplog.set_level(logging.INFO, "syncfailover")
    running["a"].calls.always(says(case))
    client = make(model="gpt-4.1")
    registry = client.registry
    under_way = registry.acquire(exclude="bc", model="gpt-4o")
    for model in ("gpt-4.1", "gpt-4o"):
        assert client.chat("Hi", model=model).endpoint == "b"
    registry.report(under_way, Outcome(KEY_REFUSED, "HTTP 401"))
    assert len(running["a"].requests) == 1
    (first,) = [record for record in caplog.records if "key_rests" in record.getMessage()]
    assert first.levelno == logging.WARNING
    assert first.getMessage().startswith(f"a: key_rests: HTTP {case['status']}")
    assert "sk-secret" not in caplog.text


def test_what_probes_find_out_is_told_once(
    make: Callable[..., Any], running: Dict[str, FakeUpstream], caplog: pytest.LogCaptureFixture
) -> None:
    """The second probe of a refused key says nothing new; the rest after a reset is another one."""
    running["a"].calls.always(Status(401))
    running["a"].probes.always(Status(401))
    client = make(model="gpt-4.1", probe_when="never")
    client._monitor.probe_all()
    client._monitor.probe_all()
    client.registry.reset("a")
    assert client.chat("Hi").endpoint == "b"
    client._monitor.probe_all()
    told = [record.getMessage() for record in caplog.records if "key_rests" in record.getMessage()]
    assert len(told) == 2
    assert "HTTP 401" in told[0]
    assert "not used for 3600 s" in told[1]


@pytest.mark.parametrize("stream", [False, True])
def test_the_servers_wish_is_heeded(
    make: Callable[..., Any], running: Dict[str, FakeUpstream], stream: bool
) -> None:
    """`x-should-retry: true` sends a refusal elsewhere, and `false` has nobody asked who said so a second time."""
    client = make(model="gpt-4.1", max_retries=FailoverRetry(5))
    running["a"].script(Status(400, headers={"X-Should-Retry": "true"}))
    reply = client.chat("Hi", wire_stream=stream)
    assert [attempt[:2] for attempt in reply.attempts] == [("a", "rejected"), ("b", "ok")]
    for upstream in running.values():
        upstream.clear_log()
        upstream.calls.script(Status(500, headers={"X-Should-Retry": "false"}))
    with pytest.raises(FailoverError) as caught:
        client.chat("Hi", wire_stream=stream)
    assert [len(upstream.requests) for upstream in running.values()] == [1, 1, 1]
    assert len(caught.value.attempts) == 3
