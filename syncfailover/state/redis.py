"""Health shared by the processes of a fleet, over Redis.

Everything there expires: an entry when it is to be forgotten, the last token of a lease after an hour, an account after a
day. Time is the server's. All keys are in one hash slot, and what has to be whole is a script, see `redis_scripts`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from time import monotonic
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple
from uuid import uuid4

from ..policy.entry import HEALTH, KINDS, LARGEST
from .redis_listener import Listener
from .redis_place import link_to
from .redis_scripts import HEADER, LEASE, READ, RELEASE, SETTLE, WRITE, Script
from .server_clock import ServerClock
from .store import Account, Record, StoreError

#: Of the keys and what is in them; another version's are others.
_VERSION = 1
_PREFIX = re.compile(r"[\w.:-]{1,64}", re.ASCII)
#: Characters of an error at most.
_LONGEST_ERROR = 200
#: Seconds until a listener that has lost its connection gets another one.
_LISTEN_AGAIN_S = 1.0

#: What a parent process had: its connections are open there, and its listener's thread does not run here.
_forsaken: List[Any] = []


class RedisStore:
    """A Redis that all processes of a fleet use.

    Args:
        where: a URL, or a client of the package redis; see `redis_place.link_to`.
        prefix: what the keys of this deployment begin with, in braces.

    Raises:
        ValueError: the text says what is expected.

    """

    kind = "redis"
    look_s = 0.4  # where nothing is heard of peers, this is how soon all know
    is_quick = False

    def __init__(self, where: Any, prefix: str = "syncfailover") -> None:
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ValueError("a prefix of 1 to 64 letters, digits and any of . : _ -")
        self._link = link_to(where)
        self._prefix = f"{{{prefix}}}:{_VERSION}:"
        self._clock = ServerClock()
        self._reset()

    def _reset(self) -> None:
        self._id = uuid4().hex
        self._listener: Optional[Listener] = None
        self._listen_at = 0.0

    def __repr__(self) -> str:
        return f"<RedisStore {self._link} {self._prefix}*>"

    def open(self, on_news: Callable[[], None]) -> None:
        """Connect if need be, and listen to what peers say."""
        with self._told():
            if not self._link.connected:
                try:
                    self._link.connect()
                    sent = monotonic()
                    self._note(self._link.ask("TIME"), sent)
                except BaseException:
                    self._link.failed()
                    self._link.close()
                    raise
            if self._listener is None or (self._listener.ended and monotonic() >= self._listen_at):
                self._listen_at = monotonic() + _LISTEN_AGAIN_S
                self._listener = Listener(
                    self._link.twin(), self._prefix + "news", self._id.encode(), on_news
                )
                self._listener.start()

    def now(self) -> float:
        """Return Unix seconds on the server."""
        return self._clock.now()

    def has_news(self) -> bool:
        """Tell whether it is time to look: not while whatever peers say is heard."""
        return self._listener is None or not self._listener.hears

    def read(self, endpoints: Sequence[str]) -> List[Tuple[str, str, bytes]]:
        """Return what is known of these."""
        places = [(endpoint, kind) for endpoint in endpoints for kind in KINDS]
        found = self._run(READ, [self._entry(*place) for place in places], HEADER + LARGEST)
        return [(*place, _data_of(value)) for place, value in zip(places, found) if value]

    def write(self, records: Iterable[Record], fences: Mapping[str, int]) -> None:
        """Keep what is newer than what is there."""
        keys: List[str] = []
        values: List[Any] = [self._prefix + "news", self._id]
        for record in records:
            keys += [self._entry(record.endpoint, record.kind), self._lease(record.endpoint)]
            token = fences.get(record.endpoint, 0) if record.kind == HEALTH else ""
            values += [repr(record.at), repr(record.until), record.gist, token, record.data]
        self._run(WRITE, keys, *values)

    def lease(self, endpoints: Sequence[str], owner: str, ttl_s: float) -> Dict[str, int]:
        """Take or renew the right to probe, of those that nobody else has."""
        keys = [self._lease(endpoint) for endpoint in endpoints]
        tokens = self._run(LEASE, keys, owner, round(1000 * ttl_s))
        return {endpoint: int(token) for endpoint, token in zip(endpoints, tokens) if token}

    def release(self, endpoints: Sequence[str], owner: str) -> None:
        """Give up the right to probe."""
        if endpoints:
            self._run(RELEASE, [self._lease(endpoint) for endpoint in endpoints], owner)

    def settle(self, accounts: Iterable[Account]) -> Dict[str, float]:
        """Add to accounts, and return what is in them."""
        names: List[str] = []
        values: List[Any] = []
        for account in accounts:
            names.append(account.name)
            capacity = "" if account.capacity is None else repr(account.capacity)
            values += [repr(account.change), capacity, repr(account.per_second), account.member]
        keys = [f"{self._prefix}{kind}:{name}" for name in names for kind in ("account", "members")]
        found = self._run(SETTLE, keys, *values)
        return {name: float(amount) for name, amount in zip(names, found)}

    def close(self) -> None:
        """Disconnect; `open` connects again."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self._link.close()

    def forsake(self) -> None:
        """Leave a parent's connections to the parent."""
        _forsaken.append((self._link.forsake(), self._listener))
        self._reset()

    def _entry(self, endpoint: str, kind: str) -> str:
        return f"{self._prefix}{endpoint}:{kind}"

    def _lease(self, endpoint: str) -> str:
        return f"{self._prefix}{endpoint}:lease"

    def _run(self, script: Script, keys: List[str], *values: Any) -> Any:
        with self._told():
            sent = monotonic()
            seconds, micros, found = self._link.run(script, keys, *values)
            self._note((seconds, micros), sent)
            return found

    def _note(self, time: Sequence[bytes], sent: float) -> None:
        """Take in what time it is on the server."""
        self._clock.note(int(time[0]) + int(time[1]) / 1e6, sent, monotonic())

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell of any trouble with the server in one way."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - from whatever answers there, redis-py may raise anything
            text = str(error) or type(error).__name__
            raise StoreError(self._link.public(f"redis {self._link}: {text}")[:_LONGEST_ERROR]) from None


def _data_of(value: bytes) -> bytes:
    """Return an entry's data without what stands before it."""
    header, newline, data = value.partition(b"\n")
    return data if newline and len(header) < HEADER else value
