"""What `state=` may be, and the store that it means. Nothing is opened here."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import ConfigurationError
from ..validation import reject
from .store import Store

_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_ALLOWED = (
    "'sqlite:///relative/path', 'sqlite:////absolute/path', 'redis://host:6379/0', 'rediss://...', 'unix:///socket', "
    "'redis+sentinel://host:26379/service', a client of the package redis, or None"
)


def store_of(state: Any) -> Store:
    """Return the store that `state` means.

    Args:
        state: `sqlite:///path` (relative to the current directory; four slashes make it absolute); `redis://...`,
            `rediss://...`, `unix://...` or `redis+sentinel://...`, see `redis_place.link_to`, with `?prefix=name` for a
            key prefix other than "syncfailover"; or a client of the package redis (also a cluster's, or that of a
            sentinel's master).

    Raises:
        ConfigurationError: anything else, a directory that does not exist, or the package redis is missing.

    """
    if not isinstance(state, str):
        if hasattr(state, "pubsub") and hasattr(state, "eval"):
            return _redis(state, {})
        raise _wrong(state)
    scheme = state.partition(":")[0].lower()
    if scheme == "sqlite":
        return _sqlite(state)
    if scheme in _REDIS_SCHEMES:
        return _redis_url(state)
    raise _wrong(state)


def shown(state: Any) -> str:
    """Return a `state` as it may be shown: without user, password and query."""
    if not isinstance(state, str):
        return type(state).__name__
    before, slashes, rest = state.partition("://")
    place = rest.rpartition("@")[2].partition("?")[0]
    return before + slashes + place if slashes else "a text"


def _wrong(state: Any, why: str = "") -> ConfigurationError:
    return reject("state", shown(state), why or _ALLOWED)


def _sqlite(url: str) -> Store:
    if find_spec("_sqlite3") is None:
        raise _wrong(url, "a Python with the module sqlite3, which this one was built without")
    from .sqlite import SqliteStore  # noqa: PLC0415 - sqlite3 is only loaded where it is used

    path = unquote(url[len("sqlite:///") :])
    if not url.lower().startswith("sqlite:///") or not path or "\0" in path:
        raise _wrong(url)
    if "?" in url:
        raise _wrong(url, "a path without a query")
    if path == ":memory:":
        raise _wrong(url, "the path of a file; memory is shared with nobody")
    store = SqliteStore(os.path.expanduser(path))  # noqa: PTH111 - a text is what SQLite wants
    directory = os.path.dirname(store.path)  # noqa: PTH120
    if not os.path.isdir(directory):  # noqa: PTH112
        raise _wrong(url, f"a path in a directory that exists; {directory} does not")
    if os.path.isdir(store.path):  # noqa: PTH112
        raise _wrong(url, "the path of a file, not of a directory")
    return store


def _redis_url(url: str) -> Store:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong(url) from None
    if not (parts.netloc or parts.path):
        raise _wrong(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return _redis(url, {"prefix": query["prefix"]} if "prefix" in query else {})


def _redis(where: Any, options: Any) -> Store:
    if find_spec("redis") is None:
        raise _wrong(where, "the package redis to be installed: pip install 'syncfailover[redis]'")
    from .redis import RedisStore  # noqa: PLC0415 - an extra

    try:
        return RedisStore(where, **options)
    except ValueError as error:
        raise _wrong(where, str(error)) from None
