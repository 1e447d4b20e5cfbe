"""The checkpoint of a map: a SQLite file in which every answer is, once it was received.

It belongs to one connection of one thread of one process. While that lives it holds SQLite's exclusive lock, which the
system takes back when the process dies, however it dies: so two maps never write to one file, and a map that was killed
is in nobody's way. The lock also spares the shared memory that a write-ahead log otherwise needs.

An answer is found again by an opaque key, a hash: the file holds replies, but neither prompts nor the keys of endpoints.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Optional, Sequence, Set, Tuple

from ..errors import ConfigurationError
from ..validation import reject

#: "sfmp": what SQLite's header says that the file is.
APPLICATION_ID = 0x73666D70
#: Of the table, of the keys, and of what is kept of a reply (`completion/stored.py`): a change of any needs a new one.
VERSION = 1

#: Answers in one commit: SQLite takes 999 variables in a statement. (SQLITE_MAX_VARIABLE_NUMBER, before 3.32)
MOST_AT_ONCE = 400

#: Seconds for which a file is asked for that another process has; one that was just killed may still be going.
_PATIENCE_S = 0.5
#: Seconds between two tries, give or take half, so that two that came at once do not meet again.
_PAUSE_S = 0.03

_WHOLE = "the path of a checkpoint of map, or of a file that does not exist yet"


class Checkpoint:
    """An open checkpoint. All of its methods belong to the thread that made it.

    Args:
        path: of the file; one that does not exist is made, readable by its owner alone.

    Raises:
        ConfigurationError: the file is another map's now, is something else, or cannot be used; and so from all methods.

    """

    def __init__(self, path: str) -> None:
        self._path = path
        _create(path)
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._connection = _opened(path)
            except sqlite3.Error as error:
                if not _is_locked(error) or time.monotonic() > until:
                    raise self._trouble(error) from None
            else:
                return
            time.sleep(_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    def keys(self) -> Set[bytes]:
        """Return the keys of all answers."""
        try:
            return {key for (key,) in self._connection.execute("SELECT asked FROM answers")}
        except sqlite3.Error as error:
            raise self._trouble(error) from None

    def read(self, key: bytes) -> Optional[str]:
        """Return an answer; None where there is none."""
        try:
            row = self._connection.execute("SELECT reply FROM answers WHERE asked = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._trouble(error) from None
        return None if row is None or not isinstance(row[0], str) else row[0]

    def write(self, answers: Sequence[Tuple[bytes, str]]) -> None:
        """Commit answers, `MOST_AT_ONCE` at most: all of them, or none."""
        # One statement is one transaction, and one time to wait for Python's lock.
        rows = ", ".join(["(?, ?)"] * len(answers))
        try:
            self._connection.execute(
                f"INSERT OR REPLACE INTO answers VALUES {rows}",  # noqa: S608 - question marks
                [value for answer in answers for value in answer],
            )
        except sqlite3.Error as error:
            raise self._trouble(error) from None

    def close(self) -> None:
        """Close the file, and so give it free; what was committed stays, whatever goes wrong here."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def _trouble(self, error: sqlite3.Error) -> ConfigurationError:
        """Make of an error of SQLite's one that names the field."""
        if _is_locked(error):
            return reject(
                "checkpoint", self._path, "a checkpoint that no other map, or program, is using now"
            )
        if "not a database" in str(error):
            return reject("checkpoint", self._path, _WHOLE)
        return reject("checkpoint", self._path, f"a file that can be read and written ({error})")


def _create(path: str) -> None:
    """Make a file that only its owner can read; leave one that exists, without opening it.

    For to close a file that SQLite has open elsewhere in the process would drop its locks.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600))
    except FileExistsError:
        _check_kind(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise _unusable(path, error) from None


def _check_kind(path: str) -> None:
    if not Path(path).is_file():  # a directory, a device, a link that leads nowhere
        raise reject("checkpoint", path, f"{_WHOLE}: this is no file")


def _unusable(path: str, error: Exception) -> ConfigurationError:
    reason = error.strerror if isinstance(error, OSError) else error
    return reject("checkpoint", path, f"a path where a file can be made ({reason})")


def _opened(path: str) -> sqlite3.Connection:
    uri = Path(path).absolute().as_uri() + "?mode=rw"
    connection = sqlite3.connect(uri, timeout=0, isolation_level=None, uri=True)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    """Take the lock, look whether the file is ours before anything is changed in it, and write once to see that one can."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    application, version, tables = (
        connection.execute(f"{question}").fetchone()[0]
        for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if application != APPLICATION_ID and (application, version, tables) != (0, 0, 0):
        raise reject("checkpoint", path, f"{_WHOLE}: this is another program's database")
    if application == APPLICATION_ID and version != VERSION:
        allowed = f"a checkpoint of version {VERSION}: this one is of version {version}, of another release"
        raise reject("checkpoint", path, allowed)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        "PRAGMA synchronous = NORMAL"
    )  # a commit outlives the process; a power cut may cost the last
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE IF NOT EXISTS answers (asked BLOB PRIMARY KEY, reply TEXT NOT NULL)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _is_locked(error: sqlite3.Error) -> bool:
    return "locked" in str(error)
