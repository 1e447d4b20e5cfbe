"""The real openai package over the failover loop: its calls and types stay, and what fails goes elsewhere."""

import gc
import json
import sys
import threading
import time
from typing import Any, List

import openai
import pytest
from fleet import endpoints_of

from syncfailover import (
    AllEndpointsFailed,
    ClientClosed,
    ConfigurationError,
    Endpoint,
    EndpointRegistry,
    StreamDeadlineExceeded,
    StreamInterrupted,
    Timeouts,
)
from syncfailover.contrib.openai import failover_openai
from syncfailover.testing import (
    ErrorBody,
    FakeUpstream,
    Hang,
    Html,
    Ok,
    Reset,
    Status,
    Stream,
    StreamCut,
    StreamError,
    StreamGarbage,
    StreamStall,
)

CHAT: Any = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hi"}]}
HAS_RESPONSES = hasattr(openai.OpenAI, "responses")  # since 1.66
ENDLESS = Stream(tokens=1000, interval_s=0.01)
TOOL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 22}'}}


def counts(sdk: Any) -> Any:
    """Return how many calls were made, and how many succeeded and failed."""
    metrics = sdk.failover.metrics()
    return metrics["total_requests"], metrics["successful_requests"], metrics["failed_requests"]


def text_of(stream: Any) -> str:
    """Read a stream of a chat to its end."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def chain(error: BaseException) -> List[BaseException]:
    """Return an error and its causes."""
    found = [error]
    while found[-1].__cause__ is not None:
        found.append(found[-1].__cause__)
    return found


# Calls


def test_a_chat_is_a_chat(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """What comes back is the package's own type, and every upstream would have seen the same request."""
    sdk = make_sdk()
    reply = sdk.chat.completions.create(**CHAT, temperature=0.5)
    assert isinstance(sdk, openai.OpenAI)
    assert isinstance(reply, openai.types.chat.ChatCompletion)
    assert reply.choices[0].message.content == "Hello from upstream-1."
    assert reply.usage.total_tokens > 0
    assert upstreams[0].requests[0].json() == {**CHAT, "temperature": 0.5}
    assert counts(sdk) == (1, 1, 0)


def test_tools(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """Calls of tools come whole, and piece by piece."""
    sdk = make_sdk()
    message = {"role": "assistant", "content": None, "tool_calls": [TOOL]}
    upstreams[0].script(Ok(message=message, finish_reason="tool_calls"))
    upstreams[1].script(Ok(message=message, finish_reason="tool_calls"))
    (call,) = sdk.chat.completions.create(**CHAT).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"a": 1, "b": 22}
    pieces = [chunk.choices[0].delta.tool_calls for chunk in sdk.chat.completions.create(**CHAT, stream=True)]
    arguments = "".join(piece[0].function.arguments for piece in pieces if piece)
    assert json.loads(arguments) == {"a": 1, "b": 22}


def test_embeddings_models_and_completions(make_sdk: Any) -> None:
    """Other calls go the same way."""
    sdk = make_sdk()
    assert sdk.embeddings.create(model="text-embedding-3-small", input=["a", "b"]).data[1].index == 1
    assert sdk.models.list().data[0].id == "gpt-4.1"
    assert sdk.completions.create(model="gpt-4.1", prompt="Hi").choices[0].text == "Hello from upstream-3."
    stream = sdk.completions.create(model="gpt-4.1", prompt="Hi", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "Hello from upstream-1."
    assert counts(sdk) == (4, 4, 0)


def test_responses(make_sdk: Any) -> None:
    """The responses API comes whole and as a stream, in versions that know it."""
    sdk = make_sdk()
    if not HAS_RESPONSES:
        return
    responses = sdk.responses
    assert responses.create(model="gpt-4.1", input="Hi").output_text == "Hello from upstream-1."
    events = list(responses.create(model="gpt-4.1", input="Hi", stream=True))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "Hello from upstream-2."
    with responses.stream(model="gpt-4.1", input="Hi") as stream:
        assert stream.get_final_response().output_text == "Hello from upstream-3."
    assert counts(sdk) == (3, 3, 0)


def test_raw_and_streaming_responses(make_sdk: Any) -> None:
    """Whoever looks below finds which endpoint answered, and what was tried."""
    sdk = make_sdk()
    raw = sdk.chat.completions.with_raw_response.create(**CHAT)
    assert raw.headers["x-syncfailover-endpoint"] == "a"
    assert [attempt.outcome for attempt in raw.http_response.extensions["syncfailover"]] == ["ok"]
    assert raw.parse().choices[0].message.content == "Hello from upstream-1."
    assert raw.elapsed.total_seconds() > 0
    with sdk.chat.completions.with_streaming_response.create(**CHAT) as response:
        assert json.loads(b"".join(response.iter_bytes()))["object"] == "chat.completion"
    with sdk.chat.completions.with_streaming_response.create(**CHAT, stream=True) as response:
        lines = [line.strip() for line in response.iter_lines() if line.strip()]
    assert lines[-1] == "data: [DONE]"
    assert counts(sdk) == (3, 3, 0)


def test_the_helper_that_gathers_a_stream(make_sdk: Any) -> None:
    """`chat.completions.stream()` works, wherever a version has it."""
    sdk = make_sdk()
    chat = sdk.chat.completions if hasattr(sdk.chat.completions, "stream") else sdk.beta.chat.completions
    with chat.stream(**CHAT) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello from upstream-1."


def test_options_of_the_package_stay(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """Headers, query and fields of a call arrive, and `with_options` keeps the endpoints."""
    sdk = make_sdk(openai_kwargs={"default_headers": {"X-Team": "blue"}})
    extra: Any = {"extra_headers": {"X-One": "1"}, "extra_query": {"q": "a b"}, "extra_body": {"seed": 7}}
    sdk.with_options(timeout=3.0).chat.completions.create(**CHAT, **extra)
    (seen,) = upstreams[0].requests
    assert (seen.header("x-team"), seen.header("x-one")) == ("blue", "1")
    assert seen.path.startswith("/v1/chat/completions?q=a")
    assert seen.json()["seed"] == 7


# Failover


@pytest.mark.parametrize(
    "fault", [Status(503), Status(429), Reset(), ErrorBody(), Html(), Status(401)], ids=repr
)
def test_a_call_that_fails_goes_elsewhere(make_sdk: Any, upstreams: List[FakeUpstream], fault: Any) -> None:
    """Whatever is wrong with one endpoint, the caller sees the answer of another."""
    sdk = make_sdk()
    upstreams[0].calls.always(fault)
    reply = sdk.chat.completions.create(**CHAT)
    assert reply.choices[0].message.content == "Hello from upstream-2."
    assert sdk.failover.metrics()["failover_count"] == 1


def test_a_dead_endpoint_is_left_alone(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """The breaker opens, for the package's calls and for the client's own alike."""
    sdk = make_sdk()
    upstreams[0].kill()
    for _ in range(9):
        sdk.chat.completions.create(**CHAT)
    assert sdk.failover.status()["a"].breaker.value == "open"
    assert counts(sdk) == (9, 9, 0)


BEFORE = [
    StreamCut(after=0),
    StreamCut(after=0, how="close"),
    StreamCut(after=0, how="chunked"),
    StreamError(after=0),
    StreamStall(after=0),
    StreamStall(after=0, comments_every_s=0.02),
    StreamGarbage(after=0),
    Status(503),
    ErrorBody(),
    Html(),
    Hang(),
]


@pytest.mark.parametrize("fault", BEFORE, ids=lambda fault: f"{type(fault).__name__}")
def test_a_stream_that_breaks_before_its_first_token(
    make_sdk: Any, two: Any, make_client: Any, fault: Any
) -> None:
    """Nobody sees it: the stream that is read comes from another endpoint, from its beginning."""
    upstreams, endpoints = two
    sdk = make_sdk(make_client(endpoints, timeout=Timeouts(5.0, first_token=0.15)))
    upstreams[0].calls.always(fault)
    stream = sdk.chat.completions.create(**CHAT, stream=True)
    assert text_of(stream) == "Hello from upstream-2."
    assert counts(sdk) == (1, 1, 0)
    assert stream.response.headers["x-syncfailover-endpoint"] == "b"


AFTER = [
    StreamCut(after=3),
    StreamCut(after=3, how="close"),
    StreamCut(after=3, how="chunked"),
    StreamCut(after=3, how="content-length"),
    StreamStall(after=3),
    StreamStall(after=3, comments_every_s=0.02),
    StreamGarbage(after=2),
    StreamGarbage(after=2, interval_s=0.01),
]


@pytest.mark.parametrize("fault", AFTER, ids=lambda fault: f"{type(fault).__name__}-{vars(fault)!s:.60}")
def test_a_stream_that_breaks_after_its_first_token(
    make_sdk: Any, upstreams: List[FakeUpstream], fault: Any
) -> None:
    """A stream that is cut short, or goes silent, never looks like one that is whole."""
    sdk = make_sdk(timeout=Timeouts(5.0, stall=0.15))
    upstreams[0].calls.always(fault)
    read: List[str] = []
    stream = sdk.chat.completions.create(**CHAT, stream=True)
    with pytest.raises(openai.APIConnectionError) as caught:
        read.extend(chunk.choices[0].delta.content for chunk in stream)
    assert "Hello from upstream-1.".startswith("".join(read))
    assert any(read)
    cause = caught.value.__cause__
    assert isinstance(cause, StreamInterrupted)
    assert cause.text == "".join(read)
    assert str(cause) == str(caught.value)
    assert counts(sdk) == (1, 0, 1)
    assert upstreams[0].wait_for(lambda: upstreams[0].in_flight == 0)


@pytest.mark.parametrize("call", ["completions", *["responses"] * HAS_RESPONSES])
def test_the_text_of_a_stream_that_broke(make_sdk: Any, upstreams: List[FakeUpstream], call: str) -> None:
    """What had come is in the error behind the package's, whichever call it was."""
    sdk = make_sdk()
    upstreams[0].calls.always(StreamCut(after=3))
    asked = {"input": "Hi"} if call == "responses" else {"prompt": "Hi"}
    with pytest.raises(openai.APIConnectionError) as caught:
        list(getattr(sdk, call).create(model="gpt-4.1", stream=True, **asked))
    text = caught.value.__cause__.text  # type: ignore[union-attr]
    assert text
    assert "Hello from upstream-1.".startswith(text)


@pytest.mark.parametrize("fault", [StreamError(after=2), StreamError(after=2, done=True)], ids=repr)
def test_a_stream_that_reports_an_error(make_sdk: Any, upstreams: List[FakeUpstream], fault: Any) -> None:
    """The package raises what the provider said, and the call counts as failed although the package read no further."""
    sdk = make_sdk()
    upstreams[0].calls.always(fault)
    with pytest.raises(openai.APIError, match="told to fail"):
        text_of(sdk.chat.completions.create(**CHAT, stream=True))
    assert counts(sdk) == (1, 0, 1)


def test_a_chat_that_comes_whole_is_streamed(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """A provider that knows no streams still brings its text to whoever reads one."""
    sdk = make_sdk()
    whole = sdk.chat.completions.create(**CHAT).model_dump()
    upstreams[1].script(Status(200, body=whole))
    assert text_of(sdk.chat.completions.create(**CHAT, stream=True)) == "Hello from upstream-1."


# Leaving a stream


def _break(stream: Any) -> None:
    for _chunk in stream:
        break


def _close(stream: Any) -> None:
    next(stream)
    stream.close()


def _exit(stream: Any) -> None:
    with stream:
        next(stream)


def _forget(stream: Any) -> None:
    next(stream)


def _leave_unread(stream: Any) -> None:
    del stream


@pytest.mark.parametrize("leave", [_break, _close, _exit, _forget, _leave_unread])
def test_leaving_a_stream_frees_its_connection(
    make_sdk: Any, upstreams: List[FakeUpstream], leave: Any
) -> None:
    """However a stream is left, its generation ends at once, and nobody's failure is counted."""
    sdk = make_sdk()
    upstreams[0].calls.always(ENDLESS)
    stream = sdk.chat.completions.create(**CHAT, stream=True)
    assert upstreams[0].in_flight == 1
    leave(stream)
    del stream
    gc.collect()
    assert upstreams[0].wait_for(lambda: upstreams[0].in_flight == 0, timeout=1.0)
    assert sdk.failover.status()["a"].in_flight == 0
    assert counts(sdk) == (1, 0, 0)


def test_another_thread_may_close(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """The thread that reads is told that there is no more; it does not take what it has for the whole."""
    sdk = make_sdk()
    upstreams[0].calls.always(StreamStall(after=2))
    stream = sdk.chat.completions.create(**CHAT, stream=True)
    threading.Timer(0.1, stream.close).start()
    began = time.monotonic()
    with pytest.raises(openai.APIConnectionError, match="closed before its end"):
        text_of(stream)
    assert time.monotonic() - began < 2.0
    assert counts(sdk) == (1, 0, 0)


def test_what_is_read_to_the_reason_for_its_end_is_whole(
    make_sdk: Any, upstreams: List[FakeUpstream]
) -> None:
    """Who stops reading at `finish_reason` has had an answer, and it counts as one."""
    sdk = make_sdk()
    with sdk.chat.completions.create(**CHAT, stream=True) as stream:
        for chunk in stream:
            if chunk.choices[0].finish_reason:
                break
    assert counts(sdk) == (1, 1, 0)


def test_a_stream_read_to_its_end_keeps_its_connection(make_sdk: Any, two: Any, make_client: Any) -> None:
    """The next call goes over the same connection."""
    upstreams, endpoints = two
    sdk = make_sdk(make_client(endpoints[:1]))
    for _ in range(3):
        text_of(sdk.chat.completions.create(**CHAT, stream=True))
    assert upstreams[0].connections == 1


def test_the_cost_of_a_stream(make_sdk: Any, make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """A stream that reports its usage is priced like any answer."""
    endpoints = endpoints_of(upstreams, prices={"gpt-4.1": 8.0})
    sdk = make_sdk(make_client(endpoints))
    chunks = list(sdk.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens > 0
    metrics = sdk.failover.metrics()
    assert metrics["total_cost_usd"] == pytest.approx(chunks[-1].usage.total_tokens * 8e-6)
    assert metrics["unpriced_requests"] == 0


# Errors

STATUSES = [
    (Status(400, body={"error": {"message": "no such field"}}), openai.BadRequestError, 400),
    (Status(401), openai.AuthenticationError, 401),
    (Status(403), openai.PermissionDeniedError, 403),
    (Status(404), openai.NotFoundError, 404),
    (Status(422), openai.UnprocessableEntityError, 422),
    (Status(429), openai.RateLimitError, 429),
    (Status(500), openai.InternalServerError, 500),
    (Status(529), openai.InternalServerError, 529),
    (ErrorBody({"error": {"code": 429, "message": "slow down"}}), openai.RateLimitError, 429),
    (ErrorBody([{"error": {"code": 400, "message": "a list"}}]), openai.BadRequestError, 400),
    (ErrorBody({"error": "a bare text"}), openai.InternalServerError, 502),
    (Status(200, body={"object": "chat.completion", "choices": None}), openai.InternalServerError, 502),
    (Html(200), openai.InternalServerError, 502),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "kind", "status"), STATUSES, ids=lambda value: str(value)[:40])
def test_what_no_endpoint_cures(
    make_sdk: Any, two: Any, make_client: Any, fault: Any, kind: Any, status: int, stream: bool
) -> None:
    """The package raises its own error for it, also where the provider said 200; and it tries no second time."""
    upstreams, endpoints = two
    sdk = make_sdk(make_client(endpoints, max_retries=1))
    for upstream in upstreams:
        upstream.calls.always(fault)
    with pytest.raises(kind) as caught:
        sdk.chat.completions.create(**CHAT, stream=stream)
    assert type(caught.value) is kind
    assert caught.value.status_code == status
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.json()
    assert sum(len(upstream.requests) for upstream in upstreams) <= 2
    assert counts(sdk) == (1, 0, 1)


def test_the_providers_error_object_is_kept(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """Code, type and whatever else a provider says of an error inside a 200 are there to be read."""
    sdk = make_sdk(max_retries=2)
    said = {"code": 429, "message": "slow down", "metadata": {"provider_name": "Somebody"}}
    for upstream in upstreams:
        upstream.calls.always(ErrorBody({"error": said}))
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.chat.completions.create(**CHAT)
    assert caught.value.body["metadata"] == {"provider_name": "Somebody"}
    assert caught.value.body["message"] == "slow down"


def test_nobody_there(make_sdk: Any, two: Any, make_client: Any) -> None:
    """Where no endpoint can be reached the package's error has ours behind it, which says what was tried."""
    upstreams, endpoints = two
    sdk = make_sdk(make_client(endpoints, max_retries=1))
    for upstream in upstreams:
        upstream.kill()
    with pytest.raises(openai.APIConnectionError) as caught:
        sdk.chat.completions.create(**CHAT)
    (ours,) = [error for error in chain(caught.value) if isinstance(error, AllEndpointsFailed)]
    assert {attempt.detail for attempt in ours.attempts} == {"connect refused"}


def test_a_model_that_nobody_serves(make_sdk: Any, make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """It is told as OpenAI tells it, and nobody is asked."""
    sdk = make_sdk(make_client(endpoints_of(upstreams, models=["gpt-4.1"])))
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        sdk.chat.completions.create(**{**CHAT, "model": "gpt-9"})
    assert not upstreams[0].requests


# Time


@pytest.mark.parametrize("where", ["client", "package", "call"])
def test_a_timeout_bounds_the_whole_call(make_sdk: Any, upstreams: List[FakeUpstream], where: str) -> None:
    """Wherever it is said, a timeout is that of all attempts together, and the package's own error."""
    given = {"timeout": 0.3}
    sdk = make_sdk(
        openai_kwargs=given if where == "package" else None, **(given if where == "client" else {})
    )
    for upstream in upstreams:
        upstream.calls.always(Hang())
    began = time.monotonic()
    with pytest.raises(openai.APITimeoutError):
        sdk.chat.completions.create(**CHAT, **(given if where == "call" else {}))
    assert 0.2 < time.monotonic() - began < 1.0


def test_no_timeout_is_the_clients(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """`timeout=None` does not mean forever."""
    sdk = make_sdk(timeout=0.3, openai_kwargs={"timeout": None})
    for upstream in upstreams:
        upstream.calls.always(Hang())
    with pytest.raises(openai.APITimeoutError):
        sdk.chat.completions.create(**CHAT)


def test_the_time_of_a_stream(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """A stream that is still coming when the call's time is over is the package's timeout."""
    sdk = make_sdk()
    for upstream in upstreams:
        upstream.calls.always(ENDLESS)
    stream = sdk.chat.completions.create(**CHAT, stream=True, timeout=0.3)
    with pytest.raises(openai.APITimeoutError) as caught:
        text_of(stream)
    assert isinstance(caught.value.__cause__, StreamDeadlineExceeded)


# Endpoints of their own kind


def test_endpoints_have_their_own_names_paths_and_fields(
    make_sdk: Any, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Each endpoint is asked at its path, for its model, without the fields that it refuses."""
    up = upstreams[0]
    endpoint = Endpoint(
        "azure",
        up.origin,
        "sk-secret-azure",
        auth="api-key",
        models={"gpt-4.1": "my-gpt"},
        call_path="deployments/{model}/{path}",
        params={"api-version": "1"},
        fields=["messages", "temperature"],
        headers={"X-Own": "yes"},
    )
    up.calls.always(Status(200, body={"choices": [{"index": 0, "message": {"content": "deployed"}}]}))
    sdk = make_sdk(make_client([endpoint]))
    reply = sdk.chat.completions.create(**CHAT, temperature=0.5, seed=7)
    assert reply.choices[0].message.content == "deployed"
    (seen,) = up.requests
    assert seen.path == "/deployments/my-gpt/chat/completions?api-version=1"
    assert seen.json() == {**CHAT, "model": "my-gpt", "temperature": 0.5}
    assert (seen.header("api-key"), seen.header("authorization")) == ("sk-secret-azure", None)
    assert seen.header("x-own") == "yes"


# Secrets


def test_nothing_of_the_callers_account_is_sent(
    make_sdk: Any, upstreams: List[FakeUpstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and names of accounts that the environment holds, or that are given later, go to no endpoint, nor does what tells of the machine."""
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "sk-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    sdk = make_sdk()
    sdk.chat.completions.create(**CHAT)
    headers = upstreams[0].requests[0].headers
    assert headers["authorization"] == "Bearer sk-secret-a"
    later = sdk.with_options(api_key="sk-of-the-environment", organization="sk-of-the-environment")
    later.chat.completions.create(**CHAT)
    later.chat.completions.create(**CHAT, extra_headers={"Authorization": "Bearer sk-of-the-environment"})
    assert [len(upstream.requests) for upstream in upstreams] == [1, 1, 1]
    assert "sk-of-the-environment" not in str([upstream.requests[0].headers for upstream in upstreams])
    assert not [name for name in headers if "stainless" in name or name.startswith("openai-")]


@pytest.mark.parametrize("status", [401, 200])
@pytest.mark.parametrize("stream", [False, True])
def test_no_key_comes_out(make_sdk: Any, upstreams: List[FakeUpstream], status: int, stream: bool) -> None:
    """Not where a provider echoes it, not in an error or its causes, not in the request behind a response."""
    sdk = make_sdk()
    for name, upstream in zip("abc", upstreams):
        echo = {"error": {"message": f"Incorrect API key: sk-secret-{name}", "code": 401}}
        upstream.calls.always(Status(401, body=echo) if status == 401 else ErrorBody(echo))
    with pytest.raises(openai.AuthenticationError) as caught:
        sdk.chat.completions.create(**CHAT, stream=stream)
    error = caught.value
    shown = [
        error,
        error.body,
        error.response.text,
        dict(error.request.headers),
        dict(error.response.headers),
    ]
    shown += [sdk, sdk._client, sdk._client._transport, *map(vars, chain(error))]
    assert "sk-secret" not in repr(shown)
    assert "***" in error.response.text


def test_no_key_comes_out_of_a_stream(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """Not in an error that comes in its middle, either."""
    sdk = make_sdk()
    upstreams[0].calls.always(StreamError(after=1, body={"error": {"message": "bad key sk-secret-a"}}))
    with pytest.raises(openai.APIError, match=r"bad key \*\*\*") as caught:
        text_of(sdk.chat.completions.create(**CHAT, stream=True))
    assert "sk-secret" not in repr([vars(error) for error in chain(caught.value)])


# What it is made of


def test_it_is_made_of_endpoints_or_a_registry(two: Any) -> None:
    """A client is made where none is passed, and closed with the package's."""
    upstreams, endpoints = two
    for source in (endpoints, EndpointRegistry(endpoints)):
        with failover_openai(source) as sdk:
            client = sdk._client._transport.client
            assert sdk.chat.completions.create(**CHAT).choices
        assert client._caller.closed
    assert len(upstreams[0].calls.requests) + len(upstreams[1].calls.requests) == 2


def test_a_client_that_was_passed_in_stays_open(make_client: Any) -> None:
    """It is its owner's to close; then the package's calls say so."""
    client = make_client()
    with failover_openai(client):
        pass
    assert client.chat("Hi").text
    with failover_openai(client) as sdk:
        client.close()
        with pytest.raises((openai.APIConnectionError, ClientClosed)) as caught:  # not every version wraps it
            sdk.chat.completions.create(**CHAT)
    assert isinstance(chain(caught.value)[-1], ClientClosed)


def test_closing_leaves_alone_what_is_under_way(make_client: Any) -> None:
    """A stream is read to its end after its client was closed."""
    client = make_client()
    with failover_openai(client) as sdk:
        stream = sdk.chat.completions.create(**CHAT, stream=True)
        client.close()
        assert text_of(stream) == "Hello from upstream-1."
    with pytest.raises((openai.APIConnectionError, RuntimeError)) as caught:  # not every version wraps it
        sdk.chat.completions.create(**CHAT)
    assert isinstance(chain(caught.value)[-1], RuntimeError)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"api_key": "sk-secret-x"}, "api_key: .* give each Endpoint its own api_key="),
        ({"base_url": "http://x/v1"}, "base_url: .* make an Endpoint for each base_url"),
        ({"http_client": None}, "http_client"),
        ({"organization": "org-1"}, "organization: .* Endpoint headers={'OpenAI-Organization': '...'}"),
        ({"project": "proj-1"}, "project: .* Endpoint headers={'OpenAI-Project': '...'}"),
        ({"azure_endpoint": "https://x"}, r"azure_endpoint: .* providers\.azure\(\.\.\.\)"),
        ({"max_retries": 2}, r"max_retries: 2 .* FailoverClient\(\.\.\., max_retries=\)"),
        ({"balancer": "weighted"}, r"balancer: .* FailoverClient\(\.\.\., balancer=\)"),
    ],
)
def test_arguments_that_would_be_lost(make_client: Any, kwargs: Any, says: str) -> None:
    """They are refused, with the place where they belong; and no key is shown."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        failover_openai(make_client(), **kwargs)
    assert "sk-secret" not in repr(vars(caught.value)) + str(caught.value)


def test_another_base_url(make_sdk: Any) -> None:
    """A client that is given one is told, at its first call, that each endpoint has its own."""
    moved = make_sdk().with_options(base_url="http://127.0.0.1:9/v1")
    wrapped_or_not = (openai.APIConnectionError, ConfigurationError)
    with pytest.raises(wrapped_or_not) as caught:
        moved.chat.completions.create(**CHAT)
    says = "url: http://127.0.0.1:9/v1/chat/completions is asked for, but make an Endpoint for each base_url"
    assert str(chain(caught.value)[-1]) == says


@pytest.mark.parametrize("version", ["0.28.1", "1.55.2", "4.0.0", "no version"])
def test_a_version_that_was_not_tested(
    make_client: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """It is refused with the range that works."""
    monkeypatch.setattr(openai, "__version__", version)
    with pytest.raises(ConfigurationError, match=r"openai: .* from 1\.55\.3 to below 4"):
        failover_openai(make_client())


def test_no_openai_package(make_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing, and how to get it."""
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigurationError, match=r"install the openai package \(>=1\.55\.3,<4\)"):
        failover_openai(make_client())


def test_many_threads(make_sdk: Any, upstreams: List[FakeUpstream]) -> None:
    """One object serves all threads, whole answers and streams alike, while an endpoint comes and goes."""
    sdk = make_sdk()
    upstreams[0].calls.script(*[Status(503), Ok(), Reset()] * 5)
    texts: List[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            if (number + turn) % 2:
                texts.append(text_of(sdk.chat.completions.create(**CHAT, stream=True)))
            else:
                texts.append(sdk.chat.completions.create(**CHAT).choices[0].message.content)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 30
    assert {text[: len("Hello from upstream-")] for text in texts} == {"Hello from upstream-"}
    assert counts(sdk) == (30, 30, 0)
