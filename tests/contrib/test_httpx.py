"""The transport for httpx and httpx2, with the libraries' own clients."""

import asyncio
import gc
import importlib
import subprocess
import sys
import threading
import time
from typing import Any, Iterator, List

import pytest
from fleet import endpoints_of

from syncfailover import (
    AllEndpointsFailed,
    ClientClosed,
    ConfigurationError,
    DeadlineExceeded,
    Endpoint,
    StreamDeadlineExceeded,
    StreamInterrupted,
    Timeouts,
)
from syncfailover.contrib.httpx import FailoverTransport, _timeouts
from syncfailover.testing import (
    ErrorBody,
    FakeUpstream,
    Hang,
    Html,
    Ok,
    Redirect,
    Reset,
    Status,
    Stream,
    StreamCut,
    StreamStall,
)

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**CHAT, "stream": True}
LIBRARIES = ["httpx", "httpx2"] if sys.version_info >= (3, 10) else ["httpx"]


@pytest.fixture(params=LIBRARIES)
def lib(request: Any) -> Any:
    """The library."""
    return importlib.import_module(request.param)


@pytest.fixture
def transport(make_client: Any) -> FailoverTransport:
    """A transport over a client of the three upstreams."""
    return FailoverTransport(make_client(max_retries=2))


@pytest.fixture
def http(lib: Any, transport: FailoverTransport) -> Iterator[Any]:
    """The library's own client over that transport, with the times of the failover client."""
    with lib.Client(transport=transport, base_url=transport.prefix, timeout=None) as http:
        yield http


def test_a_call_fails_over(lib: Any, http: Any, transport: Any, upstreams: List[FakeUpstream]) -> None:
    """A dead endpoint is stepped over, and what comes back is the library's own response."""
    upstreams[0].kill()
    response = http.post("/chat/completions", json=CHAT)
    assert type(response) is lib.Response
    assert response.is_success
    assert response.json()["choices"][0]["message"]["content"] == "Hello from upstream-2."
    assert response.headers["x-syncfailover-endpoint"] == "b"
    assert [attempt.endpoint for attempt in response.extensions["syncfailover"]] == ["a", "b"]
    assert (response.http_version, response.reason_phrase) == ("HTTP/1.1", "OK")
    assert response.elapsed.total_seconds() > 0
    assert transport.client.metrics()["failover_count"] == 1


def test_urls_stay_as_they_are(lib: Any, make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """A client that has its URLs already gives the transport their prefix; query and headers arrive."""
    prefix = "https://api.openai.com/v1"
    with lib.Client(mounts={prefix[:22]: FailoverTransport(make_client(), prefix)}, timeout=None) as http:
        http.get(f"{prefix}/models", params={"page": "2", "q": "a b"}, headers={"X-One": "1"})
        with pytest.raises(ConfigurationError, match=r"url: .* begins with https://api\.openai\.com/v1/"):
            http.get("https://api.openai.com/v2/models?key=sk-secret-q")
    (seen,) = upstreams[0].requests
    assert (seen.path.replace("+", "%20"), seen.header("x-one")) == ("/v1/models?page=2&q=a%20b", "1")
    assert seen.header("host") == upstreams[0].origin[len("http://") :]


def test_names_of_endpoints_fit_a_header(lib: Any, make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Whatever an endpoint is called, a header can say it."""
    client = make_client([Endpoint("größte: 100 %", upstreams[0].url)])
    with lib.Client(transport=FailoverTransport(client), base_url="http://syncfailover.invalid") as http:
        said = http.get("/models").headers["x-syncfailover-endpoint"]
    assert said == "gr%C3%B6%C3%9Fte:%20100%20%25"


def test_keys_stay_at_their_origin(lib: Any, make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """The caller's key and cookies go to no endpoint but one of the prefix's own origin that has no key itself."""
    headers = {"Authorization": "Bearer sk-callers", "OpenAI-Organization": "org-callers", "api-key": "sk-2"}
    home, other = upstreams[:2]
    client = make_client([Endpoint("home", home.url), Endpoint("other", other.url, priority=1)])
    home.script(Ok(headers={"Set-Cookie": "session=home"}), Status(503), Status(503))
    with lib.Client(transport=FailoverTransport(client, home.url), base_url=home.url, timeout=None) as http:
        for _ in range(2):
            response = http.post("/chat/completions", json=CHAT, headers=headers)
            assert "sk-callers" in str(response.request.headers.raw)
            assert not http.cookies
    assert home.requests[0].header("authorization") == "Bearer sk-callers"
    assert home.requests[0].header("openai-organization") is None
    assert not {"authorization", "api-key", "cookie"} & set(other.requests[0].headers)


@pytest.mark.parametrize("fault", [Status(404, body={"detail": "Not Found"}), Html(200)], ids=repr)
def test_a_missing_responses_api_is_left(http: Any, upstreams: List[FakeUpstream], fault: Any) -> None:
    """A provider that has no responses API is left for one that has it, whole or as a stream."""
    upstreams[0].calls.always(fault)
    for stream in (False, True, False):
        answer = http.post("responses", json={"model": "gpt-4.1", "input": "Hi", "stream": stream})
        assert answer.status_code == 200
        assert "output_text" in answer.text


@pytest.mark.parametrize("fault", [Status(500), Status(429)], ids=repr)
def test_the_last_http_error_comes_back(
    http: Any, lib: Any, upstreams: List[FakeUpstream], fault: Any
) -> None:
    """An HTTP error that no endpoint could cure is a response, so that `raise_for_status()` works as ever."""
    for upstream in upstreams:
        upstream.calls.always(fault)
    response = http.post("/chat/completions", json=CHAT)
    assert response.status_code == fault.code
    assert response.json()["error"]
    with pytest.raises(lib.HTTPStatusError):
        response.raise_for_status()


def test_an_error_with_a_good_status(http: Any, upstreams: List[FakeUpstream]) -> None:
    """It comes back with the status that it means."""
    for upstream in upstreams:
        upstream.calls.always(ErrorBody({"error": {"code": 429, "message": "slow down"}}))
    response = http.post("/chat/completions", json=CHAT)
    assert (response.status_code, response.reason_phrase) == (429, "Too Many Requests")
    assert response.json()["error"]["message"] == "slow down"


def test_no_response_is_the_librarys_error(http: Any, lib: Any, upstreams: List[FakeUpstream]) -> None:
    """What was never sent is a `ConnectError`, what may have been processed a `ReadError`, and ours is behind both."""
    for upstream in upstreams:
        upstream.calls.always(Reset())
    with pytest.raises(lib.ReadError) as caught:
        http.post("/chat/completions", json=CHAT)
    assert isinstance(caught.value.__cause__, AllEndpointsFailed)
    assert caught.value.request.url.path == "/chat/completions"
    for upstream in upstreams:
        upstream.kill()
    with pytest.raises(lib.ConnectError, match="connect refused"):
        http.get("/models", timeout=0.3)


def test_a_redirect_is_not_followed(lib: Any, make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Not by a client that follows them, either: it would take its headers past every endpoint."""
    transport = FailoverTransport(make_client(max_retries=1))
    for upstream in upstreams:
        upstream.calls.always(Redirect(upstreams[0].url + "/elsewhere", 307))
    http = lib.Client(transport=transport, base_url=transport.prefix, follow_redirects=True)
    with http, pytest.raises(lib.NetworkError, match="redirects elsewhere"):
        http.post("/chat/completions", json=CHAT)
    assert {seen.path for upstream in upstreams for seen in upstream.requests} == {"/v1/chat/completions"}


def test_a_timeout_bounds_the_call(lib: Any, http: Any, upstreams: List[FakeUpstream]) -> None:
    """All attempts together, and what is raised is the library's own."""
    for upstream in upstreams:
        upstream.calls.always(Hang())
    began = time.monotonic()
    with pytest.raises(lib.ReadTimeout) as caught:
        http.post("/chat/completions", json=CHAT, timeout=0.3)
    assert 0.2 < time.monotonic() - began < 1.0
    assert isinstance(caught.value.__cause__, DeadlineExceeded)


OURS = Timeouts(30.0, connect=3.0, stall=7.0)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        (None, OURS),
        ({}, OURS),
        ({"connect": None, "read": None, "write": None, "pool": None}, OURS),
        ({"connect": 9.0, "read": 9.0, "write": 9.0, "pool": 9.0}, OURS._replace(total=9.0)),
        ({"connect": 5.0, "read": 600.0, "write": 600.0, "pool": 600.0}, OURS._replace(total=600, connect=5)),
        ({"connect": 5.0, "read": None, "write": 1.0, "pool": 1.0}, OURS._replace(connect=5.0)),
        ({"connect": None, "read": 2.0, "write": 1.0, "pool": 1.0}, OURS._replace(total=2.0)),
    ],
)
def test_which_times_are_meant(asked: Any, meant: Timeouts) -> None:
    """Httpx has four times, each for one operation; `read` is taken for the total, `connect` for what it is."""
    assert _timeouts(OURS, asked) == meant


# Streams


def test_a_stream_comes_as_it_was_sent(http: Any, upstreams: List[FakeUpstream]) -> None:
    """Byte for byte, comments included, up to [DONE]; gzip is undone."""
    upstreams[0].calls.always(Stream(tokens=3, interval_s=0.03, comments_every_s=0.01))
    with http.stream("POST", "/chat/completions", json=STREAM) as response:
        text = "".join(response.iter_text())
    assert text.count("data: ") == 3 + 3
    assert "\n: " in text
    assert text.endswith("data: [DONE]\n\n")
    assert upstreams[0].requests[0].header("accept-encoding") == "identity"
    upstreams[1].calls.always(Stream(tokens=3, coding="gzip"))
    assert http.post("/chat/completions", json=STREAM).text.endswith("data: [DONE]\n\n")


def test_a_stream_is_guarded_before_its_first_token(http: Any, upstreams: List[FakeUpstream]) -> None:
    """What breaks by then is another endpoint's to answer."""
    upstreams[0].calls.always(StreamCut(after=0))
    response = http.post("/chat/completions", json=STREAM)
    assert response.headers["x-syncfailover-endpoint"] == "b"
    assert "data: [DONE]" in response.text


@pytest.mark.parametrize("how", ["reset", "close", "chunked", "content-length"])
def test_a_stream_that_breaks_later_raises(
    lib: Any, http: Any, upstreams: List[FakeUpstream], how: str
) -> None:
    """However it ends, an end that is none is a `ReadError`."""
    upstreams[0].calls.always(StreamCut(after=2, how=how))
    streaming = http.stream("POST", "/chat/completions", json=STREAM)
    with streaming as response, pytest.raises(lib.ReadError) as caught:
        response.read()
    assert isinstance(caught.value.__cause__, StreamInterrupted)


def test_a_stream_beyond_its_time(lib: Any, http: Any, upstreams: List[FakeUpstream]) -> None:
    """It is a `ReadTimeout`."""
    for upstream in upstreams:
        upstream.calls.always(Stream(tokens=1000, interval_s=0.01))
    streaming = http.stream("POST", "/chat/completions", json=STREAM, timeout=1.0)
    with streaming as response, pytest.raises(lib.ReadTimeout) as caught:
        response.read()
    assert isinstance(caught.value.__cause__, StreamDeadlineExceeded)


def test_a_forked_child_leaves_a_stream_alone(
    lib: Any, transport: Any, upstreams: List[FakeUpstream]
) -> None:
    """It reads nothing of its parent's stream, and says so."""
    request = lib.Request("POST", transport.prefix + "chat/completions", json=STREAM)
    response = transport.handle_request(request)
    upstreams[0].script(Ok())
    response.stream.after_fork()
    reading = iter(response.stream)
    next(reading)
    with pytest.raises(lib.ReadError, match="forked"):
        list(reading)
    response.stream._events.close()


def test_a_dropped_stream_is_freed(
    lib: Any, http: Any, transport: Any, upstreams: List[FakeUpstream]
) -> None:
    """Its connection at once, its place at the endpoint too, and nobody's failure is counted."""
    upstreams[0].calls.always(StreamStall(after=1))
    response = http.send(http.build_request("POST", "/chat/completions", json=STREAM), stream=True)
    next(response.iter_bytes())
    del response
    gc.collect()
    assert upstreams[0].wait_for(lambda: upstreams[0].in_flight == 0, timeout=1.0)
    assert transport.client.status()["a"].in_flight == 0
    assert transport.client.metrics()["failed_requests"] == 0


def test_leaving_the_loop_ends_a_stream(http: Any, upstreams: List[FakeUpstream]) -> None:
    """At once, without the collector: nothing of ours holds on to the generator that a loop lets go of."""
    upstreams[0].calls.always(StreamStall(after=1))
    response = http.send(http.build_request("POST", "/chat/completions", json=STREAM), stream=True)
    gc.disable()
    try:
        for _part in response.iter_bytes():
            break
        assert upstreams[0].wait_for(lambda: upstreams[0].in_flight == 0, timeout=1.0)
    finally:
        gc.enable()


def test_a_stream_closed_by_another_thread(lib: Any, http: Any, upstreams: List[FakeUpstream]) -> None:
    """Whoever reads it is told, at once."""
    upstreams[0].calls.always(StreamStall(after=1))
    response = http.send(http.build_request("POST", "/chat/completions", json=STREAM), stream=True)
    threading.Timer(0.1, response.close).start()
    began = time.monotonic()
    with pytest.raises(lib.ReadError, match="closed before its end") as caught:
        list(response.iter_bytes())
    assert time.monotonic() - began < 2.0
    assert isinstance(caught.value.__cause__, ClientClosed)


# What it is made of


def test_nothing_is_imported_before_it_is_used() -> None:
    """Neither library is loaded by the doors; a request brings its own."""
    code = (
        "import sys, syncfailover.contrib.httpx, syncfailover.contrib.openai;"
        "print({'httpx', 'httpx2', 'openai'} & {name for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"


def test_it_is_made_of_endpoints_or_a_client(
    lib: Any, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """It closes the client that it made, whichever way its own is closed, and no other."""
    transport = FailoverTransport(endpoints_of(upstreams), probe_when="never", timeout=5)
    with lib.Client(transport=transport, base_url=transport.prefix, timeout=None) as http:
        assert http.get("/models").is_success
    assert transport.client._caller.closed
    client = make_client()
    FailoverTransport(client).close()
    assert client.chat("Hi").text
    with pytest.raises(ConfigurationError, match="timeout: is not allowed; expected no options here"):
        FailoverTransport(client, timeout=5)
    assert "sk-secret" not in repr(FailoverTransport(client))


def test_any_request_of_the_library_will_do(lib: Any, transport: Any) -> None:
    """A kind of its own, too; but no other library's."""
    kind: Any = type("Request", (lib.Request,), {})
    assert transport.handle_request(kind("GET", transport.prefix + "models")).status_code == 200
    with pytest.raises(ConfigurationError, match=r"request: .* httpx or httpx2"):
        transport.handle_request(object())


def test_relative_urls_need_a_base(lib: Any, transport: FailoverTransport) -> None:
    """Without a prefix it serves relative URLs, of a client that has its made-up one for a base."""
    refused = pytest.raises(ConfigurationError, match=r"url: '/models' .* base_url=transport\.prefix")
    with lib.Client(transport=transport) as http, refused:
        http.get("/models")
    with lib.Client(transport=transport, base_url=transport.prefix) as http:
        assert http.get("/models").is_success


def test_an_asynchronous_client_is_refused(lib: Any, transport: FailoverTransport) -> None:
    """It is told that this transport is synchronous, however it is used."""

    async def use(how: str) -> None:
        http = lib.AsyncClient(transport=transport)
        if how == "with":
            async with http:
                pass
        await (http.aclose() if how == "close" else http.get("http://syncfailover.invalid/models"))

    for how in ("with", "get", "close"):
        with pytest.raises(ConfigurationError, match=r"synchronous only; give it to an httpx\.Client"):
            asyncio.run(use(how))
