"""`extra_headers`, `extra_query` and `extra_body`: what a caller adds to a call, and what must not be added."""

import logging
import pickle
import traceback
from typing import Any, Callable, Dict, List

import pytest
from fleet import endpoints_of

from syncfailover import ConfigurationError, FailoverClient, FailoverError
from syncfailover.testing import FakeUpstream, SeenRequest, Status

MESSAGES = [{"role": "user", "content": "Hi"}]
#: Every call that takes them.
CALLS: Dict[str, Callable[..., Any]] = {
    "chat": lambda client, **extras: client.chat("Hi", **extras),
    "chat.completions.create": lambda client, **extras: client.chat.completions.create(
        messages=MESSAGES, **extras
    ),
    "a stream": lambda client, **extras: client.chat("Hi", stream=True, **extras).collect(),
    "completions.create": lambda client, **extras: client.completions.create(prompt="Hi", **extras),
    "responses.create": lambda client, **extras: client.responses.create(input="Hi", **extras),
    "embeddings.create": lambda client, **extras: client.embeddings.create(input="Hi", **extras),
    "models.list": lambda client, **extras: client.models.list(**extras),
}


class Omit:
    """Stands for the openai package's own."""

    def __bool__(self) -> bool:
        """As there."""
        return False


@pytest.fixture
def client(upstreams: List[FakeUpstream], make_client: Any) -> FailoverClient:
    """A client of one endpoint that has a header and a query parameter of its own."""
    own = {"headers": {"X-Tenant": "the endpoint's"}, "params": {"api-version": "1"}}
    return make_client([endpoints_of(upstreams)[0].replace(**own)])


@pytest.fixture
def last(upstreams: List[FakeUpstream]) -> Callable[[], SeenRequest]:
    """A function that returns the last request that the endpoint saw."""
    return lambda: upstreams[0].requests[-1]


@pytest.mark.parametrize("name", CALLS)
def test_every_call_takes_headers_and_query(name: str, client: FailoverClient, last: Any) -> None:
    """They are sent with the call; what the endpoint has of its own wins, whatever the letters' case."""
    CALLS[name](
        client,
        extra_headers={"X-Trace": "t-1", "x-tenant": "the caller's", "user-agent": "mine"},
        extra_query={"a": "b c", "api-version": "2"},
    )
    sent = last()
    assert sent.header("x-trace") == "t-1"
    assert sent.header("x-tenant") == "the endpoint's"
    assert sent.header("user-agent") == "mine"
    assert sent.header("authorization") == "Bearer sk-secret-a"
    assert sent.path.partition("?")[2] == "api-version=1&a=b+c"
    CALLS[name](client)
    assert (last().header("x-trace"), last().path.partition("?")[2]) == (None, "api-version=1")


@pytest.mark.parametrize("name", [name for name in CALLS if name != "models.list"])
def test_every_payload_takes_a_body(name: str, client: FailoverClient, last: Any) -> None:
    """Its fields are merged at the top, and win over the call's own."""
    CALLS[name](client, user="a", extra_body={"top_k": 5, "user": "b"})
    assert (last().json()["top_k"], last().json()["user"]) == (5, "b")


def test_the_query_is_written_as_the_sdk_writes_it(client: FailoverClient, last: Any) -> None:
    """Truth values in small letters, lists by repetition, mappings with brackets; null is left out."""
    query = {"t": True, "n": 1.5, "l": [1, "x", None], "m": {"a": {"b": False}}, "z": None, "e": "&=\u00e9"}
    client.models.list(extra_query=query)
    assert (
        last().path.partition("?")[2]
        == "api-version=1&t=true&n=1.5&l=1&l=x&m%5Ba%5D%5Bb%5D=false&e=%26%3D%C3%A9"
    )


def test_extras_go_to_every_endpoint_that_is_asked(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """A second attempt carries them, too, with its own endpoint's key."""
    upstreams[0].calls.script(Status(503))
    make_client().chat("Hi", extra_headers={"X-Trace": "t-1"}, extra_query={"q": 1}, extra_body={"top_k": 5})
    for upstream, key in zip(upstreams[:2], "ab"):
        sent = upstream.calls.requests[0]
        assert (sent.header("x-trace"), sent.path.partition("?")[2], sent.json()["top_k"]) == (
            "t-1",
            "q=1",
            5,
        )
        assert sent.header("authorization") == f"Bearer sk-secret-{key}"


def test_nothing_given_is_nothing_added(client: FailoverClient, last: Any) -> None:
    """None, empty mappings, and the openai package's word for "not given" add nothing."""
    for nothing in (None, {}, Omit()):
        client.chat("Hi", extra_headers=nothing, extra_query=nothing, extra_body=nothing)
    client.chat(
        "Hi", extra_headers={"X-A": None, "X-B": Omit()}, extra_query={"a": Omit()}, temperature=Omit()
    )
    assert (last().header("x-a"), last().header("x-b"), last().path) == (
        None,
        None,
        "/v1/chat/completions?api-version=1",
    )
    assert last().json() == {"model": "gpt-4.1", "messages": MESSAGES}


REFUSED = [
    ({"extra_headers": {name: "x"}}, rf"extra_headers\['{name}'\]: a header that carries a key .*Endpoint")
    for name in ("Authorization", "proxy-authorization", "Cookie", "API-Key", "x-api-key", "x-goog-api-key")
]
REFUSED += [
    ({"extra_headers": {name: "x"}}, rf"extra_headers\['{name}'\]: a header that frames the message")
    for name in ("Host", "content-length", "Transfer-Encoding", "Connection", "Content-Type")
]
REFUSED += [
    ({"extra_headers": {name: "x"}}, rf"extra_headers\['{name}'\]: a header that belongs to the connection")
    for name in ("Accept-Encoding", "TE", "upgrade", "Expect", "Content-Encoding")
]
REFUSED += [
    ({"extra_headers": {"X-A": "shh-0\r\nX-B: 1"}}, r"extra_headers\['X-A'\]: a value with a line break"),
    ({"extra_headers": {"X-A": "shh-\u20ac"}}, r"extra_headers\['X-A'\]: .*beyond latin-1"),
    ({"extra_headers": {"X-A": 5}}, r"extra_headers\['X-A'\]: a int is not allowed"),
    ({"extra_headers": {"X-A": b"shh-0"}}, r"extra_headers\['X-A'\]: a bytes is not allowed"),
    ({"extra_headers": {"X A": "shh-0"}}, r"extra_headers\['X A'\]: the name is not allowed"),
    ({"extra_headers": {"X-A": "1", "x-a": "2"}}, r"extra_headers\['x-a'\]: .*given twice"),
    ({"extra_headers": {5: "x"}}, r"extra_headers: the name 5 is not allowed"),
    ({"extra_headers": ["X-A"]}, r"extra_headers: a list is not allowed; expected a mapping"),
    ({"extra_query": "a=b"}, r"extra_query: a str is not allowed; expected a mapping"),
    pytest.param(
        {"extra_query": {"a": object()}}, r"extra_query\['a'\]: a object is not allowed", id="an object"
    ),
    ({"extra_query": {"a": [b"shh-0"]}}, r"extra_query\['a'\]: a bytes is not allowed"),
    ({"extra_query": {"a": "\udc00"}}, r"extra_query\['a'\]: a lone surrogate"),
    ({"extra_body": {"model": "x"}}, r"extra_body\['model'\]: 'x' .*given as model="),
    ({"extra_body": {"stream": True}}, r"extra_body\['stream'\]: True .*given as stream="),
    ({"extra_body": [1]}, r"extra_body: \[1\] is not allowed; expected a mapping"),
    ({"extra_body": {1: 2}}, r"extra_body: .*names of fields"),
    ({"extra_body": {"top_k": {1, 2}}}, r"top_k: {1, 2}"),
    ({"stream": "yes"}, r"stream: 'yes' .*True or False"),
    ({"stream": True, "wire_stream": True}, r"wire_stream: True"),
]


@pytest.mark.parametrize(("extras", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_must_not_be_added_is_named(
    extras: Any, message: str, client: FailoverClient, upstreams: List[FakeUpstream]
) -> None:
    """The error names the field and what is allowed, shows no header's value, and nothing is sent."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        client.chat("Hi", **extras)
    assert "shh-" not in f"{caught.value} {caught.value.__dict__}"
    assert upstreams[0].requests == []


def test_extras_are_hidden_where_an_endpoint_echoes_them(
    client: FailoverClient, upstreams: List[FakeUpstream], caplog: Any
) -> None:
    """A value may be a secret of the caller's: no error, event, log line or pickle shows it."""
    caplog.set_level(logging.DEBUG)
    secrets = ("header-secret-0123", "query-secret-0123", "word-secret-0123")
    upstreams[0].always(Status(400, body={"error": {"message": " ".join(secrets), "code": secrets[2]}}))
    heard: List[Any] = []
    client.on("attempt", heard.append)
    headers = {"X-Caller": "header-secret-0123", "X-Words": "Token word-secret-0123"}
    query = {"token": [secrets[1]]}
    with pytest.raises(FailoverError) as caught:
        client.chat("Hi", extra_headers=headers, extra_query=query)
    error = caught.value
    told = [str(error), repr(error.__dict__), pickle.dumps(error), *heard, *error.attempts, error.code]
    told += traceback.format_exception(type(error), error, error.__traceback__)
    told += [record.getMessage() for record in caplog.records]
    told += [error.request.url, dict(error.request.headers), error.response.url]
    shown = "\n".join(map(str, told))
    assert [secret for secret in secrets if secret in shown] == []


def test_a_call_without_extras_makes_none(client: FailoverClient) -> None:
    """The way that nearly every call goes has nothing to check and nothing to merge."""
    assert client._caller.extras_with(None, None) is None
