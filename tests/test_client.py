"""The client: calls, replies, and what it does with wrong arguments."""

import threading
from typing import Any, List

import pytest
import urllib3
from fleet import endpoints_of

from syncfailover import (
    AllEndpointsFailed,
    AuthenticationFailed,
    ChatReply,
    ClientClosed,
    ConfigurationError,
    DeadlineExceeded,
    Endpoint,
    EndpointRegistry,
    FailoverClient,
    FailoverRetry,
    InvalidReply,
    RateLimited,
    RequestRejected,
    providers,
)
from syncfailover.testing import (
    ErrorBody,
    FakeUpstream,
    Hang,
    Html,
    Ok,
    Reset,
    Status,
    Stream,
    Trickle,
    Truncate,
)


def test_a_chat_is_answered(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """A prompt is sent as the user's message and comes back as a reply with its story."""
    reply = make_client().chat("Hi", temperature=0.5)
    assert isinstance(reply, ChatReply)
    assert reply.text == "Hello from upstream-1."
    assert (reply.endpoint, len(reply.attempts), reply.finish_reason) == ("a", 1, "stop")
    assert reply.latency_ms > 0
    sent = upstreams[0].calls.requests[0]
    assert sent.json() == {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
    }
    assert sent.header("authorization") == "Bearer sk-secret-a"


def test_the_openai_form_gives_the_same_reply(make_client: Any) -> None:
    """`chat.completions.create` is what an openai-SDK caller already wrote."""
    reply = make_client().chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Hi"}]
    )
    assert reply.choices[0].message.content == reply["choices"][0]["message"]["content"] == reply.text
    assert reply.model == "gpt-4o"


def test_a_reply_message_can_go_back_into_the_conversation(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A message of a reply is accepted among the next call's messages."""
    client = make_client()
    first = client.chat("Hi")
    client.chat([{"role": "user", "content": "Hi"}, first.message, {"role": "user", "content": "And?"}])
    assert upstreams[1].calls.requests[0].json()["messages"][1]["content"] == first.text


def test_embeddings_and_models(make_client: Any) -> None:
    """Embeddings and the model list go through the same loop."""
    client = make_client()
    embeddings = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(embeddings.data) == 2
    assert client.models.list().data[0].id
    assert client.metrics()["total_requests"] == 2


@pytest.mark.parametrize(
    "fault",
    [
        Status(500),
        Status(503),
        Status(529),
        Status(429),
        Status(401),
        Status(402),
        Status(403),
        Status(408),
        Reset(),
        ErrorBody(),
        Html(),
        Truncate(),
        Truncate(how="chunked"),
        Truncate(how="close"),
        Status(200, body=b""),
        Status(200, body={"choices": None}),
    ],
    ids=repr,
)
def test_a_fault_at_one_is_cured_by_another(
    fault: Any, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Whatever one endpoint answers that another could cure never reaches the caller."""
    upstreams[0].calls.always(fault)
    reply = make_client().chat("Hi")
    assert reply.endpoint == "b"
    assert [attempt.endpoint for attempt in reply.attempts] == ["a", "b"]
    assert reply.attempts[0].outcome != "ok"
    assert reply.attempts[0].cost_usd is None


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_goes_to_the_caller_at_once(
    status: int, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """What no endpoint could cure is not asked twice, and carries status, code and response."""
    body = {"error": {"message": "no such field", "type": "invalid_request_error", "code": "unknown_field"}}
    for upstream in upstreams:
        upstream.calls.always(Status(status, body=body))
    with pytest.raises(RequestRejected, match="no such field") as caught:
        make_client().chat("Hi")
    assert (caught.value.status, caught.value.code) == (status, "unknown_field")
    assert caught.value.response.status_code == status
    assert sum(len(upstream.calls.requests) for upstream in upstreams) == 1


def test_all_refuse_the_key(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """When every key is refused the error says so, not just that all failed."""
    for upstream in upstreams:
        upstream.calls.always(Status(401))
    with pytest.raises(AuthenticationFailed) as caught:
        make_client().chat("Hi")
    assert len(caught.value.attempts) == 3


def test_all_fail(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """When all fail for different reasons the error lists every attempt, with numbers."""
    upstreams[0].kill()
    upstreams[1].calls.always(Status(501))
    upstreams[2].calls.always(Status(503, body={"error": {"message": "too busy"}}))
    upstreams[1].calls.always(Status(500))
    with pytest.raises(AllEndpointsFailed) as caught:
        make_client(max_retries=2).chat("Hi")
    message = str(caught.value)
    assert "a: connect refused" in message
    assert "too busy" in message
    assert {attempt.endpoint for attempt in caught.value.attempts} == {"a", "b", "c"}


def test_a_silent_host_never_eats_the_whole_deadline(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Half of the time is kept for another endpoint, and the call ends well within its deadline."""
    upstreams[0].calls.always(Hang())
    reply = make_client(timeout=1.0).chat("Hi")
    assert reply.endpoint == "b"
    assert 450 < reply.attempts[0].latency_ms < 900
    assert reply.attempts[0].maybe_billed


def test_a_trickling_host_does_not_stretch_the_deadline(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A byte every 20 ms is never late for a socket timeout, but it is for the call."""
    for upstream in upstreams:
        upstream.calls.always(Trickle(interval_s=0.02))
    client = make_client(timeout=0.6)
    with pytest.raises(DeadlineExceeded) as caught:
        client.chat("Hi")
    assert sum(attempt.latency_ms for attempt in caught.value.attempts) < 1000


def test_an_unknown_fate_can_be_the_end(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """With ambiguous="raise" a request that may have been processed is not sent again."""
    upstreams[0].calls.always(Reset())
    with pytest.raises(AllEndpointsFailed) as caught:
        make_client(max_retries=FailoverRetry(3, ambiguous="raise")).chat("Hi")
    assert [attempt.maybe_billed for attempt in caught.value.attempts] == [True]


def test_the_emergency_exit_is_used_last(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A lower priority is asked only when the higher one has nobody left, under the name that it has for the model."""
    primary, second, last = endpoints_of(upstreams)
    client = make_client([primary, second, last.replace(priority=1, models={"gpt-4.1": "openai/gpt-4.1"})])
    assert {client.chat("Hi").endpoint for _ in range(4)} == {"a", "b"}
    upstreams[0].kill()
    upstreams[1].kill()
    reply = client.chat("Hi")
    assert reply.endpoint == "c"
    assert upstreams[2].calls.requests[-1].json()["model"] == "openai/gpt-4.1"


def test_a_dead_one_gets_no_more_traffic_and_comes_back(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """Three failures open the breaker; after the recovery time one trial closes it again."""
    client = make_client(recovery_timeout=0.2)
    opened = threading.Event()
    closed = threading.Event()
    client.on("breaker_opened", lambda event: opened.set())
    client.on("breaker_closed", lambda event: closed.set())
    upstreams[0].calls.always(Status(500))
    for _ in range(12):
        client.chat("Hi")
    assert opened.is_set()
    assert len(upstreams[0].calls.requests) == 3
    assert client.status()["a"].breaker == "open"
    upstreams[0].heal()
    assert client.registry.wait_for(lambda now: now["a"].eligible, 2.0)
    for _ in range(12):
        client.chat("Hi")
    assert closed.is_set()
    assert client.chat("Hi").text


def test_a_reply_knows_its_cost(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Cost follows from usage and the endpoint's prices; an unknown price is None, never 0."""
    endpoint = endpoints_of(upstreams)[0]
    usage = {"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500}
    upstreams[0].calls.always(Ok(usage=usage))
    priced = make_client([endpoint.replace(prices={"gpt-4.1": (2.0, 8.0)})])
    assert priced.chat("Hi").cost_usd == pytest.approx(0.006)
    assert priced.metrics()["total_cost_usd"] == pytest.approx(0.006)
    assert priced.chat("Hi", model="other").cost_usd is None
    assert priced.metrics()["unpriced_requests"] == 1


def test_metrics_have_the_briefs_fields(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Calls, successes, failures, failovers, rates, latency, cost and uptime are counted."""
    client = make_client()
    upstreams[0].calls.script(Status(500))
    client.chat("Hi")
    upstreams[1].calls.script(Status(400))
    upstreams[2].calls.script(Status(400))
    with pytest.raises(RequestRejected):
        client.chat("Hi")
    metrics = client.metrics()
    assert (metrics["total_requests"], metrics["successful_requests"], metrics["failed_requests"]) == (
        2,
        1,
        1,
    )
    assert (metrics["failover_count"], metrics["failover_rate"], metrics["success_rate"]) == (1, 0.5, 0.5)
    assert metrics["average_latency_ms"] > 0
    assert metrics["uptime_hours"] > 0
    assert metrics["endpoints"]["a"]["outcomes"] == {"server_error": 1}


def test_events_tell_of_attempts_and_failovers(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Listeners hear of every attempt and every move, until they stop listening."""
    client = make_client()
    heard: List[Any] = []
    stop = client.on("attempt", heard.append)
    client.on("failover", heard.append)
    upstreams[0].calls.script(Status(503))
    client.chat("Hi")
    assert [(event.name, event.endpoint) for event in heard] == [
        ("attempt", "a"),
        ("failover", "a"),
        ("attempt", "b"),
    ]
    assert heard[1].data == "b"
    stop()
    client.chat("Hi")
    assert len(heard) == 3


def test_from_keys_is_the_briefs_setup() -> None:
    """One endpoint per key, weights falling, and an emergency exit."""
    exit_ = providers.openrouter("k3", priority=1)
    with FailoverClient.from_keys(
        ["k1", "k2"], provider="holysheep", model="gpt-4.1", emergency=exit_
    ) as client:
        found = [(e.name, e.weight, e.priority) for e in client.registry.endpoints]
    assert found == [("holysheep-1", 2, 0), ("holysheep-2", 1, 0), ("openrouter", 1, 1)]


def test_importing_and_creating_starts_nothing(make_client: Any) -> None:
    """Threads start on first use, never in `__init__`."""
    before = threading.active_count()
    make_client(probe_when="always")
    assert threading.active_count() == before


def test_a_closed_client_says_so(make_client: Any) -> None:
    """Calls after `close()` raise a clear error; closing twice is harmless."""
    client = make_client()
    client.chat("Hi")
    client.close()
    client.close()
    with pytest.raises(ClientClosed, match="closed"):
        client.chat("Hi")
    with pytest.raises(ClientClosed, match="closed"):
        client.session.get("/models")


def test_what_is_under_way_goes_on_when_a_client_is_closed(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A stream that had begun comes to its end."""
    upstreams[0].script(Stream(tokens=20, interval_s=0.005))
    client = make_client()
    stream = client.chat("Hi", stream=True)
    client.close()
    assert stream.collect().text.endswith("token19")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoints": []}, "endpoints: the list is empty"),
        ({"endpoints": [Endpoint("a", "http://h"), Endpoint("a", "http://i")]}, "endpoints: 'a'.*only once"),
        ({"endpoints": ["http://h"]}, "endpoints: 'http://h'"),
        ({"endpoints": [providers.holysheep("k")]}, r"endpoints: .*unpacked with \*"),
        ({"balancer": "fastest"}, "balancer: 'fastest'.*'round_robin'"),
        ({"balancer": object()}, "balancer: <object"),
        ({"timeout": 0}, "timeout: 0 "),
        ({"timeout": float("nan")}, "timeout: nan"),
        ({"timeout": None}, r"timeout: None .*\(connect, read\), or Timeouts.*give a large number"),
        ({"timeout": "30"}, r"timeout: '30' .*seconds .*a pair \(connect, read\), or Timeouts\(\.\.\.\)$"),
        ({"timeout": urllib3.Timeout(5)}, r"timeout: Timeout\(connect=.*or Timeouts\(\.\.\.\)$"),
        ({"max_retries": -1}, "max_retries: -1"),
        ({"max_retries": 1.5}, "max_retries: 1.5"),
        ({"probe_interval": 0}, "probe_interval: 0"),
        ({"probe_timeout": float("inf")}, "probe_timeout: inf"),
        ({"probe_when": "sometimes"}, "probe_when: 'sometimes'.*'idle'"),
        ({"failure_threshold": 0}, "failure_threshold: 0"),
        ({"recovery_timeout": -5}, "recovery_timeout: -5"),
        ({"failure_rate": 2}, "failure_rate: 2.*at most 1"),
        ({"model": ""}, "model: ''"),
        ({"hedge_afterwards": 3}, "hedge_afterwards: is not known; did you mean 'hedge_after'"),
        ({"endpoints": [Endpoint("a", "http://h", models=["x"])], "model": "y"}, "model: 'y'.*serves: x"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_options_are_named_at_once(options: Any, message: str) -> None:
    """A client that could not work is not made; the error names field, value and what is allowed."""
    endpoints = options.pop("endpoints", [Endpoint("a", "http://h")])
    with pytest.raises(ConfigurationError, match=message):
        FailoverClient(endpoints, **options)


@pytest.mark.parametrize(
    ("arguments", "params", "message"),
    [
        (([],), {}, r"messages: \[\]"),
        ((["hi"],), {}, r"messages\[0\]: 'hi'"),
        (({"role": "user"},), {}, "messages: {'role'"),
        ((None,), {}, "messages: None"),
        (("hi",), {"tools": {1, 2}}, "tools: {1, 2}"),
        (("hi",), {"temperature": float("nan")}, "temperature: nan"),
        (("hi",), {"timeout": -1}, "timeout: -1"),
        (("hi",), {"model": 7}, "model: 7"),
        (
            (),
            {"messages": "hello"},
            r"messages: 'hello' .*expected a list .*; client\.chat\('hello'\) takes a text$",
        ),
        (("hi",), {"wire_stream": "no"}, "wire_stream: 'no' is not allowed; expected True or False"),
        (("hi",), {"stream": "no"}, "stream: 'no' is not allowed; expected True or False"),
        (("hi",), {"on_break": "resume"}, "on_break: 'resume'.*one of 'raise', 'restart'"),
    ],
    ids=repr,
)
def test_bad_calls_are_named_at_once(arguments: Any, params: Any, message: str, make_client: Any) -> None:
    """A call that could not work is not sent; the error names field, value and what is allowed."""
    client = make_client()
    with pytest.raises(ConfigurationError, match=message):
        client.chat(*arguments, **params)
    assert client.metrics()["total_requests"] == 0


def test_create_takes_no_text(make_client: Any) -> None:
    """The error says which call does."""
    with pytest.raises(
        ConfigurationError, match=r"expected a list of messages .*; client\.chat\('hello'\) takes"
    ):
        make_client().chat.completions.create(messages="hello")


def test_a_call_needs_a_model(make_client: Any) -> None:
    """Without a model anywhere the error says where to give one."""
    with pytest.raises(ConfigurationError, match="model: none is given"):
        make_client(model=None).chat("Hi")


def test_an_unknown_event_is_named(make_client: Any) -> None:
    """The error lists the events there are."""
    with pytest.raises(ConfigurationError, match=r"event: 'oops'.*'breaker_opened'"):
        make_client().on("oops", print)


def test_a_registry_can_be_shared(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Two clients over one registry share what is known; options of the registry are refused beside it."""
    registry = EndpointRegistry(endpoints_of(upstreams), recovery_timeout=60)
    first, second = make_client(registry), make_client(registry)
    upstreams[0].kill()
    for _ in range(9):
        first.chat("Hi")
    assert second.status()["a"].breaker == "open"
    assert [len(second.chat("Hi").attempts) for _ in range(4)] == [1, 1, 1, 1]
    with pytest.raises(ConfigurationError, match="recovery_timeout: 5"):
        FailoverClient(registry, recovery_timeout=5)


def test_a_rate_limit_everywhere_is_a_rate_limit(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """When everybody says 429 for longer than the deadline, the caller gets RateLimited with the time to wait."""
    for upstream in upstreams:
        upstream.calls.always(Status(429, headers={"Retry-After": "60"}))
    with pytest.raises(RateLimited) as caught:
        make_client().chat("Hi")
    assert caught.value.retry_after == 60
    assert len(caught.value.attempts) == 3


def test_replies_without_an_answer_are_invalid(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """When all that comes is HTML with status 200, the error says what came."""
    for upstream in upstreams:
        upstream.calls.always(Html())
    with pytest.raises(InvalidReply, match="HTML where JSON was due"):
        make_client().chat("Hi")


def test_a_rotated_key_is_asked_for_each_time(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A callable key is called for each attempt; where it fails, the call goes elsewhere."""
    keys = iter(["first", "second"])

    def broken() -> str:
        raise RuntimeError("the vault is sealed: hunter2")

    good, bad = endpoints_of(upstreams)[:2]
    client = make_client([good.replace(api_key=lambda: next(keys))])
    client.chat("Hi")
    client.chat("Hi")
    sent = [request.header("authorization") for request in upstreams[0].calls.requests]
    assert sent == ["Bearer first", "Bearer second"]
    with pytest.raises(AllEndpointsFailed, match="api_key callable raised RuntimeError") as caught:
        make_client([bad.replace(api_key=broken)], max_retries=0).chat("Hi")
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize("option", ["budget_usd", "hedge_after", "queue_timeout", "max_retries", "balancer"])
def test_an_option_of_the_client_is_no_field_of_a_call(
    option: str, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """In the payload it would guard nothing, so it is refused before anything is sent."""
    with pytest.raises(
        ConfigurationError, match=rf"{option}: 5 is not allowed; .*FailoverClient\(\.\.\., {option}="
    ):
        make_client().chat("Hi", **{option: 5})
    assert upstreams[0].requests == []


def test_a_base_url_is_the_root_of_the_api() -> None:
    """With the path of a call in it, every call would end in a 404."""
    with pytest.raises(ConfigurationError, match=r"base_url: .* without /chat/completions"):
        Endpoint("a", "https://api.example.com/v1/chat/completions")
