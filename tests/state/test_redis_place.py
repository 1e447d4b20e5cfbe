"""What a URL or a client of the package redis may be: read when the client is made, nothing opened, nothing secret shown."""

import subprocess
import sys
from importlib.util import find_spec
from typing import Any, Dict

import pytest
import redis
import redis.asyncio
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.sentinel import Sentinel

from syncfailover import ConfigurationError, Endpoint, FailoverClient
from syncfailover.state.address import store_of

OURS = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}


def made_of(state: Any) -> Any:
    """Return what a store's connections are made of: their kind, and with what."""
    link: Any = store_of(state)._link  # type: ignore[attr-defined]
    options = {name: value for name, value in link._options.items() if name != "protocol"}
    link._kind(**link._options)  # it takes all of them
    return link._kind, options


def place_of(state: Any) -> Any:
    """Return where a store connects to first."""
    return store_of(state)._link._route.find()  # type: ignore[attr-defined]


URLS: Dict[str, Any] = {
    "redis://cache": (Connection, OURS, ("cache", 6379)),
    "redis://cache:7000/3": (Connection, {**OURS, "db": 3}, ("cache", 7000)),
    "redis://[::1]:7000": (Connection, OURS, ("::1", 7000)),
    "redis://joe:p%40ss@cache": (
        Connection,
        {**OURS, "username": "joe", "password": "p@ss"},
        ("cache", 6379),
    ),
    "redis://:pass@cache?prefix=red": (Connection, {**OURS, "password": "pass"}, ("cache", 6379)),
    "redis://cache?socket_timeout=2": (Connection, {**OURS, "socket_timeout": 2.0}, ("cache", 6379)),
    "redis://cache?max_connections=5&decode_responses=1": (Connection, OURS, ("cache", 6379)),
    "rediss://cache?ssl_ca_certs=/ca.pem&ssl_check_hostname=false": (
        SSLConnection,
        {**OURS, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
        ("cache", 6379),
    ),
}


@pytest.mark.parametrize("url", URLS)
def test_a_url(url: str) -> None:
    """A URL means what it means to the package redis, but for timeouts, which are short."""
    kind, options, (host, port) = URLS[url]
    assert made_of(url) == (kind, options)
    assert place_of(url) == {"host": host, "port": port}


def test_a_socket() -> None:
    """A Unix domain socket has a path, and nothing to wait for in connecting to it."""
    url = "unix:///run/redis.sock?db=2"
    assert made_of(url) == (UnixDomainSocketConnection, {"socket_timeout": 0.5, "db": 2})
    assert place_of(url) == {"path": "/run/redis.sock"}


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_sentinels_by_url(scheme: str) -> None:
    """Several sentinels, the name of their master, and logins of their own."""
    url = f"{scheme}+sentinel://joe:pass@one:1,two,[::1]:3/mymaster/2?sentinel_password=other&prefix=red"
    kind, options = made_of(url)
    assert kind is (SSLConnection if scheme == "rediss" else Connection)
    assert options == {**OURS, "username": "joe", "password": "pass", "db": 2}
    store: Any = store_of(url)
    asked = [
        (asked_kind, o["host"], o["port"], o["password"]) for asked_kind, o in store._link._route._sentinels
    ]
    assert asked == [(kind, "one", 1, "other"), (kind, "two", 26379, "other"), (kind, "::1", 3, "other")]
    assert str(store) == "<RedisStore sentinel:mymaster/2 {red}:1:*>"


def test_a_client() -> None:
    """A client is described by its address and login; its pool, timeouts and decoding stay its own."""
    given = redis.Redis(
        "cache", 7000, 3, "pass", socket_timeout=99.0, decode_responses=True, max_connections=1
    )
    kind, options = made_of(given)
    assert kind is Connection
    assert {**options, **OURS} == options
    assert (options["db"], options["password"]) == (3, "pass")
    assert "decode_responses" not in options
    assert place_of(given) == {"host": "cache", "port": 7000}
    assert made_of(redis.Redis.from_url("unix:///run/redis.sock"))[0] is UnixDomainSocketConnection
    kind, options = made_of(redis.Redis("cache", ssl=True, ssl_ca_certs="/ca.pem"))
    assert (kind, options["ssl_ca_certs"]) == (SSLConnection, "/ca.pem")


def test_a_sentinels_master() -> None:
    """A master that sentinels name is asked for by connections of our own, to each of them."""
    sentinel = Sentinel([("one", 1), ("two", 2)], sentinel_kwargs={"password": "other"}, password="pass")
    store: Any = store_of(sentinel.master_for("mymaster"))
    assert made_of(sentinel.master_for("mymaster"))[1]["password"] == "pass"
    asked = [options for _kind, options in store._link._route._sentinels]
    assert [(o["host"], o["port"], o["password"]) for o in asked] == [
        ("one", 1, "other"),
        ("two", 2, "other"),
    ]
    assert all({**options, **OURS} == options for options in asked)


SECRET = "hush"
#: What may not be, and a part of what is said to it.
WRONG: Dict[str, str] = {
    "redis://": "redis://host",
    "redis://[::1": "redis://host",
    f"redis://:{SECRET}@cache:port": "numbers where numbers belong",
    f"redis://:{SECRET}@cache/name": "number of a database",
    f"redis://:{SECRET}@cache?db=x": "numbers where numbers belong",
    f"redis://:{SECRET}@cache?socket_timeout=0": "more than 0 and at most 60",
    f"redis://:{SECRET}@cache?socket_timeout=nan": "more than 0 and at most 60",
    f"redis://:{SECRET}@cache?speed=high": "no other parameters than prefix",
    f"redis://:{SECRET}@cache?ssl_ca_certs=/ca.pem": "rediss://",
    f"redis://:{SECRET}/{SECRET}@cache": "numbers where numbers belong",
    f"redis://{SECRET}#{SECRET}@cache": "%23",
    f"redis://{SECRET}?{SECRET}@cache": "%23",
    f"redis://:{SECRET}@cache?prefix=": "a prefix of 1 to 64",
    f"redis://:{SECRET}@cache?prefix=a{{b}}": "a prefix of 1 to 64",
    f"redis://:{SECRET}@cache?prefix=a%0Ab": "a prefix of 1 to 64",
    f"redis+sentinel://:{SECRET}@one": "/service",
    f"redis+sentinel://:{SECRET}@one:port/mymaster": "/service",
    f"redis+sentinel://:{SECRET}@/mymaster": "/service",
}


@pytest.mark.parametrize("url", WRONG)
def test_a_url_that_cannot_be(url: str) -> None:
    """It is refused when a client is made, with what is allowed, and without any secret of it."""
    with pytest.raises(ConfigurationError) as caught:
        FailoverClient([Endpoint("a", "http://127.0.0.1:1")], state=url)
    assert WRONG[url] in str(caught.value)
    assert str(caught.value).startswith("state: ")
    assert SECRET not in f"{caught.value!r} {caught.value} {vars(caught.value)}"


@pytest.mark.parametrize(
    "given", [redis.asyncio.Redis(), redis.Redis, 7, object(), Sentinel([]).slave_for("m")]
)
def test_what_is_no_client(given: Any) -> None:
    """An asynchronous client, a replica's or anything else is refused."""
    with pytest.raises(ConfigurationError, match=r"^state: "):
        store_of(given)


def test_nothing_shows_a_password() -> None:
    """No repr has it, and an error that has is told without it."""
    url = f"redis+sentinel://joe:{SECRET}@one/mymaster?sentinel_password={SECRET}-too"
    for state in (url, redis.Redis("one", password=SECRET), f"rediss://one?ssl_password={SECRET}"):
        store: Any = store_of(state)
        client = FailoverClient([Endpoint("a", "http://127.0.0.1:1")], state=state)
        for shown in (store, store._link, store._link._route, client, client.registry.peers):
            assert SECRET not in f"{shown!r} {shown}"
        assert store._link.public(f"WRONGPASS {SECRET}-too\r\n{SECRET}").startswith("WRONGPASS ***")
        assert SECRET not in store._link.public(f"WRONGPASS {SECRET}-too {SECRET}")


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package redis, the error says what to install."""
    monkeypatch.setattr(
        "syncfailover.state.address.find_spec", lambda name: None if name == "redis" else find_spec(name)
    )
    with pytest.raises(ConfigurationError, match=r"pip install 'syncfailover\[redis\]'"):
        store_of("redis://cache")


@pytest.mark.parametrize(("state", "loaded"), [(None, "False"), ("redis://cache", "True")])
def test_it_is_loaded_late(state: Any, loaded: str) -> None:
    """The package redis is loaded when a client wants it, not before."""
    code = f"""if True:
        import sys
        from syncfailover import Endpoint, FailoverClient
        FailoverClient([Endpoint("a", "http://127.0.0.1:1")], state={state!r})
        print("redis" in sys.modules)
    """
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == loaded
