"""Health shared by the processes of one host, in a SQLite file: no server, and nothing to install.

The write-ahead log lets all read while one writes. It is a cache: what is lost with it is learned again, so it is not
synced to the disk on every write.

Whatever is in the file may have been written by anybody, and is taken for what it should be or for nothing.

A fork must not happen while a connection is open: SQLite keeps account of its locks per process, so a child would believe
that it holds those of its parent, and hold none. See https://sqlite.org/howtocorrupt.html, section 2.6. Whoever forks
by Python has the file closed before, for a moment; in the child of any other fork this file is left alone.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from ..policy.entry import HEALTH, LARGEST, LONGEST_S, SKEW_S
from .store import MEMBER_S, Account, Record, StoreBusy, StoreError

#: Says whose file it is, in SQLite's header ("syfo").
_APPLICATION_ID = 0x7379666F
#: Of the tables below; another version's file is left alone.
_VERSION = 1
#: Seconds to wait for another process that writes; beyond, it is tried again a little later.
_BUSY_S = 0.05
#: Seconds between two sweeps of what is to be forgotten.
_SWEEP_S = 60.0
#: Seconds; a lease that is to last longer was written by a clock that was wrong.
_LONGEST_LEASE_S = 300.0
#: Seconds for which an account is kept that nobody adds to.
_ACCOUNT_S = 86400.0
#: Variables of a statement at most, of which some are taken. (SQLITE_MAX_VARIABLE_NUMBER, before 3.32: 999)
_AT_ONCE = 500

_SCHEMA = (
    "CREATE TABLE entries (endpoint TEXT, kind TEXT, at REAL, until REAL, data BLOB, PRIMARY KEY (endpoint, kind))",
    "CREATE TABLE leases (endpoint TEXT PRIMARY KEY, owner TEXT, token INTEGER, until REAL)",
    "CREATE TABLE accounts (name TEXT PRIMARY KEY, amount REAL, at REAL)",
    "CREATE TABLE members (name TEXT, member TEXT, until REAL, PRIMARY KEY (name, member))",
)
_READ = (
    "SELECT endpoint, kind, CAST(substr(data, 1, ?) AS BLOB) FROM entries "
    "WHERE typeof(endpoint) = 'text' AND typeof(kind) = 'text' AND endpoint IN "
)
# What was written by a clock that was wrong, and so is newer than now, is overwritten.
_INSERT = "INSERT OR IGNORE INTO entries (at, until, data, endpoint, kind) VALUES (?, ?, ?, ?, ?)"
_UPDATE = (
    "UPDATE entries SET at = ?, until = ?, data = ? WHERE endpoint = ? AND kind = ? "
    "AND (at < ? OR at > ? OR typeof(at) <> 'real')"
)
_SWEEP = (
    "DELETE FROM entries WHERE until < :now OR until > :now + :longest OR at > :now + :skew OR at IS NULL OR until IS NULL",
    "DELETE FROM leases WHERE until < :now - :lease OR until IS NULL",
    "DELETE FROM accounts WHERE at < :now - :account OR at IS NULL",
    "DELETE FROM members WHERE until < :now OR until > :now + :lease OR until IS NULL",
)
_MEMBERS = "SELECT count(*) FROM members WHERE name = ? AND until >= ? AND until <= ?"
# Tokens only grow.
_LEASES = "SELECT endpoint, owner, CAST(coalesce(token, 0) AS INTEGER), until FROM leases WHERE endpoint IN "
_LEASE = (
    "UPDATE leases SET token = max(CAST(coalesce(token, 0) AS INTEGER), 0) + (owner IS NOT ?), owner = ?, until = ? "
    "WHERE endpoint = ? AND (owner = ? OR until < ? OR until > ? OR typeof(until) <> 'real')"
)


class _Inode(NamedTuple):
    """What a file is, whatever its name."""

    device: int
    number: int


#: Connections that a parent process had, kept open: to close one in its child could disturb the parent's. And by process,
#: the files that it must not open for that reason.
_forsaken: List[Any] = []
_forbidden: Dict[int, List[_Inode]] = {}


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
        self._make_lock()
        # All guarded by _using.
        self._db: Optional[sqlite3.Connection] = None
        self._files: Tuple[Optional[_Inode], ...] = ()
        self._version = -1
        self._sweep_at = 0.0

    def _make_lock(self) -> None:
        # Whoever uses the file holds it all the while: the thread that talks to peers, and a fork that has to wait for it.
        self._using = threading.Lock()

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    def __del__(self) -> None:
        """Close what nobody has closed; from 3.13 on Python warns of that."""
        db = getattr(self, "_db", None)
        if db is not None:
            db.close()

    def open(self, on_news: Callable[[], None]) -> None:  # noqa: ARG002 - a file tells nobody; it is looked at
        """Open the file, make its tables if it is new, and see to it that it is still the same one."""
        with self._alone():
            if self._db is not None and self._files != _files(self.path):
                raise StoreError(f"{self.path} has vanished, or was replaced")
            self._connection()

    def now(self) -> float:
        """Return Unix seconds: the processes of a host have one clock."""
        return time.time()

    def has_news(self) -> bool:
        """Tell whether another connection has written."""
        with self._alone() as db:
            version = db.execute("PRAGMA data_version").fetchone()[0]
            changed, self._version = version != self._version, version
            return bool(changed)

    def read(self, endpoints: Sequence[str]) -> List[Tuple[str, str, bytes]]:
        """Return what is known of these."""
        with self._alone() as db:
            rows = _of(db, _READ, endpoints, LARGEST + 1)
        return [(endpoint, kind, data or b"") for endpoint, kind, data in rows]

    def write(self, records: Iterable[Record], fences: Mapping[str, int]) -> None:
        """Keep what is newer than what is there."""
        now = self.now()
        with self._alone() as db, _transaction(db):
            for record in records:
                if record.kind == HEALTH and not _may_tell(db, record.endpoint, fences, now):
                    continue
                values = (record.at, record.until, record.data, record.endpoint, record.kind)
                db.execute(_INSERT, values)
                db.execute(_UPDATE, (*values, record.at, now + SKEW_S))
            if now >= self._sweep_at:
                self._sweep(db, now)

    def lease(self, endpoints: Sequence[str], owner: str, ttl_s: float) -> Dict[str, int]:
        """Take or renew the right to probe; what others have is only looked at, without a write."""
        now = self.now()
        with self._alone() as db:
            held = {row[0] for row in _of(db, _LEASES, endpoints) if row[1] != owner and _lasts(row[3], now)}
            wanted = [endpoint for endpoint in endpoints if endpoint not in held]
            if not wanted:
                return {}
            with _transaction(db):
                for endpoint in wanted:
                    db.execute("INSERT OR IGNORE INTO leases VALUES (?, '', 0, 0)", (endpoint,))
                    beyond = now + _LONGEST_LEASE_S
                    db.execute(_LEASE, (owner, owner, now + ttl_s, endpoint, owner, now, beyond))
                rows = _of(db, _LEASES, wanted)
        return {endpoint: token for endpoint, holder, token, _until in rows if holder == owner}

    def release(self, endpoints: Sequence[str], owner: str) -> None:
        """Give up the right to probe."""
        with self._alone() as db, _transaction(db):
            for endpoint in endpoints:
                db.execute("UPDATE leases SET until = 0 WHERE endpoint = ? AND owner = ?", (endpoint, owner))

    def settle(self, accounts: Iterable[Account]) -> Dict[str, float]:
        """Add to accounts, and return what is in them; where nothing is added, without a write."""
        accounts, now = list(accounts), self.now()
        with self._alone() as db:
            if not any(account.change or _is_forgotten_soon(db, account, now) for account in accounts):
                return {account.name: _settled(db, account, now) for account in accounts}
            with _transaction(db):
                members = [(each.name, each.member, now + MEMBER_S) for each in accounts if each.member]
                db.executemany("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", members)
                found = {account.name: _settled(db, account, now) for account in accounts}
                rows = [(name, amount, now) for name, amount in found.items()]
                db.executemany("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", rows)
        return found

    def close(self) -> None:
        """Close the file; whatever is done next opens it again."""
        with self._using:
            self._close()

    # Forks

    def before_fork(self, until: float) -> bool:
        """Close the file, and use it no more until the fork is over; tell whether that is so.

        Args:
            until: how long to wait for whoever is using it, on `time.monotonic`'s clock.

        """
        held = self._using.acquire(timeout=max(0.0, until - time.monotonic()))
        if held:
            self._close()
        return held

    def after_fork_in_parent(self) -> None:
        """Go on, after a fork that was waited for."""
        self._using.release()

    def forsake(self) -> None:
        """Leave a parent's connection to the parent, and its file alone: this process cannot lock it any more."""
        if self._db is not None:
            _forsaken.append(self._db)
            # By process, as the parent goes on, and a program that gevent has patched meanwhile is no child at all.
            _forbidden.setdefault(os.getpid(), []).extend(
                file for file in self._files[:1] if file is not None
            )
        self._db = None
        self._make_lock()

    # The connection; hold _using when calling these

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def _connection(self) -> sqlite3.Connection:
        if self._db is not None:
            return self._db
        file = _inode(self.path)
        if file in _forbidden.get(os.getpid(), ()):
            raise StoreError(f"{self.path} was open when this process was forked")
        effective = os.access in os.supports_effective_ids
        if file is not None and not os.access(self.path, os.R_OK | os.W_OK, effective_ids=effective):
            # SQLite would open it to read, and leave a log beside it that is as read-only as the file.
            raise StoreError(f"{self.path} may not be read and written")
        db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db)
            db.execute("PRAGMA data_version").fetchone()  # from here on the log is there, too
            self._files, self._version = _files(self.path), -1
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """Have the connection to oneself, and tell of any trouble with the file in one way."""
        with self._using:
            try:
                yield self._connection()
            except sqlite3.Error as error:
                kind = StoreBusy if "locked" in str(error) else StoreError
                raise kind(f"{self.path}: {error}") from None
            except (OSError, ValueError, TypeError, OverflowError) as error:
                raise StoreError(f"{self.path}: {error}") from None

    def _sweep(self, db: sqlite3.Connection, now: float) -> None:
        """Delete what is to be forgotten."""
        self._sweep_at = now + _SWEEP_S
        times = {"now": now, "longest": LONGEST_S + _SWEEP_S, "skew": SKEW_S}
        for statement in _SWEEP:
            db.execute(statement, {**times, "lease": _LONGEST_LEASE_S, "account": _ACCOUNT_S})


def _prepare(db: sqlite3.Connection) -> None:
    """Make the tables in a new file; refuse one that is somebody else's."""
    if _is_new(db):
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        with _transaction(db):
            if _is_new(db):  # nobody else was faster
                for statement in _SCHEMA:
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("PRAGMA journal_mode = WAL").fetchone()
    db.execute("PRAGMA synchronous = NORMAL")


def _is_new(db: sqlite3.Connection) -> bool:
    """Tell whether there is nothing in a file yet; raise if what there is is not ours."""
    # In one transaction, unless there is one, for another process may be making the tables just now.
    begun = db.in_transaction
    if not begun:
        db.execute("BEGIN")
    try:
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
    finally:
        if not begun:
            db.execute("ROLLBACK")
    if (application, tables) == (0, 0):
        return True
    if application != _APPLICATION_ID:
        raise ValueError("it is another program's database")
    if version != _VERSION:
        raise ValueError("it was made by another version of syncfailover")
    return False


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Do all of it, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _of(db: sqlite3.Connection, select: str, endpoints: Sequence[str], *values: Any) -> List[Any]:
    """Return the rows of these endpoints."""
    rows: List[Any] = []
    for first in range(0, len(endpoints), _AT_ONCE):
        some = endpoints[first : first + _AT_ONCE]
        rows += db.execute(f"{select} ({','.join('?' * len(some))})", (*values, *some)).fetchall()
    return rows


def _may_tell(db: sqlite3.Connection, endpoint: str, fences: Mapping[str, int], now: float) -> bool:
    """Tell whether nobody else has the right to probe, or has had it since this process had it."""
    return all(
        fences.get(endpoint, 0) >= token or not _lasts(until, now)
        for _endpoint, _owner, token, until in _of(db, _LEASES, (endpoint,))
    )


def _settled(db: sqlite3.Connection, account: Account, now: float) -> float:
    """Return what is in an account after this change."""
    row = db.execute("SELECT amount, at FROM accounts WHERE name = ?", (account.name,)).fetchone()
    members = db.execute(_MEMBERS, (account.name, now, now + MEMBER_S + SKEW_S)).fetchone()[0]
    return account.settled(None if row is None else (row[0], row[1]), now, max(1, members))


def _is_forgotten_soon(db: sqlite3.Connection, account: Account, now: float) -> bool:
    """Tell whether it is time to say again that this process uses an account."""
    if not account.member:
        return False
    mine = db.execute(
        "SELECT until FROM members WHERE name = ? AND member = ?", (account.name, account.member)
    ).fetchone()
    return mine is None or not _lasts(mine[0], now + MEMBER_S / 2)


def _inode(path: str) -> Optional[_Inode]:
    try:
        found = os.stat(path)  # noqa: PTH116 - eight times a second
    except FileNotFoundError:
        return None
    return _Inode(found.st_dev, found.st_ino)


def _files(path: str) -> Tuple[Optional[_Inode], ...]:
    """Return what the file and its log are."""
    return _inode(path), _inode(path + "-wal")


def _lasts(until: Any, now: float) -> bool:
    """Tell whether a lease still holds."""
    return isinstance(until, float) and now <= until <= now + _LONGEST_LEASE_S
