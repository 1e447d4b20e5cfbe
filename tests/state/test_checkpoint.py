"""The checkpoint's file: what is taken for one, what is not, and who may have it."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from syncfailover import ConfigurationError
from syncfailover.state.checkpoint import APPLICATION_ID, MOST_AT_ONCE, VERSION, Checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a checkpoint may be made."""
    return tmp_path / "run.sqlite"


def database(path: Path, *statements: str) -> None:
    """Make a SQLite database with other means."""
    connection = sqlite3.connect(str(path), isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def refused(path: Any) -> ConfigurationError:
    """Return how a path is refused."""
    with pytest.raises(ConfigurationError) as caught:
        Checkpoint(str(path))
    assert (caught.value.field, caught.value.value) == ("checkpoint", str(path))
    return caught.value


def test_what_is_written_is_there_afterwards(path: Path) -> None:
    """A later answer to the same key takes the place of the first; as many at once as are allowed."""
    checkpoint = Checkpoint(str(path))
    assert (checkpoint.keys(), checkpoint.read(b"a")) == (set(), None)
    checkpoint.write([(b"a", "1"), (b"b", "2")])
    checkpoint.write([(b"a", "3")])
    checkpoint.write([(b"%d" % number, "x") for number in range(MOST_AT_ONCE)])
    checkpoint.close()
    checkpoint = Checkpoint(str(path))
    assert checkpoint.keys() == {b"a", b"b", *(b"%d" % number for number in range(MOST_AT_ONCE))}
    assert [checkpoint.read(key) for key in (b"a", b"b", b"c")] == ["3", "2", None]
    checkpoint.close()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_it_is_its_owners_alone(path: Path, mask: int) -> None:
    """Also the log beside it, while it is open."""
    old = os.umask(mask)
    try:
        checkpoint = Checkpoint(str(path))
        checkpoint.write([(b"a", "1")])
        modes = {name.name: name.stat().st_mode & 0o777 for name in path.parent.iterdir()}
        checkpoint.close()
    finally:
        os.umask(old)
    assert modes == {"run.sqlite": 0o600, "run.sqlite-wal": 0o600}


def test_it_is_a_write_ahead_log(path: Path) -> None:
    """Which is what a commit that costs no wait for the disk needs."""
    checkpoint = Checkpoint(str(path))
    ask = checkpoint._connection.execute
    assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ask("PRAGMA synchronous").fetchone() == (1,)
    checkpoint.close()


def test_an_empty_file_becomes_one(path: Path) -> None:
    """As one is that was killed in its first moments, and as `mktemp` makes it; its mode stays."""
    path.touch(0o640)
    path.chmod(0o640)
    Checkpoint(str(path)).close()
    database(path.with_name("other"), "PRAGMA journal_mode = WAL")
    Checkpoint(str(path.with_name("other"))).close()
    assert path.stat().st_mode & 0o777 == 0o640


def test_names_may_be_odd(tmp_path: Path) -> None:
    """They mean a file, whatever a URI would make of them."""
    for name in ("a?mode=memory", "per%41cent", "hash#1", ":memory:", "größe 中", "a&b=c"):
        Checkpoint(str(tmp_path / name)).close()
        assert (tmp_path / name).stat().st_size > 0


def test_another_programs_database_is_left_alone(path: Path) -> None:
    """It is refused, and not one byte of it changes."""
    database(path, "CREATE TABLE answers (asked, reply)", "INSERT INTO answers VALUES (1, 2)")
    before = path.read_bytes()
    assert "another program's" in str(refused(path))
    assert path.read_bytes() == before
    database(path.with_name("versioned"), "PRAGMA user_version = 1")
    assert "another program's" in str(refused(path.with_name("versioned")))


def test_another_version_is_told(path: Path) -> None:
    """It is refused, and stays as it is."""
    Checkpoint(str(path)).close()
    database(path, f"PRAGMA user_version = {VERSION + 1}")
    assert f"version {VERSION}: this one is of version {VERSION + 1}" in str(refused(path))
    database(path, f"PRAGMA user_version = {VERSION}")
    Checkpoint(str(path)).close()


@pytest.mark.parametrize(
    "content", [b"not a database, but longer than a header of SQLite is: " * 20, b"short", b"\x00" * 4096]
)
def test_what_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    """It is refused, and not overwritten."""
    path.write_bytes(content)
    assert "does not exist yet" in str(refused(path))
    assert path.read_bytes() == content


def test_a_broken_file_is_told(path: Path) -> None:
    """Whatever SQLite has to say of it."""
    database(path, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {VERSION}")
    database(path, "CREATE TABLE answers (other)")
    assert "no such column" in str(refused_keys(path))
    torn = path.with_name("torn")
    checkpoint = Checkpoint(str(torn))
    checkpoint.write([(b"%d" % number, "x" * 100) for number in range(MOST_AT_ONCE)])
    checkpoint.close()
    torn.write_bytes(torn.read_bytes()[:5000] + b"\xff" * 4000)
    assert "malformed" in str(refused(torn))


def refused_keys(path: Path) -> ConfigurationError:
    """Return how the first reading is refused."""
    checkpoint = Checkpoint(str(path))
    with pytest.raises(ConfigurationError) as caught:
        checkpoint.keys()
    checkpoint.close()
    return caught.value


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    """A directory, a device, a pipe, a link that leads nowhere, a place where no file can be."""
    (tmp_path / "link").symlink_to(tmp_path / "missing" / "file")
    os.mkfifo(str(tmp_path / "pipe"))
    for path in (tmp_path, tmp_path / "link", tmp_path / "pipe", "/dev/null"):
        assert "this is no file" in str(refused(path))
    assert "No such file or directory" in str(refused(tmp_path / "missing" / "run.sqlite"))
    assert "null" in str(refused("a\0b"))
    (tmp_path / "file").touch()
    assert "Not a directory" in str(refused(tmp_path / "file" / "run.sqlite"))


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A directory that everybody can enter, while this process is nobody; without privileges it is what it was."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        Checkpoint(str(Path(home) / "run.sqlite")).close()
        (Path(home) / "run.sqlite").chmod(0o444)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        Path(home).chmod(0o555) if user else None
        yield Path(home)
        os.seteuid(user)
        Path(home).chmod(0o755)


def test_what_cannot_be_written_is_told(nobodys: Path) -> None:
    """A file that is only to be read, and a directory in which none can be made."""
    assert "can be read and written" in str(refused(nobodys / "run.sqlite"))
    assert "Permission denied" in str(refused(nobodys / "new.sqlite"))


def test_one_at_a_time_has_it(path: Path) -> None:
    """In one process as between several; it is free as soon as it is closed."""
    first = Checkpoint(str(path))
    assert "no other map" in str(refused(path))
    first.write([(b"a", "1")])
    first.close()
    second = Checkpoint(str(path))
    assert second.keys() == {b"a"}
    second.close()


#: Opens the checkpoint, says whether it could, and holds it until its standard input ends.
HOLDER = """
import sys
from syncfailover import ConfigurationError
from syncfailover.state.checkpoint import Checkpoint
sys.stdin.readline()
try:
    checkpoint = Checkpoint(sys.argv[1])
    checkpoint.write([(b"key", "answer")])
    print("mine", flush=True)
except ConfigurationError as error:
    print(error, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holders(path: Path) -> Iterator[Callable[[int], Any]]:
    """A function that makes processes that want the checkpoint."""
    started = []

    def start(count: int) -> Any:
        for _ in range(count):
            command = [sys.executable, "-c", HOLDER, str(path)]
            started.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("exists", [True, False])
def test_of_several_that_come_at_once_one_has_it(
    path: Path, holders: Callable[[int], Any], exists: bool
) -> None:
    """The others are told; when it is killed the file is free at once, with what it wrote."""
    if exists:
        Checkpoint(str(path)).close()
    processes = holders(4)
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in processes]
    assert said.count("mine\n") == 1, said
    assert sum("no other map" in line for line in said) == 3
    processes[said.index("mine\n")].kill()
    processes[said.index("mine\n")].wait()
    checkpoint = Checkpoint(str(path))
    assert checkpoint.keys() == {b"key"}
    checkpoint.close()
