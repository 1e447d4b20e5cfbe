"""What refuses to be pickled, unless the caller says `include_keys=True`."""

import copy
import functools
import pickle
from typing import Any, Callable

import pytest
import requests
from pickled_work import Vault, key
from pickles import MODEL_OPENAI, SECRET, block, made, refused

from syncfailover import (
    ConfigurationError,
    EndpointRegistry,
    FailoverClient,
    FailoverSession,
    pickling,
    settings,
)


def _partial() -> Callable[[], str]:
    return functools.partial(str, SECRET)


def _local() -> Callable[[], str]:
    def inner() -> str:
        return SECRET

    return inner


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"api_key": SECRET}, "api_key: a key that was passed as text"),
        ({"api_key": lambda: SECRET}, "api_key: a function that no module has by its name"),
        ({"api_key": _local()}, "api_key: a function that no module has by its name"),
        ({"api_key": _partial()}, "api_key: a partial that no module has by its name"),
        ({"api_key": Vault("v")}, "api_key: a Vault that no module has by its name"),
        ({"api_key": Vault("v").__call__}, "api_key: a method that no module has by its name"),
        ({"api_key": SECRET.strip}, "api_key: a builtin_function_or_method that no module has by its name"),
        ({"headers": {"Authorization": SECRET}}, "headers['Authorization']: "),
        ({"headers": {"X-Goog-Api-Key": SECRET}}, "headers['X-Goog-Api-Key']: "),
        ({"headers": {"X-Tenant": "Bearer x"}}, "headers['X-Tenant']: "),
        ({"headers": {"Cookie": "a=b"}}, "headers['Cookie']: "),
        ({"api_key": key, "headers": {"X-Tenant": SECRET}}, "headers['X-Tenant']: "),
        ({"params": {"code": SECRET}}, "params['code']: "),
        ({"params": {"X-Amz-Signature": SECRET}}, "params['X-Amz-Signature']: "),
        ({"proxies": {"https": f"http://user:{SECRET}@p:1"}}, "proxies['https']: a URL with a password"),
        ({"proxies": {"all": f"{SECRET}@p:1"}}, "proxies['all']: a URL with a password"),
    ],
)
def test_a_secret_without_a_source_refuses(fields: Any, where: str) -> None:
    """An endpoint, a registry, a client and a session refuse at once; the error names endpoint and field, and says what is allowed."""
    endpoint = made(**fields)
    client = FailoverClient([endpoint], model="m")
    session = requests.Session()
    client.registry.mount(session, MODEL_OPENAI)
    for thing in (
        endpoint,
        client.registry,
        client,
        client.chat,
        client.session,
        client.with_options(),
        session,
    ):
        error = refused(thing)
        assert str(error).startswith(f"endpoint 'a': {where}")
        assert "expected one that the other process can read for itself" in str(error)
        assert "include_keys=True" in str(error)
        assert error.field == where.partition(":")[0]


@pytest.mark.parametrize("include_keys", [False, True])
def test_a_connection_as_state_refuses(include_keys: bool) -> None:
    """An object, such as a client of the package redis, stays where it is, whatever travels; its URL may go."""
    with pytest.raises(TypeError, match=r"state: a Connection is not allowed .* expected its URL"):
        pickling.pack_options({"state": Connection()}, include_keys=include_keys)


class Connection:
    """Stands for one to a store."""


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (
            lambda session: session.headers.update({"X-Api-Key": SECRET}),
            "the session: headers['X-Api-Key']: ",
        ),
        (lambda session: setattr(session, "auth", ("user", SECRET)), "the session: auth: "),
        (lambda session: setattr(session, "params", {"token": SECRET}), "the session: params['token']: "),
        (lambda session: setattr(session, "params", [("token", SECRET)]), "the session: params['token']: "),
        (lambda session: setattr(session, "params", f"v=1&token={SECRET}"), "the session: params['token']: "),
        (
            lambda session: session.proxies.update(https=f"http://u:{SECRET}@p"),
            "the session: proxies['https']: ",
        ),
    ],
)
def test_a_secret_in_a_session_refuses(change: Any, where: str) -> None:
    """What was put into a session as text does not travel either."""
    session = FailoverSession([made()])
    change(session)
    assert str(refused(session)).startswith(where)
    assert copy.deepcopy(session).headers == session.headers


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"default_headers": {"X-Auth-Token": SECRET}}, "the client: default_headers['X-Auth-Token']: "),
        ({"default_query": {"sig": SECRET}}, "the client: default_query['sig']: "),
        (
            {"default_query": {"filter": {"api_key": SECRET}}},
            "the client: default_query['filter[api_key]']: ",
        ),
        ({"default_query": {"v": [SECRET, "1"]}}, "the client: default_query['v']: "),
        ({"default_query": {"token": ["1"]}}, "the client: default_query['token']: "),
    ],
)
def test_a_secret_in_a_child_refuses(options: Any, where: str) -> None:
    """What `with_options` adds is judged like the rest."""
    child = FailoverClient([made()], model="m").with_options(**options)
    assert str(refused(child)).startswith(where)
    assert str(refused(child.chat)).startswith(where)


def test_everything_travels_with_include_keys() -> None:
    """If the caller says so: keys, headers, parameters, proxies and extras, and they go on from there."""
    endpoint = made(
        api_key=SECRET,
        headers={"X-Api-Key": SECRET},
        params={"key": SECRET},
        proxies={"https": f"http://user:{SECRET}@p:1"},
    )
    client = FailoverClient([endpoint, made(name="b", api_key=key)], include_keys=True)
    child = client.with_options(default_headers={"X-Auth-Token": "t-123456"})
    twin = child
    for _ in range(2):
        twin = pickle.loads(pickle.dumps(twin))  # noqa: S301 - our own
        assert twin.registry["a"].keywords() == endpoint.keywords()
        assert twin.registry["b"].key() == "key-of-a-function"
        assert twin._caller.extras.secrets == child._caller.extras.secrets


def test_with_include_keys_no_source_is_asked(monkeypatch: Any) -> None:
    """The keys that are there are the ones that travel."""
    monkeypatch.setenv("PICKLED", SECRET)
    found = settings.from_mapping({"endpoints": [block("http://h", api_key="${PICKLED}")]})
    pickled = pickle.dumps(EndpointRegistry(found.endpoints, include_keys=True))
    monkeypatch.delenv("PICKLED")
    assert pickle.loads(pickled)["a"].key() == SECRET  # noqa: S301 - our own


@pytest.mark.parametrize("value", ["yes", 1, None, SECRET])
def test_include_keys_is_true_or_false(value: Any) -> None:
    """Anything else is refused, and not shown: it may be a key."""
    for make in (FailoverClient, FailoverSession, EndpointRegistry):
        with pytest.raises(
            ConfigurationError, match=r"include_keys: a \w+ is not allowed; expected True or False"
        ):
            make([made()], include_keys=value)
