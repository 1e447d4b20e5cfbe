"""The drop-in session and the adapter that gives failover to an existing one."""

import io
from typing import Any, Iterator, List

import pytest
import requests
import responses
from fleet import endpoints_of

from syncfailover import (
    AllEndpointsFailed,
    ConfigurationError,
    Endpoint,
    EndpointRegistry,
    FailoverError,
    FailoverSession,
    InvalidReply,
    RateLimited,
)
from syncfailover.testing import (
    CloseAfter,
    ErrorBody,
    FakeUpstream,
    Hang,
    Html,
    Ok,
    Raw,
    Redirect,
    Reset,
    Status,
    Truncate,
)

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def session(upstreams: List[FakeUpstream]) -> Iterator[FailoverSession]:
    """A session over three upstreams."""
    with FailoverSession(endpoints_of(upstreams), probe_when="never", timeout=5) as session:
        yield session


def test_a_relative_url_fails_over(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """A dead endpoint is stepped over, and what comes back is a plain response."""
    upstreams[0].kill()
    response = session.post("/chat/completions", json=CHAT)
    assert isinstance(response, requests.Response)
    assert response.ok
    assert response.json()["choices"][0]["message"]["content"] == "Hello from upstream-2."
    assert response.url == upstreams[1].url + "/chat/completions"
    assert response.elapsed.total_seconds() > 0
    assert response.encoding
    assert session.metrics()["failover_count"] == 1


@pytest.mark.parametrize("fault", [Status(404, body={"detail": "Not Found"}), Html(200)], ids=repr)
def test_a_missing_responses_api_is_left(
    session: FailoverSession, upstreams: List[FakeUpstream], fault: Any
) -> None:
    """A provider that has no responses API is left for one that has it."""
    upstreams[0].calls.always(fault)
    for _ in range(3):
        assert session.post("/responses", json={"model": "gpt-4.1", "input": "Hi"}).json()["output"]


def test_params_and_headers_are_kept(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """What the caller says with requests' own keywords arrives."""
    session.headers["X-Team"] = "blue"
    session.get("models", params={"page": "2", "q": "a b"}, headers={"X-One": "1"})
    seen = upstreams[0].requests[0]
    assert seen.path == "/v1/models?page=2&q=a+b"
    assert (seen.header("x-team"), seen.header("x-one")) == ("blue", "1")


def test_an_absolute_url_is_plain(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """An absolute URL is not failed over and carries no endpoint's key, even to an endpoint's own host."""
    upstreams[0].calls.always(Status(503))
    assert session.post(upstreams[0].url + "/chat/completions", json=CHAT).status_code == 503
    assert upstreams[0].requests[0].header("authorization") is None
    assert session.metrics()["total_requests"] == 0


def test_the_last_http_error_comes_back(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """An HTTP error that no endpoint could cure is a response, so that `raise_for_status()` works as ever."""
    for upstream in upstreams:
        upstream.calls.always(Status(500, body={"error": {"message": "broken"}}))
    response = session.post("/chat/completions", json=CHAT)
    assert response.status_code == 500
    with pytest.raises(requests.HTTPError):
        response.raise_for_status()


def test_no_response_raises_what_requests_would(
    session: FailoverSession, upstreams: List[FakeUpstream]
) -> None:
    """Legacy code that catches `requests.ConnectionError` goes on working; there is no time for a second round."""
    for upstream in upstreams:
        upstream.kill()
    with pytest.raises(requests.ConnectionError) as caught:
        session.post("/chat/completions", json=CHAT, timeout=0.35)
    assert isinstance(caught.value, AllEndpointsFailed)


def test_a_timeout_bounds_the_whole_call(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """`timeout=0.5` ends after half a second even if all endpoints are silent; a pair means (connect, read)."""
    for upstream in upstreams:
        upstream.calls.always(Hang())
    with pytest.raises((requests.Timeout, requests.ConnectionError)) as caught:
        session.post("/chat/completions", json=CHAT, timeout=0.5)
    assert sum(attempt.latency_ms for attempt in caught.value.attempts) < 900
    with pytest.raises(requests.ConnectionError) as caught:
        session.post("/chat/completions", json=CHAT, timeout=(0.1, 0.2))
    assert all(attempt.latency_ms < 400 for attempt in caught.value.attempts)


def test_a_200_with_an_error_is_no_answer(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """An error body with status 200 fails over, and is raised where everybody answers so."""
    upstreams[0].calls.always(ErrorBody())
    assert session.post("/chat/completions", json=CHAT).url.startswith(upstreams[1].url)
    body = {"error": {"code": 429, "message": "slow down"}}
    for upstream in upstreams:
        upstream.calls.always(ErrorBody(body))
    with pytest.raises(RateLimited, match="slow down"):
        session.post("/chat/completions", json=CHAT, timeout=0.3)
    assert InvalidReply is not RateLimited


def test_a_file_is_rewound(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """A body that can seek is sent again from where it began."""
    upstreams[0].calls.always(Reset())
    body = b'{"model": "gpt-4.1", "messages": []' + b" " * 200_000 + b"}"
    file = io.BytesIO(b"xx" + body)
    file.seek(2)
    assert session.post("/chat/completions", data=file).ok
    assert upstreams[1].calls.requests[0].body == body


def test_a_consumed_generator_is_never_sent_twice(
    session: FailoverSession, upstreams: List[FakeUpstream]
) -> None:
    """A generator that was read is gone: the error says what to do, and no other endpoint sees half of it."""
    upstreams[0].calls.always(Status(503))
    with pytest.raises(AllEndpointsFailed, match="cannot be sent again: pass bytes or a file") as caught:
        session.post("/chat/completions", data=iter([b"one", b"two"]))
    assert len(caught.value.attempts) == 1
    assert [len(upstream.calls.requests) for upstream in upstreams] == [1, 0, 0]


def test_an_untouched_generator_goes_elsewhere(
    session: FailoverSession, upstreams: List[FakeUpstream]
) -> None:
    """Where the connection was refused nothing was read, so the next endpoint gets the whole body."""
    upstreams[0].kill()
    assert session.post("/chat/completions", data=iter([b'{"model": ', b'"m"}'])).ok
    assert upstreams[1].calls.requests[0].json() == {"model": "m"}


def test_a_stream_passes_through_untouched(session: FailoverSession, upstreams: List[FakeUpstream]) -> None:
    """With `stream=True` the body is the caller's to read; refusals before it still fail over."""
    upstreams[0].calls.always(Status(503))
    with session.post("/chat/completions", json=CHAT, stream=True) as response:
        assert b"".join(response.iter_content(7)).startswith(b"{")
    assert response.url.startswith(upstreams[1].url)


def test_models_are_mapped_in_a_session_too(upstreams: List[FakeUpstream]) -> None:
    """A JSON body names the model as each endpoint knows it; a model that nobody serves is named at once."""
    first, second = endpoints_of(upstreams[:2])
    mapped = [first.replace(models={"gpt-4.1": "one"}), second.replace(models={"gpt-4.1": "two"})]
    with FailoverSession(mapped, probe_when="never") as session:
        upstreams[0].calls.always(Status(500))
        assert session.post("/chat/completions", json=CHAT).ok
        assert [up.calls.requests[0].json()["model"] for up in upstreams[:2]] == ["one", "two"]
        with pytest.raises(ConfigurationError, match="model: 'gpt-9'"):
            session.post("/chat/completions", json={**CHAT, "model": "gpt-9"})


def test_a_mounted_prefix_keeps_its_urls(upstreams: List[FakeUpstream]) -> None:
    """An existing session gets failover under a prefix and stays as it was elsewhere."""
    session = requests.Session()
    registry = EndpointRegistry(endpoints_of(upstreams[:2]))
    registry.mount(session, "https://api.openai.com/v1")
    upstreams[0].kill()
    response = session.post("https://api.openai.com/v1/chat/completions?api-version=1", json=CHAT)
    assert response.ok
    assert upstreams[1].calls.requests[0].path == "/v1/chat/completions?api-version=1"
    assert session.get(upstreams[2].origin + "/health").ok
    session.close()


def test_a_stale_connection_is_mended_once(upstreams: List[FakeUpstream]) -> None:
    """A pooled connection that the server closed costs one more connection, not an attempt."""
    with FailoverSession(endpoints_of(upstreams[:1]), probe_when="never", max_retries=0) as session:
        upstreams[0].calls.script(CloseAfter())
        assert session.post("/chat/completions", json=CHAT).ok
        assert session.post("/chat/completions", json=CHAT).ok
        assert upstreams[0].connections == 2
        upstreams[0].calls.script(Ok(), Reset(), Reset())
        assert session.post("/chat/completions", json=CHAT).ok
        with pytest.raises(AllEndpointsFailed):
            session.post("/chat/completions", json=CHAT)
        assert len(upstreams[0].calls.requests) == 5


def test_a_reply_that_began_is_not_asked_for_twice_at_the_same_place(upstreams: List[FakeUpstream]) -> None:
    """Once a byte of the reply arrived the inner retry is off: what broke is a reply, not an idle connection."""
    with FailoverSession(endpoints_of(upstreams[:1]), probe_when="never", max_retries=0) as session:
        upstreams[0].calls.script(Ok(), Raw(b"HTTP/1.1 200 OK\r\nContent-Le", close=True), Truncate())
        assert session.post("/chat/completions", json=CHAT).ok
        for _ in range(2):
            with pytest.raises(FailoverError):
                session.post("/chat/completions", json=CHAT)
        assert len(upstreams[0].calls.requests) == 3


def test_keys_and_cookies_stay_where_they_belong(upstreams: List[FakeUpstream]) -> None:
    """The caller's credentials reach no endpoint of another origin, and one endpoint's cookie no other."""
    session = requests.Session()
    session.auth = ("user", "callers-password")
    session.cookies.set("sid", "callers-cookie")
    session.headers["api-key"] = "callers-key"
    EndpointRegistry(endpoints_of(upstreams[:2])).mount(session, "https://api.openai.com/v1")
    upstreams[0].calls.always(Ok(headers={"Set-Cookie": "from=a; Path=/"}))
    for _ in range(4):
        response = session.post("https://api.openai.com/v1/chat/completions", json=CHAT)
    assert response.ok
    assert [cookie.name for cookie in session.cookies] == ["sid"]
    for name, upstream in zip("ab", upstreams):
        for request in upstream.requests:
            assert request.header("authorization") == f"Bearer sk-secret-{name}"
            assert request.header("cookie") is None
            assert request.header("api-key") is None
    session.close()


def test_the_callers_key_goes_to_its_own_origin(upstreams: List[FakeUpstream]) -> None:
    """An endpoint without a key, of the very origin that the URL names, is sent what the caller set for it."""
    session = requests.Session()
    session.headers["Authorization"] = "Bearer callers-key"
    own, other = (Endpoint(name, up.url) for name, up in zip("ab", upstreams))
    EndpointRegistry([own, other]).mount(session, upstreams[0].url)
    for _ in range(2):
        assert session.post(upstreams[0].url + "/chat/completions", json=CHAT).ok
    assert upstreams[0].requests[0].header("authorization") == "Bearer callers-key"
    assert upstreams[1].requests[0].header("authorization") is None
    session.close()


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_takes_nothing_to_another_host(code: int, upstreams: List[FakeUpstream]) -> None:
    """A redirect to another origin is not followed: neither the key nor the prompt goes there."""
    with FailoverSession(endpoints_of(upstreams[:2]), probe_when="never") as session:
        upstreams[0].calls.always(Redirect(upstreams[2].url + "/chat/completions", code))
        assert session.post("/chat/completions", json=CHAT).url.startswith(upstreams[1].url)
        upstreams[0].calls.always(Redirect(upstreams[2].url + "/files", code))
        assert session.get("/files").status_code == 404
    assert upstreams[2].requests == []


@responses.activate
def test_the_responses_library_mocks_through_it() -> None:
    """Tests that mock with `responses` see each endpoint's URL and key, and failover between the mocks."""
    responses.post("http://one.test/v1/chat/completions", json={"error": {"message": "down"}}, status=503)
    responses.post("http://two.test/v1/chat/completions", json={"choices": [{"message": {"content": "Hi"}}]})
    endpoints = [Endpoint("one", "http://one.test/v1", "k1"), Endpoint("two", "http://two.test/v1", "k2")]
    with FailoverSession(endpoints, probe_when="never") as session:
        assert session.post("/chat/completions", json=CHAT).json()["choices"]
    assert [call.request.url for call in responses.calls] == [
        "http://one.test/v1/chat/completions",
        "http://two.test/v1/chat/completions",
    ]
    assert [call.request.headers["Authorization"] for call in responses.calls] == ["Bearer k1", "Bearer k2"]


@responses.activate
def test_the_responses_library_can_raise_through_it() -> None:
    """An exception that a mock raises is a fault like any other."""
    responses.post("http://one.test/v1/chat/completions", body=requests.ConnectTimeout("mocked"))
    responses.post("http://two.test/v1/chat/completions", json={"choices": [{"message": {"content": "Hi"}}]})
    endpoints = [Endpoint("one", "http://one.test/v1"), Endpoint("two", "http://two.test/v1")]
    with FailoverSession(endpoints, probe_when="never") as session:
        assert session.post("/chat/completions", json=CHAT).ok


@pytest.mark.parametrize("url", ["//evil.test/x", "//x"])
def test_a_url_without_a_scheme_but_with_a_host_is_refused(url: str, session: FailoverSession) -> None:
    """A protocol-relative URL could go to either door, so it goes to none."""
    with pytest.raises(ConfigurationError, match="url: '//"):
        session.get(url)


def test_hooks_and_history_work(session: FailoverSession) -> None:
    """Response hooks are called once, with the final response."""
    seen: List[Any] = []
    session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
    session.post("/chat/completions", json=CHAT)
    assert seen == [200]
