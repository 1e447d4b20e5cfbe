"""The SQLite store alone: several of them on one file, in threads and processes, and whatever may befall a file."""

import ctypes
import gc
import os
import random
import resource
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from children import Child, as_nobody, in_child

from syncfailover.policy.entry import BREAKER, HEALTH, LARGEST, LONGEST_S, SKEW_S
from syncfailover.runtime import process
from syncfailover.state.sqlite import SqliteStore
from syncfailover.state.store import Account, Record, StoreBusy, StoreError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

raw_fork: Callable[[], int] = ctypes.PyDLL(None).fork


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file that does not exist yet."""
    return str(tmp_path / "health.db")


@pytest.fixture
def store_at() -> Iterator[Callable[[str], SqliteStore]]:
    """A function that makes stores, closed after the test."""
    made: List[SqliteStore] = []

    def make(path: str) -> SqliteStore:
        made.append(SqliteStore(path))
        made[-1].open(print)
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def pair(path: str, store_at: Any) -> List[SqliteStore]:
    """Two stores on one file."""
    return [store_at(path), store_at(path)]


@pytest.fixture
def commons() -> Iterator[str]:
    """A directory that anybody may enter, unlike those of pytest."""
    directory = tempfile.mkdtemp()
    os.chmod(directory, 0o777)  # noqa: PTH101, S103 - for a child that is nobody
    yield directory
    os.chmod(directory, 0o700)  # noqa: PTH101
    shutil.rmtree(directory)


def record(at: float, data: bytes = b"data", endpoint: str = "a", kind: str = BREAKER) -> Record:
    """Make a record that lasts for a minute."""
    return Record(endpoint, kind, at, at + 60.0, data)


def sql(path: str, statement: str, *values: Any) -> List[Any]:
    """Do something to the file that no store would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(statement, values).fetchall()


def works(store: SqliteStore) -> bool:
    """Tell whether everything can be done."""
    now = store.now()
    store.open(print)
    store.write([record(now, b"works")], {})
    store.settle([Account("n", 1.0)])
    token = store.lease(["z"], "f" * 32, 5.0)
    store.release(["z"], "f" * 32)
    return bool(token) and ("a", BREAKER, b"works") in store.read(["a"])


def works_beside_another(store: SqliteStore) -> bool:
    """Tell the same where another process writes as well, for which a store waits but a moment."""
    while True:
        with suppress(StoreBusy):
            return works(store)


# Entries


def test_what_one_writes_the_other_reads(pair: List[SqliteStore]) -> None:
    """Of the endpoints that are asked for, byte by byte."""
    one, two = pair
    now = one.now()
    one.write([record(now, b"\0\xff", "a"), record(now, b"b", "b"), record(now, b"c", "a", HEALTH)], {})
    assert sorted(two.read(["a"])) == [("a", BREAKER, b"\0\xff"), ("a", HEALTH, b"c")]
    assert two.read(["b", "c"]) == [("b", BREAKER, b"b")]
    assert two.read([]) == []


def test_only_what_others_write_is_news(pair: List[SqliteStore]) -> None:
    """Once, and however cheap it is to ask."""
    one, two = pair
    for store in pair:
        store.has_news()
    one.write([record(one.now())], {})
    assert not one.has_news()
    assert two.has_news()
    assert not two.has_news()


def test_the_newest_is_kept(pair: List[SqliteStore]) -> None:
    """Whoever writes last, what became so last stays."""
    one, two = pair
    now = one.now()
    one.write([record(now, b"new")], {})
    two.write([record(now - 1.0, b"old"), record(now, b"same")], {})
    assert one.read(["a"]) == [("a", BREAKER, b"new")]
    two.write([record(now + 0.001, b"newer")], {})
    assert one.read(["a"]) == [("a", BREAKER, b"newer")]


def test_what_comes_from_the_future_is_written_over(pair: List[SqliteStore]) -> None:
    """A clock that was wrong stops nobody, once it is right; a little ahead is no mistake."""
    one, two = pair
    for store in pair:
        store.write([], {})  # which sweeps for the first time
    now = one.now()
    one.write([record(now + SKEW_S + 60.0, b"wrong"), record(now + 1.0, b"ahead", "b")], {})
    two.write([record(now, b"right"), record(now, b"late", "b")], {})
    assert sorted(one.read(["a", "b"])) == [("a", BREAKER, b"right"), ("b", BREAKER, b"ahead")]


@pytest.mark.parametrize("at", ["NULL", "'soon'", "x'ff'", "1e308", "9e999"])
def test_a_time_that_is_none_is_written_over(at: str, path: str, pair: List[SqliteStore]) -> None:
    """Whatever somebody has put there."""
    one, two = pair
    sql(path, f"INSERT INTO entries VALUES ('a', '{BREAKER}', {at}, 9e999, 'poison')")  # noqa: S608
    one.write([record(one.now(), b"right")], {})
    assert two.read(["a"]) == [("a", BREAKER, b"right")]


def test_whatever_is_in_the_file_is_read_as_bytes(path: str, pair: List[SqliteStore]) -> None:
    """Texts, numbers and nothing become bytes, ten megabytes are cut, and a row without a name is left out."""
    rows: List[Any] = [("text", "é"), ("number", 12.5), ("nothing", None), ("large", bytes(10_000_000))]
    for kind, data in rows:
        sql(path, "INSERT INTO entries VALUES ('a', ?, 1, 9e9, ?)", kind, data)
    sql(
        path,
        "INSERT INTO entries VALUES (NULL, 'k', 1, 9e9, 'x'), ('a', NULL, 1, 9e9, 'x'), ('a', x'00', 1, 9e9, 'x')",
    )
    found = {kind: data for _endpoint, kind, data in pair[0].read(["a"])}
    assert found.pop("large") == bytes(LARGEST + 1)
    assert found == {"text": "é".encode(), "number": b"12.5", "nothing": b""}


def test_what_is_over_is_swept_away(path: str, store_at: Any) -> None:
    """Old entries, leases and accounts go; what counts stays, and so does what another process sweeps."""
    store, now = store_at(path), time.time()
    store.write([record(now - 100.0, endpoint="over"), record(now, endpoint="kept")], {})
    store.settle([Account("kept", 1.0), Account("over", 1.0)])
    store.lease(["kept", "over"], "f" * 32, 60.0)
    sql(path, "UPDATE leases SET until = ? WHERE endpoint = 'over'", now - 1000.0)
    sql(path, "UPDATE accounts SET at = ? WHERE name = 'over'", now - 90_000.0)
    for endpoint, at, until in (
        ("future", now + 90, now + 120),
        ("ages", now, now + 2 * LONGEST_S),
        ("null", None, None),
    ):
        sql(path, "INSERT INTO entries VALUES (?, 'k', ?, ?, 'x')", endpoint, at, until)
    store.now = lambda: now + 61.0
    store.write([record(now + 61.0, endpoint="last")], {})
    assert sorted(sql(path, "SELECT endpoint FROM entries")) == [("last",)]
    assert sql(path, "SELECT endpoint FROM leases") == [("kept",)]
    assert sql(path, "SELECT name FROM accounts") == [("kept",)]


def test_more_endpoints_than_a_statement_takes(path: str, store_at: Any) -> None:
    """Thousands are read and leased in portions."""
    store = store_at(path)
    endpoints = [f"endpoint-{n}" for n in range(1200)]
    store.write([record(store.now(), b"x", endpoint) for endpoint in endpoints], {})
    assert len(store.read(endpoints)) == 1200
    assert len(store.lease(endpoints, "f" * 32, 5.0)) == 1200


# Leases


def test_one_has_the_right_to_probe(pair: List[SqliteStore]) -> None:
    """The first gets it and keeps it, with the same token; nobody else does meanwhile, but for what is free."""
    one, two = pair
    tokens = one.lease(["a", "b"], "1", 5.0)
    assert sorted(tokens) == ["a", "b"]
    assert two.lease(["a", "b", "c"], "2", 5.0).keys() == {"c"}
    assert one.lease(["a", "b", "c"], "1", 5.0) == tokens


def test_looking_at_the_leases_of_others_writes_nothing(pair: List[SqliteStore]) -> None:
    """Those who only wait disturb nobody."""
    one, two = pair
    one.lease(["a"], "1", 5.0)
    one.has_news()
    for _ in range(3):
        assert two.lease(["a"], "2", 5.0) == {}
    assert not one.has_news()


def test_whoever_does_not_renew_is_replaced(pair: List[SqliteStore]) -> None:
    """When its time is over another one gets it, with a greater token; the first one gets it back no more."""
    one, two = pair
    now = time.time()
    one.now, two.now = (lambda: now), (lambda: now + 4.9)
    old = one.lease(["a"], "1", 5.0)
    assert two.lease(["a"], "2", 5.0) == {}
    two.now = lambda: now + 5.1
    new = two.lease(["a"], "2", 5.0)
    assert new["a"] > old["a"]
    one.now = lambda: now + 5.2
    assert one.lease(["a"], "1", 5.0) == {}


def test_who_gives_it_up_is_replaced_at_once(pair: List[SqliteStore]) -> None:
    """And nobody can give up what another one has."""
    one, two = pair
    old = one.lease(["a"], "1", 60.0)
    two.release(["a"], "2")
    assert two.lease(["a"], "2", 60.0) == {}
    one.release(["a"], "1")
    assert two.lease(["a"], "2", 60.0)["a"] > old["a"]


@pytest.mark.parametrize("until", ["NULL", "'forever'", "x'ff'", "9e999", "1e15"])
@pytest.mark.parametrize("token", ["NULL", "'many'", "9223372036854775807", "-7", "1e300"])
def test_a_lease_that_cannot_be_is_none(until: str, token: str, path: str, pair: List[SqliteStore]) -> None:
    """Whatever somebody has put there, somebody gets the right to probe, and may write what it finds."""
    sql(path, f"INSERT INTO leases VALUES ('a', NULL, {token}, {until})")  # noqa: S608
    tokens = pair[0].lease(["a"], "1", 5.0)
    assert tokens.keys() == {"a"}
    pair[0].write([record(pair[0].now(), kind=HEALTH)], tokens)
    assert pair[1].read(["a"])


def test_probes_of_who_has_lost_the_right_are_not_kept(pair: List[SqliteStore]) -> None:
    """Frozen, and awake again when another one probes: its health is not, what its calls found out is."""
    one, two = pair
    now = time.time()
    one.now = two.now = lambda: now
    old = one.lease(["a"], "1", 5.0)
    one.now = two.now = lambda: now + 6.0
    new = two.lease(["a"], "2", 5.0)
    two.write([record(now + 6.0, b"new", kind=HEALTH)], new)
    one.write([record(now + 6.5, b"old", kind=HEALTH), record(now + 6.5, b"call")], old)
    assert sorted(one.read(["a"])) == [("a", BREAKER, b"call"), ("a", HEALTH, b"new")]
    two.write([record(now + 7.0, b"newer", kind=HEALTH)], new)
    assert ("a", HEALTH, b"newer") in one.read(["a"])


def test_who_has_no_right_may_tell_of_probes_while_nobody_has(pair: List[SqliteStore]) -> None:
    """Processes without threads take turns, also when one with threads has been there before."""
    one, two = pair
    two.write([record(two.now() - 3.0, b"first", kind=HEALTH)], {})
    assert one.read(["a"]) == [("a", HEALTH, b"first")]
    one.lease(["a"], "1", 60.0)
    two.write([record(two.now() - 2.0, b"meanwhile", kind=HEALTH)], {})
    assert one.read(["a"]) == [("a", HEALTH, b"first")]
    one.release(["a"], "1")
    two.write([record(two.now() - 1.0, b"after", kind=HEALTH)], {})
    assert one.read(["a"]) == [("a", HEALTH, b"after")]


# Accounts


def test_what_all_earn_and_spend_adds_up(pair: List[SqliteStore]) -> None:
    """An account with a bound begins full; time fills it; none is ever less than empty."""
    one, two = pair
    now = time.time()
    one.now = two.now = lambda: now
    assert one.settle([Account("r", -3.0, 10.0, 1.0), Account("usd", 0.25)]) == {"r": 7.0, "usd": 0.25}
    assert two.settle([Account("r", -9.0, 10.0, 1.0), Account("usd", 0.5)]) == {"r": 0.0, "usd": 0.75}
    one.now = lambda: now + 4.0
    assert one.settle([Account("r", 0.5, 10.0, 1.0)]) == {"r": 4.5}
    one.now = lambda: now + 100.0
    assert one.settle([Account("r", 0.0, 10.0, 1.0)]) == {"r": 10.0}


def test_to_ask_for_accounts_writes_nothing(pair: List[SqliteStore]) -> None:
    """Where nothing was earned or spent, nobody is disturbed."""
    one, two = pair
    one.settle([Account("r", -3.0, 10.0)])
    one.has_news()
    assert two.settle([Account("r", 0.0, 10.0), Account("usd", 0.0)]) == {"r": 7.0, "usd": 0.0}
    assert not one.has_news()


@pytest.mark.parametrize("amount", ["NULL", "'much'", "x'ff'", "9e999"])
@pytest.mark.parametrize("at", ["NULL", "'now'", "-9e999"])
def test_an_account_that_cannot_be_is_new(amount: str, at: str, path: str, pair: List[SqliteStore]) -> None:
    """Whatever somebody has put there."""
    for name in ("r", "usd"):
        sql(path, f"INSERT INTO accounts VALUES ('{name}', {amount}, {at})")  # noqa: S608
    assert pair[0].settle([Account("r", -1.0, 10.0), Account("usd", 0.5)]) == {"r": 9.0, "usd": 0.5}


def test_nothing_that_eight_processes_add_is_lost(path: str, store_at: Any) -> None:
    """However they come in one another's way."""

    def add() -> int:
        store, done = SqliteStore(path), 0
        while done < 25:
            with suppress(StoreBusy):
                store.settle([Account("usd", 1.0)])
                done += 1
        store.close()
        return done

    children = [Child(add) for _ in range(8)]
    assert sum(child.result() for child in children) == 200
    assert store_at(path).settle([Account("usd", 0.0)]) == {"usd": 200.0}


# Several at once


def test_eight_processes_make_one_file(path: str, store_at: Any) -> None:
    """They begin at the same moment, none finds half a file or takes it for somebody else's, and one is elected."""
    start = time.monotonic() + 0.3

    def begin() -> Any:
        store = SqliteStore(path)
        time.sleep(max(0.0, start - time.monotonic()))
        while True:
            with suppress(StoreBusy):
                store.open(print)
                return store.lease(["a"], str(os.getpid()), 60.0)

    found = [child.result() for child in [Child(begin) for _ in range(8)]]
    assert sorted(found, key=len) == [{}] * 7 + [{"a": 1}]
    assert works(store_at(path))


def test_threads_that_write_and_read_at_once(path: str) -> None:
    """Each with a store of its own: whatever the order, the newest is there in the end, and no error but a busy file."""
    errors: List[BaseException] = []
    newest = time.time()

    def write(seed: int) -> None:
        chance, store = random.Random(seed), SqliteStore(path)  # noqa: S311 - no secret
        ages = [chance.uniform(0.001, 5.0) for _ in range(40)]
        if seed == 2:
            ages[20] = 0.0
        for age in ages:
            try:
                _until_it_can(lambda age=age: store.write([record(newest - age, repr(age).encode())], {}))
                _until_it_can(lambda: store.read(["a"]))
            except BaseException as error:  # noqa: BLE001 - told below
                errors.append(error)
        store.close()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sql(path, "SELECT data FROM entries") == [(b"0.0",)]


def _until_it_can(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10.0
    while True:
        try:
            what()
        except StoreBusy:
            assert time.monotonic() < deadline
        else:
            return


def test_who_is_killed_while_it_writes_leaves_no_trace(path: str, store_at: Any) -> None:
    """Half a transaction is none, and its lock ends with it."""
    store = store_at(path)
    store.write([record(store.now() - 1.0, b"whole")], {})
    store.close()
    reading, writing = os.pipe()

    def half() -> None:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE entries SET data = 'half'")
        os.write(writing, b"!")
        time.sleep(60.0)

    child = Child(half)
    os.read(reading, 1)
    with pytest.raises(StoreBusy):
        store.write([record(store.now())], {})
    assert store.read(["a"]) == [("a", BREAKER, b"whole")], "reading goes on meanwhile"
    child.kill()
    assert works(store)
    os.close(reading)
    os.close(writing)


# A file that cannot be used, and can again


def lock(path: str) -> sqlite3.Connection:
    """Lock the file as another program would, for longer than anybody waits."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    return db


def test_a_file_that_somebody_has_locked_is_not_waited_for(path: str, store_at: Any) -> None:
    """It takes a few milliseconds to say that it is busy; when the lock is gone all is well."""
    store = store_at(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StoreBusy, match="locked"):
            store.write([record(store.now())], {})
        assert time.monotonic() - began < 1.0
        db.execute("COMMIT")
    assert works(store)


def test_a_file_that_somebody_has_for_himself_is_not_waited_for(path: str) -> None:
    """Not even to open it."""
    sql(path, "CREATE TABLE t(x)")
    sql(path, "DROP TABLE t")
    store = SqliteStore(path)
    with closing(lock(path)) as db:
        began = time.monotonic()
        with pytest.raises(StoreBusy):
            store.open(print)
        assert time.monotonic() - began < 1.0
        db.execute("COMMIT")
    assert works(store)
    store.close()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not a database, but long enough to have a header" * 100, "not a database"),
        pytest.param(bytes(range(255, -1, -1)) * 32, "not a database", id="garbage"),
        (b"SQLite format 3\0" + bytes(84), "database"),
    ],
)
def test_what_is_no_database_is_left_alone(content: bytes, why: str, path: str) -> None:
    """It is told in one way, nothing is written, and a good file in its place is used."""
    Path(path).write_bytes(content)
    store = SqliteStore(path)
    for _ in range(2):
        with pytest.raises(StoreError, match=why):
            store.open(print)
    assert Path(path).read_bytes() == content
    Path(path).unlink()
    assert works(store)
    store.close()


@pytest.mark.parametrize(
    ("statements", "why"),
    [
        (["CREATE TABLE theirs(x)"], "another program's database"),
        (["PRAGMA application_id = 7"], "another program's database"),
        (["PRAGMA application_id = 0x7379666F", "PRAGMA user_version = 2"], "another version"),
    ],
)
def test_somebody_elses_database_is_left_alone(statements: List[str], why: str, path: str) -> None:
    """Another program's, or another version's: not a byte of it is changed."""
    for statement in statements:
        sql(path, statement)
    before = Path(path).read_bytes()
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=why):
        store.open(print)
    store.close()
    assert Path(path).read_bytes() == before
    assert not Path(path + "-wal").exists()


def test_an_empty_file_is_a_new_one(path: str, store_at: Any) -> None:
    """Somebody may have made it to give it its permissions."""
    Path(path).touch()
    assert works(store_at(path))


def test_tables_that_were_changed_are_told_of_like_any_trouble(path: str, store_at: Any) -> None:
    """A column or a table that is missing is no crash."""
    store = store_at(path)
    for statement in ("DROP TABLE leases", "ALTER TABLE entries RENAME TO other"):
        sql(path, statement)
    for use in (lambda: store.lease(["a"], "1", 5.0), lambda: store.read(["a"])):
        with pytest.raises(StoreError, match="no such table"):
            use()


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_file_that_is_cut_while_it_is_in_use(size: int, path: str, store_at: Any) -> None:
    """It is an error or it is none, but never a crash; whole again, it is used again."""
    store = store_at(path)
    store.write([record(store.now(), bytes(4000), f"e{n}") for n in range(20)], {})
    sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, size)
    for _ in range(3):
        with suppress(StoreError):
            works(store)
    store.close()
    for end in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(path + end)  # noqa: PTH108
    assert works(store)


def test_a_file_with_garbage_in_its_middle(path: str, store_at: Any) -> None:
    """A page that was written over is an error, not a crash."""
    store = store_at(path)
    store.write([record(store.now(), os.urandom(8000), f"e{n}") for n in range(50)], {})
    store.close()
    whole = bytearray(Path(path).read_bytes())
    whole[4096:] = os.urandom(len(whole) - 4096)
    Path(path).write_bytes(bytes(whole))
    for _ in range(2):
        with suppress(StoreError):
            works(store)
        store.close()
    Path(path).unlink()
    assert works(store)


@pytest.mark.parametrize("ends", [("",), ("-wal",), ("", "-wal", "-shm")])
def test_a_file_that_has_vanished_is_noticed(ends: Any, path: str, store_at: Any) -> None:
    """The file, its log, or all: nobody goes on alone in what the others cannot see."""
    store = store_at(path)
    store.write([record(store.now())], {})
    for end in ends:
        os.unlink(path + end)  # noqa: PTH108
    with pytest.raises(StoreError, match="vanished"):
        store.open(print)
    store.close()
    assert works(store)
    assert works(store_at(path))


def test_a_file_that_was_replaced_is_noticed(path: str, store_at: Any, tmp_path: Path) -> None:
    """By another one, whose log is not the old one's."""
    store = store_at(path)
    other = store_at(str(tmp_path / "other.db"))
    other.write([record(other.now() + 1.0, b"other")], {})
    other.close()
    (tmp_path / "other.db").rename(path)
    for end in ("-wal", "-shm"):
        os.unlink(path + end)  # noqa: PTH108
    with pytest.raises(StoreError, match="replaced"):
        store.open(print)
    store.close()
    assert store.read(["a"]) == [("a", BREAKER, b"other")]


def test_a_directory_that_vanishes_and_comes_back(tmp_path: Path, store_at: Any) -> None:
    """Without it there is trouble; with it a new file."""
    directory = tmp_path / "run"
    directory.mkdir()
    store = store_at(str(directory / "health.db"))
    shutil.rmtree(str(directory))
    with pytest.raises(StoreError):
        store.open(print)
    store.close()
    for _ in range(2):
        with pytest.raises(StoreError, match="unable to open"):
            store.open(print)
    directory.mkdir()
    assert works(store)


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_file_without_permission(mode: int, commons: str) -> None:
    """Nobody can write it: that is trouble; with permission all is well."""
    path = os.path.join(commons, "health.db")  # noqa: PTH118
    store = SqliteStore(path)
    assert works(store)
    store.close()
    os.chmod(path, mode)  # noqa: PTH101

    def use() -> str:
        limited = SqliteStore(path)
        with pytest.raises(StoreError) as caught:
            works(limited)
        limited.close()
        return str(caught.value)

    assert path in as_nobody(use)
    os.chmod(path, 0o666)  # noqa: PTH101, S103
    assert as_nobody(lambda: works(SqliteStore(path)))


def test_a_directory_without_permission(commons: str) -> None:
    """No new file can be made there, and no log beside one that is there."""
    path = os.path.join(commons, "health.db")  # noqa: PTH118
    os.chmod(commons, 0o555)  # noqa: PTH101, S103

    def use() -> None:
        with pytest.raises(StoreError):
            works(SqliteStore(path))

    as_nobody(use)
    os.chmod(commons, 0o777)  # noqa: PTH101, S103
    assert as_nobody(lambda: works(SqliteStore(path)))


def test_a_disk_that_is_full_and_has_room_again(path: str) -> None:
    """Writing is trouble while no file may grow, and goes on when it may."""

    def use() -> bool:
        store = SqliteStore(path)
        assert works(store)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path + "-wal"), hard))  # noqa: PTH202
        for _ in range(2):
            with pytest.raises(StoreError):
                store.write([record(store.now(), os.urandom(8000), f"e{n}") for n in range(50)], {})
        assert store.read(["a"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return works(store)

    assert in_child(use)


# Names


@pytest.mark.parametrize(
    "name", ["ä ö ü", "日本語🙂", 'it\'s "quoted"', "100%", "a#b&c=d", "x" * 200, "-", "file:x"]
)
def test_any_name_a_file_may_have(name: str, tmp_path: Path, store_at: Any) -> None:
    """It is the name of the file, and nothing else."""
    assert works(store_at(str(tmp_path / name)))
    assert (tmp_path / name).is_file()


def test_a_name_that_no_file_may_have(tmp_path: Path) -> None:
    """A null byte, or more than a name can hold, is trouble like any other."""
    for name in ("a\0b", "x" * 300):
        with pytest.raises(StoreError):
            SqliteStore(str(tmp_path / name)).open(print)


def test_a_path_is_relative_to_where_the_store_was_made(tmp_path: Path, monkeypatch: Any) -> None:
    """A daemon that changes its directory later has the same file."""
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("health.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert works(store)
    store.close()
    assert (tmp_path / "health.db").is_file()
    assert repr(store) == f"<SqliteStore {tmp_path / 'health.db'}>"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_files_modes_are_the_users_affair(umask: int, tmp_path: Path) -> None:
    """All of them are as the umask says, so that whoever can use one can use all."""
    path = str(tmp_path / "health.db")

    def modes() -> List[int]:
        os.umask(umask)
        store = SqliteStore(path)
        assert works(store)
        return [stat.S_IMODE(os.stat(path + end).st_mode) for end in ("", "-wal", "-shm")]  # noqa: PTH116

    assert in_child(modes) == [0o644 & ~umask] * 3


# Closing


def test_a_closed_store_opens_again(path: str, store_at: Any) -> None:
    """Closing twice is closing once, and the files beside it are gone with the last user."""
    store = store_at(path)
    assert works(store)
    store.close()
    store.close()
    assert not Path(path + "-wal").exists()
    assert works(store)


def test_a_store_that_is_dropped_closes_its_file(path: str) -> None:
    """Without a warning, and without a descriptor that is left."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    store = SqliteStore(path)
    assert works(store)
    del store
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Forks


class Keeper:
    """Does with a store what its peers do."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        process.register(self)
        process.register_held(store)

    def after_fork(self) -> None:
        """Leave it to the parent."""
        self.store.forsake()


def test_a_fork_with_an_open_file(path: str, store_at: Any) -> None:
    """Child and parent each have a connection that locks the file, and nobody deletes the log that another one uses."""
    store = store_at(path)
    keeper = Keeper(store)
    assert works(store)
    reading, writing = os.pipe()

    def use() -> Any:
        assert works_beside_another(store)
        os.read(reading, 1)  # the parent has closed the file by then
        assert Path(path + "-wal").exists(), "the parent thought that it was the last one"
        store.write([record(store.now(), b"child")], {})
        seen = Child(lambda: store_of_a_third(path)).result()
        store.close()
        return seen

    child = Child(use)
    assert works_beside_another(keeper.store)
    store.close()
    os.write(writing, b"!")
    assert child.result() == [("a", BREAKER, b"child")]
    assert store.read(["a"]) == [("a", BREAKER, b"child")]
    os.close(reading)
    os.close(writing)


def store_of_a_third(path: str) -> Any:
    """Read with a store of one's own."""
    store = SqliteStore(path)
    try:
        return store.read(["a"])
    finally:
        store.close()


def test_a_fork_while_a_thread_writes(path: str, store_at: Any) -> None:
    """It waits for the end of what is under way: no child begins with half a transaction, or a lock that nobody has."""
    store = store_at(path)
    keeper = Keeper(store)
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            with suppress(StoreBusy):
                keeper.store.write([record(store.now(), os.urandom(2000), f"e{n}") for n in range(20)], {})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            assert in_child(lambda: _can_in_the_end(store))
    finally:
        ended.set()
        writer.join()
    assert works(store)


def _can_in_the_end(store: SqliteStore) -> bool:
    _until_it_can(lambda: works(store))
    return True


def test_a_fork_without_a_hook_leaves_the_file_alone(path: str, store_at: Any) -> None:
    """The child could lock nothing; it says so, for every store on that file, and the parent goes on."""
    store = store_at(path)

    def use() -> List[str]:
        store.forsake()
        said = []
        for mine in (store, SqliteStore(path)):
            with pytest.raises(StoreError) as caught:
                mine.open(print)
            said.append(str(caught.value))
        return said

    assert in_child(use, raw_fork) == [f"{path} was open when this process was forked"] * 2
    assert works(store)
    assert Path(path + "-wal").exists()


def test_a_fork_without_a_hook_may_use_another_file(path: str, store_at: Any, tmp_path: Path) -> None:
    """One that is new in the place of the old one, too."""
    store = store_at(path)

    def use() -> bool:
        store.forsake()
        assert works(SqliteStore(str(tmp_path / "another.db")))
        for end in ("", "-wal", "-shm"):
            os.unlink(path + end)  # noqa: PTH108
        return works(store)

    assert in_child(use, raw_fork)


def test_a_fork_waits_for_nobody_for_long(path: str, store_at: Any) -> None:
    """Whoever does not let go in time is not waited for, and keeps what it has."""
    store = store_at(path)
    with store._using:
        began = time.monotonic()
        assert not store.before_fork(began + 0.05)
        assert 0.04 < time.monotonic() - began < 5.0
    assert store.before_fork(time.monotonic())
    store.after_fork_in_parent()
    assert works(store)
