"""The hunt for keys: in logs, reprs, exceptions, metrics, events, pickles and pages."""

import logging
import pickle
import traceback
from typing import Any, List

import pytest
from fleet import endpoints_of

from syncfailover import ConfigurationError, FailoverClient, FailoverError, QueueTimeout
from syncfailover.cli import main
from syncfailover.testing import ErrorBody, FakeUpstream, Hang, Html, Raw, Redirect, Reset, Status, Truncate

KEY = "sk-secret-"
HIDDEN = (KEY, "header-secret-0123", "param-secret-0123")


def clean(*things: Any) -> None:
    """Fail if a secret stands in any of the things as anybody would print them."""
    for thing in things:
        for text in (str(thing), repr(thing), repr(getattr(thing, "__dict__", ""))):
            for secret in HIDDEN:
                assert secret not in text


ECHO = {
    "error": {"message": "Incorrect API key provided: sk-secret-a, header-secret-0123", "code": "sk-secret-a"}
}

FAULTS = [
    Status(401, body=ECHO),
    Status(400, body=ECHO),
    Status(404, body=ECHO),
    Status(500, body=ECHO),
    Status(429, body=ECHO),
    ErrorBody(ECHO),
    Html(),
    Hang(),
    Reset(),
    Truncate(),
    Raw(b"no http at all"),
    Redirect("http://127.0.0.1:1/"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_no_fault_brings_a_key_to_light(
    fault: Any, upstreams: List[FakeUpstream], make_client: Any, caplog: Any
) -> None:
    """Even a server that echoes the key does not get it into an error, an event, a log line, a metric or a pickle."""
    caplog.set_level(logging.DEBUG)
    upstreams[0].always(fault)
    endpoint = endpoints_of(upstreams[:1])[0].replace(
        headers={"X-Tenant-Token": "header-secret-0123"},
        params={"key": "param-secret-0123"},
    )
    client = make_client([endpoint], timeout=0.4, failure_threshold=1, probe_timeout=0.2)
    heard: List[Any] = []
    for event in ("attempt", "breaker_opened", "health_changed", "all_down"):
        client.on(event, heard.append)
    for _ in range(2):
        with pytest.raises(FailoverError) as caught:
            client.chat("Hi")
    error = caught.value
    client.wait_until_ready(0.1)
    clean(
        error,
        *error.attempts,
        client,
        client.registry,
        client._monitor,
        client.status(),
        client.metrics(),
        endpoint,
    )
    clean("".join(traceback.format_exception(type(error), error, error.__traceback__)), error.__context__)
    clean(pickle.dumps(error), *heard)
    clean(*(record.getMessage() for record in caplog.records if record.name.startswith("syncfailover")))
    if error.response is not None:
        clean(error.request.headers, error.response.request.url, error.response.url)


def test_a_pickled_error_leaves_request_and_headers_behind(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """What travels is message, data and status; the response's request, headers and body stay."""
    upstreams[0].calls.always(Status(400, body=ECHO, headers={"X-Echo": "sk-secret-a"}))
    with pytest.raises(FailoverError) as caught:
        make_client(endpoints_of(upstreams[:1])).chat("Hi")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert (str(copy), copy.status, copy.attempts) == (str(caught.value), 400, caught.value.attempts)
    assert copy.response.status_code == 400
    assert (copy.response.request, dict(copy.response.headers)) == (None, {})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"api_key": lambda: "sk-secret-a"},
        {"api_key": None, "headers": {"X-Tenant-Token": "header-secret-0123"}},
        {"api_key": None, "params": {"key": "param-secret-0123"}},
        {"api_key": None, "proxies": {"https": "http://user:param-secret-0123@proxy:3128"}},
    ],
)
def test_no_secret_without_a_source_is_pickled(fields: Any, upstreams: List[FakeUpstream]) -> None:
    """A secret crosses no process boundary unasked, and the error that says so shows none."""
    endpoint = endpoints_of(upstreams)[0].replace(**fields)
    for thing in (endpoint, FailoverClient([endpoint], model="m"), FailoverClient([endpoint]).registry):
        with pytest.raises(TypeError, match="endpoint 'a': ") as caught:
            pickle.dumps(thing)
        clean(caught.value, pickle.dumps(caught.value))


@pytest.mark.parametrize("key", ["", "sk-secret-\nx", " sk-secret- ", "sk-secret-\u00e9", 7])
def test_a_bad_key_is_refused_without_being_shown(key: Any, upstreams: List[FakeUpstream]) -> None:
    """The error names the field and what is wrong, never the key."""
    with pytest.raises(FailoverError, match="api_key: ") as caught:
        endpoints_of(upstreams)[0].replace(api_key=key)
    clean(caught.value)


def test_a_bad_rotated_key_is_refused_without_being_shown(upstreams: List[FakeUpstream]) -> None:
    """A callable that returns an unusable key fails that attempt, not the caller's secrets."""
    endpoint = endpoints_of(upstreams)[0].replace(api_key=lambda: "sk-secret-\r\nX-Evil: 1")
    with FailoverClient([endpoint], model="m", probe_when="never", max_retries=0) as client:
        with pytest.raises(FailoverError) as caught:
            client.chat("Hi")
        clean(caught.value)
    assert upstreams[0].requests == []


def test_what_waits_and_what_races_shows_no_key(
    upstreams: List[FakeUpstream], make_client: Any, caplog: Any
) -> None:
    """The queue, hedges, the budget and conversations bring no key to light, whatever an endpoint echoes."""
    caplog.set_level(logging.DEBUG)
    for name, upstream in zip("abc", upstreams):
        upstream.always(Status(503, body={"error": {"message": f"busy, sk-secret-{name}"}}))
    client = make_client(queue_timeout=0.3, hedge_after=5.0, budget_usd=1.0, failure_threshold=1)
    heard: List[Any] = []
    for event in ("attempt", "failover", "breaker_opened", "all_down"):
        client.on(event, heard.append)
    with pytest.raises(QueueTimeout) as caught:
        client.chat("Hi", affinity="user-42")
    error = caught.value
    terms = client._caller.terms
    clean(error, *error.attempts, *heard, client.metrics(), terms, terms.hedging, client.registry.snapshot())
    clean("".join(traceback.format_exception(type(error), error, error.__traceback__)), pickle.dumps(error))
    clean(*(record.getMessage() for record in caplog.records if record.name.startswith("syncfailover")))


@pytest.mark.parametrize(
    "text",
    [
        "[[endpoints]]\nprovider = 'openai'\napi_key = 'sk-secret-\u00e9'",
        "[[endpoints]]\nname = 'a'\nbase_url = 'sk-secret-a'",
        "[[endpoints]]\nname = 'a'\nbase_url = 'http://h/v1'\napi_key = ['sk-secret-a']",
        "[[endpoints]]\nname = 'a'\nbase_url = 'http://h/v1'\nheaders = { X-Token = 7, Y = 'header-secret-0123' }",
        "[[endpoints]]\nprovider = '${A_KEY}'\napi_key = 'sk-secret-a'",
        "[[endpoints]]\nname = 'a'\nbase_url = '${A_KEY}'",
        "timeout = '${A_KEY}'\n[[endpoints]]\nprovider = 'openai'\napi_key = 'x'",
        "api_key = 'sk-secret-a'\n[[endpoints]\n",
    ],
)
def test_no_settings_file_shows_a_key(text: str, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    """Whatever is wrong with a file, neither the error nor the command line shows a key of it."""
    monkeypatch.setenv("A_KEY", "sk-secret-a")
    path = tmp_path / "llm.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        FailoverClient.from_file(path)
    error = caught.value
    clean(error, "".join(traceback.format_exception(type(error), error, error.__traceback__)))
    clean(error.__context__, error.__cause__, pickle.dumps(error))
    for command in (["chat", "Hi"], ["check"], ["watch", "--once"]):
        assert main([*command, "--config", str(path)]) == 2
    clean(*capsys.readouterr())


def test_no_command_shows_a_key(
    upstreams: List[FakeUpstream], tmp_path: Any, monkeypatch: Any, capsys: Any
) -> None:
    """`chat -v`, `check` and `watch` print what happened, also where an endpoint echoes the key it was sent."""
    monkeypatch.setenv("A_KEY", "sk-secret-a")
    upstreams[0].always(Status(401, body={"error": {"message": "Incorrect API key: sk-secret-a"}}))
    path = tmp_path / "llm.toml"
    path.write_text(
        f"model = 'm'\n[[endpoints]]\nname = 'a'\nbase_url = '{upstreams[0].url}'\napi_key = '${{A_KEY}}'\n",
        encoding="utf-8",
    )
    assert main(["chat", "Hi", "-v", "--config", str(path)]) == 1
    assert main(["check", "--json", "--config", str(path)]) == 1
    main(["watch", "--once", "--config", str(path)])
    out = capsys.readouterr()
    assert "401" in out.err
    clean(*out)
