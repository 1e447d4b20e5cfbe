"""Peers: the thread that talks to the store, what becomes of a store that misbehaves, and calls where no thread can run."""

import contextlib
import gc
import logging
import os
import sqlite3
import sys
import threading
import time
import types
import weakref
from pathlib import Path
from typing import Any, Callable, Iterator, List, Set

import pytest
from children import in_child
from fleet import endpoints_of

from syncfailover import EndpointRegistry, FailoverClient, HealthMonitor, HealthStatus
from syncfailover.runtime import monitor as monitors
from syncfailover.runtime import peers as peers_module
from syncfailover.runtime import process
from syncfailover.state.sqlite import SqliteStore
from syncfailover.state.store import StoreBusy, StoreError
from syncfailover.testing import FakeUpstream, Status

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Watched(SqliteStore):
    """A store that knows who uses it, and that can be made to hang, to fail, and to live in another time."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.users: Set[int] = set()
        self.trouble: Any = None
        self.go = threading.Event()
        self.go.set()
        self.ahead_s = 0.0

    def now(self) -> float:
        """Return Unix seconds by a clock that may be wrong."""
        return super().now() + self.ahead_s

    @contextlib.contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        self.users.add(threading.get_ident())
        self.go.wait(20.0)
        if self.trouble is not None:
            raise self.trouble
        with super()._alone() as db:
            yield db

    def _close(self) -> None:
        if self._db is not None:
            self.users.add(threading.get_ident())
        super()._close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file that does not exist yet."""
    return str(tmp_path / "health.db")


@pytest.fixture
def stores(path: str, monkeypatch: Any) -> List[Watched]:
    """All stores that are made in this test, each of which is watched."""
    made: List[Watched] = []

    def store_of(_state: Any) -> Watched:
        made.append(Watched(path))
        return made[-1]

    monkeypatch.setattr(peers_module, "store_of", store_of)
    return made


@pytest.fixture
def join(upstreams: List[FakeUpstream], path: str) -> Iterator[Callable[..., FailoverClient]]:
    """A function that makes clients which share the file, as processes would; closed after the test."""
    made: List[FailoverClient] = []

    def make(endpoints: Any = None, **options: Any) -> FailoverClient:
        options = {"probe_interval": 0.5, "probe_timeout": 2.0, "timeout": 5.0, "max_retries": 2, **options}
        options = {"fall": 1, "recovery_timeout": 20.0, **options}
        made.append(
            FailoverClient(
                endpoints or endpoints_of(upstreams), model="gpt-4.1", state=f"sqlite:///{path}", **options
            )
        )
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def threadless(monkeypatch: Any) -> Any:
    """Let no thread start from now on, until it is called."""
    start = process.start_thread

    def refuse(_target: Any, name: str, *_args: Any) -> Any:
        raise process.NoThread("can't start new thread at interpreter shutdown")  # which is not warned of

    monkeypatch.setattr(process, "start_thread", refuse)
    return lambda: monkeypatch.setattr(process, "start_thread", start)


def peers_of(client: FailoverClient) -> Any:
    """Return the peers of a client."""
    return client.registry.peers


def leases(client: FailoverClient) -> int:
    """Count the endpoints that a client has the right to probe."""
    return sum(peers_of(client)._talk.may_probe(endpoint.name) for endpoint in client.registry.endpoints)


def eventually(what: Callable[[], Any], within_s: float = 5.0) -> bool:
    """Wait until something holds; tell whether it does in time."""
    deadline = time.monotonic() + within_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def talkers() -> List[threading.Thread]:
    """Return the threads that talk to stores."""
    return [thread for thread in threading.enumerate() if thread.name == "syncfailover-peers"]


def shared(client: FailoverClient) -> bool:
    """Tell whether a client says that it shares."""
    return client.status().state == "shared"


def warnings(caplog: Any) -> List[str]:
    """Return what was warned of the store."""
    return [
        r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "state: " in r.getMessage()
    ]


def status_of(client: FailoverClient, name: str) -> str:
    """Tell what a client thinks of an endpoint's health."""
    return client.status()[name].status.value


# Who does what


def test_no_call_touches_the_store(stores: List[Watched], join: Any, upstreams: List[FakeUpstream]) -> None:
    """Neither calls that are answered, nor those that fail, nor questions, nor operators, nor `close`: a thread does."""
    client = join()
    upstreams[0].calls.always(Status(503))
    for _ in range(6):
        client.chat("Hi")
    client.status()
    client.metrics()
    client.registry.force_open("b")
    client.registry.reset("b")
    assert eventually(lambda: shared(client))
    thread = talkers()[0]
    client.close()
    assert not thread.is_alive()
    assert stores[0].users == {thread.ident}


def test_a_client_opens_nothing_before_its_first_call(
    stores: List[Watched], join: Any, path: str, caplog: Any
) -> None:
    """It may be made before a fork, or never used."""
    client = join()
    assert client.status().state == "alone"
    client.close()
    assert not Path(path).exists()
    assert not stores[0].users
    assert not warnings(caplog)


def test_one_probes_and_the_others_read(join: Any, upstreams: List[FakeUpstream]) -> None:
    """All know what one finds out, and each endpoint is probed once per interval."""
    clients = [join() for _ in range(3)]
    for client in clients:
        client.chat("Hi")
    assert eventually(lambda: sorted(map(leases, clients)) == [0, 0, 3])
    upstreams[0].kill()
    assert eventually(lambda: all(status_of(client, "a") == "unhealthy" for client in clients))
    upstreams[1].clear_log()
    time.sleep(1.5)
    assert 2 <= len(upstreams[1].probes.requests) <= 4


def test_who_closes_gives_up_its_leases(join: Any) -> None:
    """Another one has them at the next look, long before they are over."""
    first, second = join(probe_interval=20.0), join(probe_interval=20.0)
    first.chat("Hi")
    assert eventually(lambda: leases(first) == 3)
    second.chat("Hi")
    assert leases(second) == 0
    first.close()
    third = join(probe_interval=20.0)
    third.chat("Hi")
    assert eventually(lambda: leases(third) == 3, 1.0)


def test_a_monitor_of_ones_own_probes(path: str, upstreams: List[FakeUpstream]) -> None:
    """Made by hand, for a registry that shares, it is elected like any other."""
    registry = EndpointRegistry(endpoints_of(upstreams), state=f"sqlite:///{path}")
    monitor = HealthMonitor(registry, interval=0.2, timeout=0.2)
    monitor.start()
    assert registry.wait_for(lambda now: all(s.status is HealthStatus.HEALTHY for s in now.endpoints), 3.0)
    assert eventually(lambda: len(upstreams[0].probes.requests) > 3)
    monitor.close()


def test_a_lease_whose_holder_says_nothing(
    stores: List[Watched], join: Any, upstreams: List[FakeUpstream]
) -> None:
    """Endpoints that somebody else has the right to probe, and tells nothing of, are probed all the same."""
    client = join(probe_interval=0.2, probe_timeout=0.1)
    silent = SqliteStore(stores[0].path)
    assert len(silent.lease(list(peers_of(client).gossip.identities.values()), "0" * 32, 60.0)) == 3
    client.chat("Hi")
    assert eventually(lambda: status_of(client, "a") == "healthy")
    assert leases(client) == 0
    silent.close()


# Beginning and ending


def test_a_registry_is_shared_again_by_the_next_client(path: str, upstreams: List[FakeUpstream]) -> None:
    """Closed and begun anew, several times: one thread, a store that is open, and the right to probe."""
    registry = EndpointRegistry(endpoints_of(upstreams), state=f"sqlite:///{path}", probe_interval=0.5)
    before = set(talkers())
    for _ in range(3):
        client = FailoverClient(registry, model="gpt-4.1")
        client.chat("Hi")
        assert eventually(lambda client=client: shared(client) and leases(client) == 3)
        assert len(set(talkers()) - before) == 1
        client.close()
        assert set(talkers()) <= before
        assert eventually(lambda client=client: client.status().state == "alone")


def test_the_talk_goes_on_for_whoever_is_left(path: str, upstreams: List[FakeUpstream]) -> None:
    """Of two monitors of one registry, the end of one is not the end of the talk."""
    registry = EndpointRegistry(endpoints_of(upstreams), state=f"sqlite:///{path}", probe_interval=0.5)
    first, second = (FailoverClient(registry, model="m", probe_when=when) for when in ("always", "never"))
    for client in (first, second):
        client.chat("Hi")
    second.close()
    assert eventually(lambda: shared(first) and leases(first) == 3)
    time.sleep(0.6)
    assert shared(first)
    first.close()
    assert eventually(lambda: registry.snapshot().state == "alone")


def test_a_client_that_is_dropped_ends_its_thread(stores: List[Watched], join: Any, path: str) -> None:
    """Without `close()`: no thread, no open file, no cycle that only the collector could free."""
    before, files = set(talkers()), open_files(path)
    gc.collect()
    gc.disable()
    try:
        client = FailoverClient(join().registry.endpoints, model="m", state=f"sqlite:///{path}")
        client.chat("Hi")
        known = weakref.ref(client)
        assert eventually(lambda: shared(known()))
        del client
        gc.enable()
        gc.collect()  # the client itself has cycles
        assert eventually(lambda: set(talkers()) <= before)
    finally:
        gc.enable()
    assert open_files(path) == files


def open_files(path: str) -> int:
    """Count the descriptors of a file and its log."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(descriptor).startswith(path)
    return found


def test_a_listener_may_close_the_client(join: Any, upstreams: List[FakeUpstream]) -> None:
    """It runs in the thread that heard the news, and nobody waits for himself."""
    first, second = join(), join()
    first.chat("Hi")
    second.chat("Hi")
    closed = threading.Event()

    def close(_event: Any) -> None:
        second.close()
        closed.set()

    second.on("breaker_opened", close)
    upstreams[0].calls.always(Status(503))
    while first.status()["a"].breaker.value != "open":
        first.chat("Hi")
    assert closed.wait(3.0)
    assert eventually(lambda: second.status().state == "alone")


# A store that misbehaves


def test_a_store_that_hangs_costs_no_call(
    stores: List[Watched], join: Any, upstreams: List[FakeUpstream]
) -> None:
    """The first call waits a moment, the others do not; probes go on; and when it is back all is well."""
    client = join(timeout=1.0, probe_interval=0.3)
    stores[0].go.clear()
    began = time.monotonic()
    for _ in range(5):
        client.chat("Hi")
    assert time.monotonic() - began < 1.0
    assert eventually(lambda: status_of(client, "a") == "healthy", 2.5), "it is probed as without a store"
    upstreams[0].kill()
    assert eventually(lambda: status_of(client, "a") == "unhealthy")
    stores[0].go.set()
    assert eventually(lambda: shared(client) and leases(client) == 3)


def test_close_does_not_wait_for_a_store_that_hangs(stores: List[Watched], join: Any) -> None:
    """But a second; the thread ends when it can."""
    client = join()
    client.chat("Hi")
    assert eventually(lambda: shared(client))
    stores[0].go.clear()
    thread = talkers()[0]
    assert eventually(peers_of(client)._talking.locked)
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 3.0
    stores[0].go.set()
    thread.join(5.0)
    assert not thread.is_alive()


def test_a_file_that_is_busy_for_a_moment_is_no_trouble(join: Any, path: str, caplog: Any) -> None:
    """Another program that has it for half a second is waited for, without a word."""
    client = join()
    client.chat("Hi")
    assert eventually(lambda: shared(client))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        time.sleep(0.5)
        assert client.chat("Hi").text
        db.execute("COMMIT")
    assert eventually(lambda: leases(client) == 3)
    assert shared(client)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (StoreError("/x: disk I/O error"), "/x: disk I/O error"),
        (StoreBusy("/x: database is locked"), "/x: database is locked"),
        (AttributeError("sk-secret"), "sqlite: AttributeError"),
    ],
)
def test_trouble_is_told_once_and_overcome(
    trouble: Exception, why: str, stores: List[Watched], join: Any, upstreams: List[FakeUpstream], caplog: Any
) -> None:
    """One warning, whatever it is; everything works as without a store; and when it is over all share again."""
    first, second = join(probe_interval=0.2), join(probe_interval=0.2)
    for client in (first, second):
        client.chat("Hi")
    assert eventually(lambda: shared(first) and shared(second))
    stores[0].trouble = trouble
    assert eventually(lambda: not shared(first))
    upstreams[0].kill()
    assert eventually(lambda: status_of(first, "a") == "unhealthy")
    assert all(first.chat("Hi").text for _ in range(3))
    stores[0].trouble = None
    assert eventually(lambda: shared(first))
    upstreams[1].kill()
    assert eventually(lambda: status_of(first, "b") == status_of(second, "b") == "unhealthy")
    assert warnings(caplog) == [f"state: {why}; going on without it, and trying again"]


def test_what_was_found_out_while_the_store_was_away_is_told_when_it_is_back(
    stores: List[Watched], join: Any, upstreams: List[FakeUpstream]
) -> None:
    """A breaker that opened meanwhile is open for all."""
    first, second = (join(probe_when="never") for _ in range(2))
    for client in (first, second):
        client.chat("Hi")
    assert eventually(lambda: shared(first) and shared(second))
    stores[0].trouble = StoreError("away")
    upstreams[0].calls.always(Status(503))
    while first.status()["a"].breaker.value != "open":
        first.chat("Hi")
    assert second.status()["a"].breaker.value == "closed"
    stores[0].trouble = None
    assert eventually(lambda: second.status()["a"].breaker.value == "open")


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 20.0, -20.0])
def test_a_wall_clock_that_is_put_right(
    seconds: float, stores: List[Watched], join: Any, upstreams: List[FakeUpstream], caplog: Any
) -> None:
    """For all at once, as on one host: news goes on being heard, and what was known is known to who comes later."""
    first, second = join(), join()
    upstreams[0].calls.always(Status(503))
    first.chat("Hi")
    second.chat("Hi")
    while first.status()["a"].breaker.value != "open":
        first.chat("Hi")
    for store in stores:
        store.ahead_s = seconds
    upstreams[1].kill()
    assert eventually(lambda: status_of(first, "b") == status_of(second, "b") == "unhealthy")
    assert eventually(lambda: leases(first) + leases(second) == 3)
    third = join(probe_when="never")
    stores[-1].ahead_s = seconds
    assert eventually(lambda: Watched.read(stores[0], [peers_of(third).gossip.identities["a"]]))
    time.sleep(0.3)
    third.chat("Hi")
    assert third.status()["a"].breaker.value == "open"
    assert len(warnings(caplog)) <= 2, "an entry that comes from the future, at most once for each"


def test_poison_is_told_of_once(join: Any, path: str, caplog: Any) -> None:
    """However much of it there is; what is right beside it is heard."""
    first, second = join(probe_when="never"), join(probe_when="never")
    first.chat("Hi")
    first.registry.decide(lambda pool: [pool.knowledge._rest_key(pool.nodes["b"], 60.0, "r", first.registry.clock(), by_probe=False), pool.knowledge.news.add("b")])  # fmt: skip
    assert eventually(lambda: os.path.getsize(path + "-wal") > 0)  # noqa: PTH202
    ids = peers_of(first).gossip.identities
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for kind, data in (("health", b"[]"), ("breaker", b"\xff" * 9000), ("nonsense", b"{}")):
            row = (ids["a"], kind, time.time(), time.time() + 60, data)
            db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", row)
    second.chat("Hi")
    assert eventually(lambda: "key rests" in second.status()["b"].reason)
    time.sleep(0.6)
    told = [text for text in warnings(caplog) if "ignored" in text]
    assert len(told) == len(set(map(id, told))) <= 2, "one of each client"
    assert all("state: sqlite: an entry is ignored: " in text for text in told)
    assert shared(second)


# Where no thread can run


def test_calls_talk_where_no_thread_can_run(
    threadless: Any, join: Any, upstreams: List[FakeUpstream]
) -> None:
    """What one finds out the other's next calls know, and both say that they are passive, and share."""
    first, second = join(probe_interval=0.2), join(probe_interval=0.2)
    first.chat("Hi")
    second.chat("Hi")
    assert (first.status().mode, first.status().state) == ("passive", "shared")
    upstreams[0].calls.always(Status(503))
    while first.status()["a"].breaker.value != "open":
        first.chat("Hi")
    first.chat("Hi")  # tells it

    def heard() -> bool:
        second.chat("Hi")
        return second.status()["a"].breaker.value == "open"

    assert eventually(heard)
    assert not talkers()


def test_what_the_last_call_found_out_is_told_at_the_end(
    threadless: Any, join: Any, upstreams: List[FakeUpstream]
) -> None:
    """Where no thread can run, `close`, or the end of the program, tells it."""
    endpoints = [endpoint.replace(priority=n) for n, endpoint in enumerate(endpoints_of(upstreams))]
    for nth, end in enumerate(("close", "farewell")):
        upstream = upstreams[nth]
        first = join(endpoints[nth:], probe_when="never")
        first.chat("Hi")
        upstream.script(Status(401))
        first.chat("Hi")
        if end == "close":
            first.close()
        else:
            peers_of(first).farewell(time.monotonic())
        upstream.clear_log()
        second = join(endpoints[nth:], probe_when="never")
        assert second.chat("Hi").endpoint == endpoints[nth + 1].name
        assert not upstream.calls.requests


def test_a_locked_file_holds_up_no_passive_call(
    threadless: Any, join: Any, path: str, upstreams: List[FakeUpstream], caplog: Any
) -> None:
    """A call gives it a moment, once in an interval at most; there is one warning."""
    client = join(probe_interval=0.2)
    client.chat("Hi")
    upstreams[0].calls.always(Status(503))  # there is something to tell
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        began, longest = time.monotonic(), 0.0
        while time.monotonic() < began + 2.0:
            before = time.monotonic()
            client.chat("Hi")
            longest = max(longest, time.monotonic() - before)
        db.execute("COMMIT")
    assert longest < 0.5
    assert len(warnings(caplog)) == 1

    def healed() -> bool:
        client.chat("Hi")
        return shared(client)

    assert eventually(healed)


def test_threads_that_come_back_take_over(
    threadless: Any, join: Any, monkeypatch: Any, upstreams: List[FakeUpstream]
) -> None:
    """When there are threads again, one talks and one probes."""
    monkeypatch.setattr(monitors, "_NO_THREAD_S", 0.2)
    client = join()
    client.chat("Hi")
    assert client.status().mode == "passive"
    threadless()
    time.sleep(0.2)

    def back() -> bool:
        client.chat("Hi")
        return client.status().mode == "active" and leases(client) == 3

    assert eventually(back)
    assert len(talkers()) == 1


def test_one_thread_too_few_is_for_the_probes(
    join: Any, monkeypatch: Any, upstreams: List[FakeUpstream]
) -> None:
    """Where the monitor got its thread and the peers did not, endpoints are probed, and calls talk."""
    start = process.start_thread

    def refuse_one(target: Any, name: str, *args: Any) -> Any:
        if name == "syncfailover-peers":
            raise process.NoThread("can't start new thread at interpreter shutdown")
        return start(target, name, *args)

    monkeypatch.setattr(process, "start_thread", refuse_one)
    client, other = join(probe_interval=0.2), join(probe_interval=0.2)
    assert eventually(lambda: client.chat("Hi") and status_of(client, "a") == "healthy", 2.0)
    upstreams[0].calls.always(Status(401))
    while "key rests" not in client.status()["a"].reason:
        client.chat("Hi")
    client.chat("Hi")
    other.chat("Hi")
    assert "key rests" in other.status()["a"].reason


# Forks


def test_a_child_shares_on_its_own(stores: List[Watched], join: Any, upstreams: List[FakeUpstream]) -> None:
    """It has a thread and a connection of its own, and the parent's go on."""
    client = join()
    client.chat("Hi")
    assert eventually(lambda: leases(client) == 3 and status_of(client, "a") == "healthy")

    def work() -> Any:
        assert client.status().state == "alone"
        client.chat("Hi")
        assert eventually(lambda: shared(client) and status_of(client, "a") == "healthy")
        held = leases(client)
        client.close()
        return held

    for _ in range(2):
        assert in_child(work) == 0
    assert eventually(lambda: shared(client) and leases(client) == 3)
    upstreams[0].kill()
    assert eventually(lambda: status_of(client, "a") == "unhealthy")


def test_a_master_of_uwsgi_has_nothing_open_when_it_forks(join: Any, path: str, monkeypatch: Any) -> None:
    """It forks without a word: its calls talk, and close the file, so that its children can use it."""
    uwsgi: Any = types.ModuleType("uwsgi")
    master = os.getpid()
    uwsgi.masterpid = lambda: master
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    client = join()
    client.chat("Hi")
    assert (client.status().mode, client.status().state) == ("passive", "shared")
    assert open_files(path) == 0


def test_a_fork_by_a_listener(join: Any, upstreams: List[FakeUpstream]) -> None:
    """In the thread that talks, between two of its sentences: the child has a file of its own."""
    first, second = join(probe_when="never"), join(probe_when="never")
    first.chat("Hi")
    second.chat("Hi")
    assert eventually(lambda: shared(second))
    found: List[Any] = []

    def work() -> bool:
        second.chat("Hi")
        return eventually(lambda: shared(second))

    second.on("breaker_opened", lambda _event: found.append(in_child(work)))
    upstreams[0].calls.always(Status(503))
    while first.status()["a"].breaker.value != "open":
        first.chat("Hi")
    assert eventually(lambda: found)
    assert found == [True]
    assert shared(second)
