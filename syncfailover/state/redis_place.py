"""What a URL, or a client of the package redis, says of the place where peers meet.

A client is a description here: connections of our own are made with its addresses and its login, so that its pool, its
timeouts and its retries, which are meant for other things, are left alone. Nothing is opened here.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Tuple, Type
from urllib.parse import unquote, urlsplit

import redis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url

from .redis_link import Link
from .redis_route import Address, Maker, Nodes, Options, Route, Sentinels

#: Seconds to connect, and to wait for an answer.
_TIMEOUT_S = 0.5
_LONGEST_TIMEOUT_S = 60.0
_SENTINEL_URL = "redis+sentinel://user:password@host:26379,host2:26379/service/0"
#: Where nothing else is said.
_HOST, _PORT, _SENTINEL_PORT = "localhost", 6379, 26379

_LOGIN = frozenset({"username", "password", "credential_provider", "db"})
_TCP = frozenset({"socket_keepalive", "socket_keepalive_options", "socket_type"})
_TLS = frozenset(name for name in signature(SSLConnection.__init__).parameters if name.startswith("ssl_"))
#: What each kind of connection takes over; those that are made from another one come first.
_TAKEN: Dict[Type[Any], FrozenSet[str]] = {
    SSLConnection: _LOGIN | _TCP | _TLS,
    UnixDomainSocketConnection: _LOGIN,
    Connection: _LOGIN | _TCP,
}
#: What a URL may say beyond that.
_IN_URLS = frozenset({"socket_timeout", "socket_connect_timeout"})
_OF_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}
#: What a URL may say without an effect here: it is about pools, retries, and how replies are read.
_IDLE = frozenset(
    {
        *(
            "prefix",
            "client_name",
            "decode_responses",
            "encoding",
            "encoding_errors",
            "health_check_interval",
        ),
        *("max_connections", "protocol", "retry_on_error", "retry_on_timeout", "timeout"),
    }
)
_KNOWN = (
    _LOGIN | _TCP | _TLS | _IN_URLS | _IDLE | {"host", "port", "path", "connection_class", *_OF_SENTINELS}
)
#: Redis 6 talks another protocol to those who want that, and pushes messages into it.
_PROTOCOL = {"protocol": 2} if int(redis.__version__.partition(".")[0]) >= 5 else {}


def link_to(where: Any) -> Link:
    """Return the link to a place.

    Args:
        where: `redis://`, `rediss://` or `unix://` as the package redis understands them;
            `redis+sentinel://user:password@host:26379,host2/service/0` (`rediss+sentinel://` for TLS), with
            `?sentinel_username=` and `?sentinel_password=` where sentinels ask for them; or a `redis.Redis`, also one
            of `Sentinel.master_for`, or a `redis.cluster.RedisCluster`.

    Raises:
        ValueError: it is none of these; the text says what is expected.

    """
    if isinstance(where, str):
        return _by_sentinel_url(where) if "+sentinel:" in where[:20].lower() else _by_url(where)
    nodes = getattr(where, "nodes_manager", None)
    if nodes is not None:
        return _by_nodes(nodes)
    pool = getattr(where, "connection_pool", None)
    if not hasattr(pool, "connection_kwargs") or not hasattr(pool, "connection_class"):
        raise ValueError("a client of the package redis")
    return _by_pool(pool)


def _by_url(url: str) -> Link:
    given = _read(url)
    kind = _kind_of(given.get("connection_class", Connection))
    return _link(kind, _route_of(given), given)


def _by_sentinel_url(url: str) -> Link:
    """Read the same as a plain URL, but for several hosts, and the service's name before the database's number."""
    scheme, _, rest = url.partition("://")
    netloc, _, tail = rest.partition("/")
    login, at, places = netloc.rpartition("@")
    path, mark, query = tail.partition("?")
    service, _, db = path.partition("/")
    if not service or not places:
        raise ValueError(_SENTINEL_URL)
    tls = scheme.lower().startswith("rediss")
    given = _read(f"{'rediss' if tls else 'redis'}://{login}{at}{_HOST}/{db}{mark}{query}")
    kind = _kind_of(given.get("connection_class", Connection))
    own = {ours: given[name] for name, ours in _OF_SENTINELS.items() if name in given}
    shared = {name: value for name, value in given.items() if name in _TLS | _TCP | _IN_URLS}
    makers = [_maker(kind, address, {**shared, **own}) for address in _addresses(places)]
    return _link(kind, Sentinels(unquote(service), makers), given, _passwords([own]))


def _by_pool(pool: Any) -> Link:
    kind, given = _kind_of(pool.connection_class), _taken_over(pool.connection_kwargs)
    manager = getattr(pool, "sentinel_manager", None)
    if manager is None:
        return _link(kind, _route_of(given), given)
    if not pool.is_master:
        raise ValueError("a sentinel's master: replicas cannot be written to")
    pools = [sentinel.connection_pool for sentinel in manager.sentinels]
    options = [_taken_over(each.connection_kwargs) for each in pools]
    kinds = [_kind_of(each.connection_class) for each in pools]
    makers = [_maker(each, _address_of(given), given) for each, given in zip(kinds, options)]
    return _link(kind, Sentinels(pool.service_name, makers), given, _passwords(options))


def _by_nodes(manager: Any) -> Link:
    given = {**_taken_over(manager.connection_kwargs), "db": 0}
    kind = SSLConnection if given.get("ssl") else _kind_of(given.get("connection_class", Connection))
    known = [(str(node.host), int(node.port)) for node in manager.startup_nodes.values()]
    if not known:
        raise ValueError("a cluster of which a node is known")
    return _link(kind, Nodes(known), given)


# Parts


def _read(url: str) -> Options:
    """Read a URL that names one place; no error shows any of it, for it may have a password in an unlikely part."""
    try:
        parts, given = urlsplit(url), dict(parse_url(url))
    except ValueError:
        raise ValueError("redis://user:password@host:6379/0, with numbers where numbers belong") from None
    if "@" in url and "@" not in parts.netloc:
        raise ValueError("a user and a password in which / ? # and @ are written as %2F %3F %23 and %40")
    if parts.scheme != "unix" and not parts.path.strip("/").isdigit() and parts.path.strip("/"):
        raise ValueError("the number of a database after the host")
    if parts.scheme != "rediss" and _TLS & set(given):
        raise ValueError("rediss:// where TLS is meant")
    if set(given) - _KNOWN:
        raise ValueError(f"no other parameters than {', '.join(sorted(_TLS | _IN_URLS | {'prefix'}))}")
    for name in _IN_URLS & set(given):
        if not 0.0 < given[name] <= _LONGEST_TIMEOUT_S:
            raise ValueError(f"{name} in seconds, more than 0 and at most {_LONGEST_TIMEOUT_S:g}")
    return given


def _taken_over(given: Mapping[str, Any]) -> Options:
    """Return what a client is made with, but for its timeouts, which are for other things."""
    return {name: value for name, value in given.items() if name not in _IN_URLS}


def _kind_of(kind: Type[Any]) -> Type[Any]:
    """Return the plain kind of connection that a client's is made from."""
    if isinstance(kind, type) and kind.__module__.startswith("redis."):
        for known in _TAKEN:
            if issubclass(kind, known):
                return known
    raise ValueError("a blocking client of the package redis, with connections of that package")


def _route_of(given: Mapping[str, Any]) -> Route:
    path = given.get("path")
    return Route(str(path), {"path": path}) if path else Nodes([_address_of(given)])


def _address_of(given: Mapping[str, Any]) -> Address:
    return str(given.get("host") or _HOST), int(given.get("port") or _PORT)


def _addresses(places: str) -> List[Address]:
    try:
        split = [urlsplit(f"//{place}") for place in places.split(",")]
        return [(each.hostname or _HOST, each.port or _SENTINEL_PORT) for each in split]
    except ValueError:
        raise ValueError(_SENTINEL_URL) from None


def _options(kind: Type[Any], given: Mapping[str, Any]) -> Options:
    """Take over what a connection of this kind needs."""
    taken = {name: value for name, value in given.items() if name in _TAKEN[kind] and value is not None}
    timeouts = {name: given.get(name, _TIMEOUT_S) for name in _IN_URLS}
    if kind is UnixDomainSocketConnection:
        del timeouts["socket_connect_timeout"]
    return {**taken, **timeouts, **_PROTOCOL}


def _maker(kind: Type[Any], address: Address, given: Mapping[str, Any]) -> Maker:
    host, port = address
    own = {name: value for name, value in given.items() if name != "db"}
    return kind, {**_options(kind, own), "host": host, "port": port}


def _link(kind: Type[Any], route: Route, given: Mapping[str, Any], secrets: Tuple[str, ...] = ()) -> Link:
    return Link(kind, route, _options(kind, given), (*secrets, *_passwords([given])))


def _passwords(options: Iterable[Mapping[str, Any]]) -> Tuple[str, ...]:
    return tuple(
        str(each[name]) for each in options for name in ("password", "ssl_password") if each.get(name)
    )
