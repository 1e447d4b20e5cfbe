"""Health shared by the processes of one host, in a SQLite file: no server, and nothing to install.

The write-ahead log lets all read while one writes. It is a cache: what is lost with it is learned again, so it is not
synced to the disk on every write.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..policy.entry import HEALTH, LARGEST
from .store import Account, Record, StoreError

#: Says whose file it is, in SQLite's header ("syfo").
_APPLICATION_ID = 0x7379666F
#: Of the tables below; another version's file is left alone.
_VERSION = 1
#: Seconds to wait for another process that writes.
_BUSY_S = 0.1
#: Seconds between two sweeps of what is to be forgotten.
_SWEEP_S = 60.0
#: Seconds; a lease that is to last longer was written by a clock that was wrong.
_LONGEST_LEASE_S = 300.0

_SCHEMA = (
    "CREATE TABLE entries (endpoint TEXT, kind TEXT, at REAL, until REAL, data BLOB, PRIMARY KEY (endpoint, kind))",
    "CREATE TABLE leases (endpoint TEXT PRIMARY KEY, owner TEXT, token INTEGER, until REAL)",
    "CREATE TABLE accounts (name TEXT PRIMARY KEY, amount REAL, at REAL)",
)

#: Connections that a parent process had: to close one in its child could disturb the parent's.
_forsaken: List[Any] = []


class SqliteStore:
    """A file that all processes of a host use.

    Args:
        path: absolute, or relative to the directory that is current now. Its directory has to exist.

    """

    kind = "sqlite"
    look_s = 0.25
    is_quick = True

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - a daemon may change its directory before the first use
        self._db: Optional[sqlite3.Connection] = None
        self._file: Tuple[int, int] = (0, 0)
        self._version = -1
        self._sweep_at = 0.0

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    def open(self, on_news: Callable[[], None]) -> None:  # noqa: ARG002 - a file tells nobody; it is looked at
        """Open the file, make its tables if it is new, and open it anew if it is another one now."""
        with _told(self.path):
            if self._db is not None and self._file != _identity(self.path):  # it vanished, or was replaced
                self.close()
            if self._db is None:
                db = sqlite3.connect(
                    self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
                )
                try:
                    _prepare(db)
                except BaseException:
                    db.close()
                    raise
                self._db, self._file, self._version = db, _identity(self.path), -1

    def now(self) -> float:
        """Return Unix seconds: the processes of a host have one clock."""
        return time.time()

    def has_news(self) -> bool:
        """Tell whether another connection has written, or the file is another one."""
        with _told(self.path):
            if self._file != _identity(self.path):
                raise StoreError("the file has vanished")
            version = self._one("PRAGMA data_version")[0]
            changed, self._version = version != self._version, version
            return bool(changed)

    def read(self, endpoints: Sequence[str]) -> List[Tuple[str, str, bytes]]:
        """Return what is known of these."""
        marks = ",".join("?" * len(endpoints))
        with _told(self.path):
            rows = self._all(
                "SELECT endpoint, kind, CAST(substr(data, 1, ?) AS BLOB) FROM entries "  # noqa: S608 - marks alone
                f"WHERE endpoint IN ({marks}) AND kind IS NOT NULL",
                (LARGEST + 1, *endpoints),
            )
        return [(str(endpoint), str(kind), bytes(data or b"")) for endpoint, kind, data in rows]

    def write(self, records: Iterable[Record], fences: Mapping[str, int]) -> None:
        """Keep what is newer than what is there."""
        now = self.now()
        with _told(self.path), self._transaction() as db:
            for record in records:
                if record.kind == HEALTH and not self._may_tell(record.endpoint, fences):
                    continue
                values = (record.at, record.until, record.data, record.endpoint, record.kind)
                db.execute(
                    "INSERT OR IGNORE INTO entries (at, until, data, endpoint, kind) VALUES (?, ?, ?, ?, ?)",
                    values,
                )
                # What was written by a clock that was wrong, and so is newer than now, is overwritten.
                db.execute(
                    "UPDATE entries SET at = ?, until = ?, data = ? WHERE endpoint = ? AND kind = ? AND (at < ? OR at > ?)",
                    (*values, record.at, now + _LONGEST_LEASE_S),
                )
            if now >= self._sweep_at:
                self._sweep_at = now + _SWEEP_S
                db.execute("DELETE FROM entries WHERE until < ? OR at > ?", (now, now + _LONGEST_LEASE_S))
                db.execute("DELETE FROM leases WHERE until < ?", (now - _LONGEST_LEASE_S,))

    def lease(self, endpoints: Sequence[str], owner: str, ttl_s: float) -> Dict[str, int]:
        """Take or renew the right to probe; what others have is only looked at, without a write."""
        now = self.now()
        marks = ",".join("?" * len(endpoints))
        mine = f"SELECT endpoint, owner, token, until FROM leases WHERE endpoint IN ({marks})"  # noqa: S608 - marks alone
        with _told(self.path):
            others = {row[0] for row in self._all(mine, endpoints) if row[1] != owner and _lasts(row[3], now)}
            wanted = [endpoint for endpoint in endpoints if endpoint not in others]
            if not wanted:
                return {}
            with self._transaction() as db:
                for endpoint in wanted:
                    db.execute("INSERT OR IGNORE INTO leases VALUES (?, '', 0, 0)", (endpoint,))
                    db.execute(
                        "UPDATE leases SET token = token + (owner <> ?1), owner = ?1, until = ?2 "
                        "WHERE endpoint = ?3 AND (owner = ?1 OR until < ?4 OR until > ?5 OR typeof(until) <> 'real')",
                        (owner, now + ttl_s, endpoint, now, now + _LONGEST_LEASE_S),
                    )
                rows = self._all(mine, endpoints)
        return {endpoint: int(token) for endpoint, holder, token, _until in rows if holder == owner}

    def release(self, endpoints: Sequence[str], owner: str) -> None:
        """Give up the right to probe."""
        with _told(self.path), self._transaction() as db:
            for endpoint in endpoints:
                db.execute(
                    "UPDATE leases SET until = 0.0 WHERE endpoint = ? AND owner = ?", (endpoint, owner)
                )

    def settle(self, accounts: Iterable[Account]) -> Dict[str, float]:
        """Add to accounts, and return what is in them."""
        now = self.now()
        found: Dict[str, float] = {}
        with _told(self.path), self._transaction() as db:
            for account in accounts:
                row = self._one(
                    "SELECT amount, at FROM accounts WHERE name = ?", (account.name,), default=None
                )
                found[account.name] = amount = account.settled(row, now)
                db.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", (account.name, amount, now))
        return found

    def close(self) -> None:
        """Close the file; `open` opens it again."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def forsake(self) -> None:
        """Leave a parent's connection to the parent."""
        if self._db is not None:
            _forsaken.append(self._db)
            self._db = None

    def _may_tell(self, endpoint: str, fences: Mapping[str, int]) -> bool:
        """Tell whether nobody else has had the right to probe since this process had it."""
        row = self._one("SELECT token FROM leases WHERE endpoint = ?", (endpoint,), default=(0,))
        return bool(fences.get(endpoint, 0) >= row[0])

    def _one(self, sql: str, values: Sequence[Any] = (), default: Any = ()) -> Any:
        row = self._connection().execute(sql, values).fetchone()
        return default if row is None else row

    def _all(self, sql: str, values: Sequence[Any]) -> List[Any]:
        return self._connection().execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError("the file is not open")
        return self._db


def _prepare(db: sqlite3.Connection) -> None:
    """Make the tables in a new file; refuse one that is somebody else's."""
    application = db.execute("PRAGMA application_id").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, tables) != (0, 0):
        if application != _APPLICATION_ID:
            raise StoreError("it is another program's database")
        if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            raise StoreError("it was made by another version of syncfailover")
    db.execute("PRAGMA journal_mode = WAL").fetchone()
    db.execute("PRAGMA synchronous = NORMAL")
    if (application, tables) == (0, 0):
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:  # nobody else was faster
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Tell of any trouble with the file in one way."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError, OverflowError) as error:
        raise StoreError(f"{path}: {error}") from None


def _identity(path: str) -> Tuple[int, int]:
    """Return what a file is, whatever its name."""
    found = os.stat(path)  # noqa: PTH116 - four times a second
    return found.st_dev, found.st_ino


def _lasts(until: Any, now: float) -> bool:
    """Tell whether a lease still holds."""
    return isinstance(until, float) and now <= until <= now + _LONGEST_LEASE_S
