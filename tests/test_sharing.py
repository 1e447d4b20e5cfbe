"""Processes of one host that share a file: what one learns all know, and a file that fails is nobody's trouble."""

import contextlib
import json
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from children import Child, as_nobody, in_child
from fleet import endpoints_of, probes_per_interval

from syncfailover import BudgetExceeded, FailoverClient, FailoverError
from syncfailover.policy.retry import RetryBudget
from syncfailover.state.sqlite import SqliteStore
from syncfailover.testing import FakeUpstream, Status

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

#: Seconds within which all know what one has learned.
SOON_S = 3.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file that does not exist yet, in a directory of its own."""
    (tmp_path / "run").mkdir()
    return str(tmp_path / "run" / "health.db")


@pytest.fixture
def join(upstreams: List[FakeUpstream], path: str) -> Iterator[Callable[..., FailoverClient]]:
    """A function that makes clients as processes of their own would; closed after the test."""
    made: List[FailoverClient] = []

    def make(endpoints: Any = None, **options: Any) -> FailoverClient:
        options = {"timeout": 5.0, "probe_when": "never", "state": f"sqlite:///{path}", **options}
        made.append(FailoverClient(endpoints or endpoints_of(upstreams), model="gpt-4.1", **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def eventually(what: Callable[[], Any], within_s: float = 6.0) -> bool:
    """Wait until something holds; tell whether it does in time."""
    deadline = time.monotonic() + within_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_open(client: FailoverClient, name: str = "a") -> bool:
    """Tell whether a client's breaker is open."""
    return client.status()[name].breaker.value == "open"


def break_down(client: FailoverClient, name: str = "a") -> None:
    """Call until the breaker of an endpoint is open."""
    while not is_open(client, name):
        with contextlib.suppress(FailoverError):
            client.chat("Hi")


def shares(client: FailoverClient) -> bool:
    """Tell whether a client says that it shares."""
    return client.status().state == "shared"


# What is shared


def test_a_breaker_that_one_opens_is_open_for_all(join: Any, upstreams: List[FakeUpstream]) -> None:
    """Within half a second nobody else finds it out for himself; and when one is answered, all use it again."""
    first, second = join(recovery_timeout=1.0), join(recovery_timeout=1.0)
    second.chat("Hi")
    upstreams[0].calls.always(Status(503))
    break_down(first)
    began = time.monotonic()
    assert eventually(lambda: is_open(second))
    assert time.monotonic() - began < SOON_S
    upstreams[0].clear_log()
    for _ in range(9):
        second.chat("Hi")
    assert not upstreams[0].calls.requests
    upstreams[0].heal()

    def closed() -> bool:
        first.chat("Hi")
        return not is_open(first) and not is_open(second)

    assert eventually(closed)
    assert second.status()["a"].breaker.value == "closed"


def test_a_process_that_was_answered_since_goes_on(join: Any, upstreams: List[FakeUpstream]) -> None:
    """An outage that only one sees, for a reason of its own, is not believed by whoever sees it answer meanwhile."""
    lonely, answered = (join(endpoints_of(upstreams[:1]), max_retries=0) for _ in range(2))
    opened: List[Any] = []
    answered.on("breaker_opened", opened.append)
    upstreams[0].calls.script(Status(503))
    with pytest.raises(FailoverError):
        lonely.chat("Hi")
    answered.chat("Hi")
    upstreams[0].calls.script(Status(503), Status(503))
    for _ in range(2):
        with pytest.raises(FailoverError):
            lonely.chat("Hi")
    assert is_open(lonely)
    assert eventually(lambda: not is_open(lonely)), "it hears of the answer, and may try at once"
    assert not opened


def test_a_key_that_is_refused_to_one_rests_for_all(join: Any, upstreams: List[FakeUpstream]) -> None:
    """Nobody else sends it."""
    first, second = join(), join()
    second.chat("Hi")
    upstreams[0].calls.always(Status(401))
    while "key rests" not in first.status()["a"].reason:
        first.chat("Hi")
    assert eventually(lambda: "key rests" in second.status()["a"].reason, SOON_S)
    upstreams[0].clear_log()
    for _ in range(9):
        second.chat("Hi")
    assert not upstreams[0].calls.requests


def test_a_limit_that_one_meets_is_kept_by_all(join: Any, upstreams: List[FakeUpstream]) -> None:
    """Of one model; the others go on being asked there."""
    first, second = join(), join()
    second.chat("Hi")
    upstreams[0].calls.script(Status(429, headers={"Retry-After": "60"}))
    while not any(request.status == 429 for request in upstreams[0].calls.requests):
        first.chat("Hi")
    time.sleep(0.6)
    upstreams[0].clear_log()
    for _ in range(9):
        second.chat("Hi")
    assert not upstreams[0].calls.requests
    for _ in range(9):
        second.chat("Hi", model="another")
    assert upstreams[0].calls.requests


def test_retries_are_rationed_together(join: Any, upstreams: List[FakeUpstream]) -> None:
    """When one has used them up, another one has none either."""

    def budget() -> RetryBudget:
        return RetryBudget(ratio=0.0, per_second=0.0, capacity=5.0)

    first, second = (join(retry_budget=budget(), failure_threshold=1000) for _ in range(2))
    for client in (first, second):
        client.chat("Hi")
    for upstream in upstreams:
        upstream.calls.always(Status(503))
    for _ in range(5):
        with contextlib.suppress(FailoverError):
            first.chat("Hi")
    assert eventually(lambda: second.registry.retry_budget.tokens < 1.0, SOON_S)
    for upstream in upstreams:
        upstream.clear_log()
    with pytest.raises(FailoverError):
        second.chat("Hi")
    assert sum(len(upstream.calls.requests) for upstream in upstreams) == 1


def test_money_is_spent_together(join: Any, upstreams: List[FakeUpstream]) -> None:
    """A budget that one has used up is used up, also for the next process, and also when that has just begun."""
    priced = endpoints_of(upstreams, prices={"gpt-4.1": 1_000_000})  # a dollar for a token
    first, second = (join(priced, budget_usd=20.0) for _ in range(2))
    second.chat("Hi")
    with contextlib.suppress(BudgetExceeded):
        for _ in range(100):
            first.chat("Hi")
    with pytest.raises(BudgetExceeded):
        first.chat("Hi")

    def refused() -> bool:
        try:
            second.chat("Hi")
        except BudgetExceeded:
            return True
        return False

    assert eventually(refused, SOON_S)
    first.close()
    third = join(priced, budget_usd=20.0)
    with pytest.raises(BudgetExceeded):
        third.chat("Hi")


def test_no_key_is_in_the_file(join: Any, upstreams: List[FakeUpstream], path: str) -> None:
    """Not even where an endpoint repeats it in its errors, or a model is named like it; nor a prompt, nor an answer."""
    client = join(probe_when="always", probe_interval=0.2)
    for name, upstream, status in zip("abc", upstreams, (401, 503, 429)):
        body = json.dumps({"error": {"message": f"no such key: sk-secret-{name}"}}).encode()
        upstream.calls.always(Status(status, body=body, headers={"Retry-After": "60"}))
        upstream.probes.always(Status(status, body=body))
    for _ in range(6):
        with contextlib.suppress(FailoverError):
            client.chat("what is my prompt")
    assert eventually(lambda: all("key" in client.status()[n].reason or is_open(client, n) for n in "a"))
    time.sleep(0.6)
    kept = b"".join(Path(path + end).read_bytes() for end in ("", "-wal"))
    assert b"rests" in kept
    assert b"no such key" in kept
    assert b"secret" not in kept
    assert b"my prompt" not in kept


# Who probes


def test_a_prober_that_is_killed_is_replaced_within_two_intervals(
    join: Any, upstreams: List[FakeUpstream]
) -> None:
    """Without a gap in the probes that is longer."""
    reading, writing = os.pipe()

    def probe() -> None:
        client = join(probe_when="always", probe_interval=1.0)
        client.chat("Hi")
        os.write(writing, b"!")
        time.sleep(60.0)

    child = Child(probe)
    os.read(reading, 1)
    successor = join(probe_when="always", probe_interval=1.0)
    successor.chat("Hi")
    assert upstreams[0].probes.wait_for(2)
    child.kill()
    killed, before = time.monotonic(), len(upstreams[0].probes.requests)
    assert upstreams[0].probes.wait_for(before + 1)
    assert upstreams[0].probes.requests[before].at - killed < 2.0
    os.close(reading)
    os.close(writing)


@pytest.mark.quiet
def test_eight_processes_probe_as_one(join: Any, upstreams: List[FakeUpstream]) -> None:
    """At most 1.1 probes per endpoint and interval, over six intervals, and all know what they found."""
    interval = 0.5

    def work() -> str:
        client = join(probe_when="always", probe_interval=interval)
        client.chat("Hi")
        time.sleep(0.5 + 6 * interval + 1.0)
        known = client.status()["a"].status.value
        client.close()
        return known

    children = [Child(work) for _ in range(8)]
    time.sleep(1.0)
    for upstream in upstreams:
        upstream.clear_log()
    time.sleep(6 * interval)
    rates = [probes_per_interval(upstream, interval) for upstream in upstreams]
    assert [child.result() for child in children] == ["healthy"] * 8
    assert all(0.7 <= rate <= 1.1 for rate in rates), rates


# Beginning with what the last one learned


def test_a_cold_start_sends_nothing_to_what_probes_found_dead(
    join: Any, upstreams: List[FakeUpstream], monkeypatch: Any
) -> None:
    """Five seconds ago, by a process that is gone."""
    upstreams[0].kill()
    first = join(probe_when="always")
    first.chat("Hi")
    assert eventually(lambda: first.status()["a"].status.value == "unhealthy")
    first.close()
    upstreams[0].revive()
    monkeypatch.setattr(SqliteStore, "now", lambda _store: time.time() + 5.0)
    second = join()
    for _ in range(9):
        second.chat("Hi")
    assert not upstreams[0].calls.requests
    assert second.status()["a"].status.value == "unhealthy"


def test_a_cold_start_sends_nothing_to_what_calls_found_dead(
    join: Any, upstreams: List[FakeUpstream], monkeypatch: Any
) -> None:
    """Its breaker opened five seconds ago; when its time is over, one call tries."""
    upstreams[0].calls.always(Status(503))
    first = join()
    break_down(first)
    first.close()
    upstreams[0].heal()
    upstreams[0].clear_log()
    monkeypatch.setattr(SqliteStore, "now", lambda _store: time.time() + 5.0)
    second = join()
    for _ in range(9):
        second.chat("Hi")
    assert not upstreams[0].calls.requests
    second.close()
    monkeypatch.setattr(SqliteStore, "now", lambda _store: time.time() + 45.0)
    third = join()
    for _ in range(9):
        third.chat("Hi")
    assert upstreams[0].calls.requests


PROGRAM = """
import sys
from syncfailover import Endpoint, FailoverClient
first, second, path = sys.argv[1:]
client = FailoverClient(
    [Endpoint("a", first, "sk-a"), Endpoint("b", second, "sk-b", priority=1)],
    model="gpt-4.1", state="sqlite:///" + path, probe_when=PROBE_WHEN,
)
print(client.chat("Hi").endpoint)
"""


@pytest.mark.quiet
def test_cron_jobs_that_fail_once_each_open_the_breaker_for_the_next(
    upstreams: List[FakeUpstream], path: str
) -> None:
    """Four programs, each of which ends within milliseconds of its only call, without `close`, and without a word."""
    upstreams[0].calls.always(Status(500, body=b"{}", headers={"x-should-retry": "false"}))
    upstreams[0].probes.always(Status(200))

    def run(probe_when: str) -> Tuple[str, str]:
        program = PROGRAM.replace("PROBE_WHEN", repr(probe_when))
        command = [sys.executable, "-X", "dev", "-c", program, upstreams[0].url, upstreams[1].url, path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30.0, check=False)
        return done.stdout, done.stderr

    for nth, probe_when in enumerate(("never", "always", "never", "never")):
        answer, said = run(probe_when)
        assert answer == "b\n", said
        assert len(upstreams[0].calls.requests) == min(nth + 1, 3)
        assert said == ""


# A file that fails


def look_after(client: FailoverClient, caplog: Any, heal: Callable[[], Any], *, seen: bool = True) -> None:
    """See to it that a client in trouble works, warns once, and shares again when the trouble is over."""
    deadline, longest, slowest = time.monotonic() + 3.0, 0.0, 0
    while time.monotonic() < deadline and not (warned(caplog) and slowest > 20):
        began = time.monotonic()
        assert client.chat("Hi").text
        longest, slowest = max(longest, time.monotonic() - began), slowest + 1
        time.sleep(0.02)
    assert longest < 1.0
    assert len(warned(caplog)) == seen, warned(caplog)
    heal()
    assert eventually(lambda: shares(client), 10.0)
    assert client.chat("Hi").text
    assert len(warned(caplog)) == seen, warned(caplog)


def warned(caplog: Any) -> List[str]:
    """Return what was warned of the file."""
    return [
        r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "state: " in r.getMessage()
    ]


def delete(path: str) -> None:
    """Delete the file and what is beside it."""
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + end)  # noqa: PTH108


def vanish(path: str) -> Callable[[], Any]:
    """Let the file vanish; it comes back by itself."""
    delete(path)
    return lambda: None


def lose_its_directory(path: str) -> Callable[[], Any]:
    """Let the directory be moved away."""
    directory = Path(path).parent
    directory.rename(directory.with_name("away"))
    return lambda: directory.with_name("away").rename(directory)


def lose_its_log(path: str) -> Callable[[], Any]:
    """Let the log alone vanish."""
    os.unlink(path + "-wal")  # noqa: PTH108
    return lambda: None


def be_locked(path: str) -> Callable[[], Any]:
    """Let another program write for a long time."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    while True:
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("BEGIN EXCLUSIVE")
            break

    def end() -> None:
        db.execute("COMMIT")
        db.close()

    return end


def be_another_programs(path: str) -> Callable[[], Any]:
    """Let another program's database take its place."""
    delete(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs(x)")
    return lambda: delete(path)


def be_garbage(path: str) -> Callable[[], Any]:
    """Let something that is no database take its place."""
    delete(path)
    Path(path).write_bytes(os.urandom(10_000))
    return lambda: delete(path)


def be_of_another_version(path: str) -> Callable[[], Any]:
    """Let a newer version of the package have changed it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for table in ("entries", "leases", "accounts"):
            db.execute(f"ALTER TABLE {table} RENAME TO {table}_2")
        db.execute("PRAGMA user_version = 2")
    return lambda: delete(path)


TROUBLES = (
    vanish,
    lose_its_directory,
    lose_its_log,
    be_locked,
    be_another_programs,
    be_garbage,
    be_of_another_version,
)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_while_it_is_in_use(trouble: Any, join: Any, path: str, caplog: Any) -> None:
    """No call fails or waits, there is one warning, and when it is over all share again."""
    client = join(probe_when="always", probe_interval=0.3, probe_timeout=2.0)
    client.chat("Hi")
    assert eventually(lambda: shares(client))
    look_after(client, caplog, trouble(path))
    other = join()
    other.chat("Hi")
    assert shares(other)


@pytest.mark.parametrize("trouble", [be_locked, be_another_programs, be_garbage])
def test_trouble_from_the_beginning(trouble: Any, join: Any, path: str, caplog: Any) -> None:
    """The same for a client that never had a file it could use."""
    if trouble is be_locked:
        SqliteStore(path).open(print)
    heal = trouble(path)
    client = join(probe_when="always", probe_interval=0.3, probe_timeout=2.0)
    look_after(client, caplog, heal)


def test_a_file_that_is_cut_while_it_is_in_use(join: Any, path: str, caplog: Any) -> None:
    """It may go unnoticed for a while; no call fails, and there is no second warning."""
    client = join(probe_when="always", probe_interval=0.3, probe_timeout=2.0)
    client.chat("Hi")
    assert eventually(lambda: shares(client))
    os.truncate(path, 100)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert client.chat("Hi").text
    delete(path)
    assert eventually(lambda: Path(path).exists() and shares(client), 10.0)
    assert len(warned(caplog)) == 1


@contextlib.contextmanager
def commons() -> Iterator[str]:
    """Have a directory that anybody may use, unlike those of pytest."""
    directory = tempfile.mkdtemp()
    try:
        os.chmod(directory, 0o777)  # noqa: PTH101, S103 - for a child that is nobody
        yield directory
    finally:
        os.chmod(directory, 0o700)  # noqa: PTH101
        shutil.rmtree(directory)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_file_that_may_not_be_written(what: str, join: Any, caplog: Any) -> None:
    """By a process without permission: it is alone, until it has it."""
    with commons() as directory:
        path = f"{directory}/health.db"
        if what == "file":
            Path(path).touch()
        place = path if what == "file" else directory

        def work() -> bool:
            os.chmod(place, 0o555)  # noqa: PTH101, S103 - it is its own
            client = join(state=f"sqlite:///{path}", probe_when="always", probe_interval=0.3)
            look_after(client, caplog, lambda: os.chmod(place, 0o777))  # noqa: PTH101, S103
            client.close()
            return True

        if os.getuid() == 0:
            os.chown(place, 65534, 65534)
        assert as_nobody(work)


def test_a_disk_that_is_full(join: Any, path: str, caplog: Any) -> None:
    """While no file may grow it is alone; then it shares again."""

    def work() -> bool:
        client = join(probe_when="always", probe_interval=0.3)
        client.chat("Hi")
        assert eventually(lambda: shares(client))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        look_after(client, caplog, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
        client.close()
        return True

    assert in_child(work)


def test_everything_works_as_without_it(join: Any, upstreams: List[FakeUpstream], path: str) -> None:
    """Probes, breakers and failover, for as long as the file cannot be used."""
    be_garbage(path)
    client = join(probe_when="always", probe_interval=0.3, probe_timeout=2.0, fall=1)
    client.chat("Hi")
    assert eventually(lambda: client.status()["b"].status.value == "healthy")
    assert client.status().state == "alone"
    upstreams[0].calls.always(Status(503))
    break_down(client)
    upstreams[1].kill()
    assert eventually(lambda: client.status()["b"].status.value == "unhealthy")
    assert {client.chat("Hi").endpoint for _ in range(5)} == {"c"}
    assert upstreams[2].probes.wait_for(2)


def test_many_threads_of_many_clients(join: Any, upstreams: List[FakeUpstream]) -> None:
    """While all of them learn and tell at once, each call is answered."""
    clients = [join(probe_when="always", probe_interval=0.2, probe_timeout=2.0) for _ in range(3)]
    failures: List[BaseException] = []

    def work(client: FailoverClient) -> None:
        for _ in range(15):
            try:
                client.chat("Hi")
            except FailoverError as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(client,)) for client in clients for _ in range(3)]
    for thread in threads:
        thread.start()
    upstreams[0].kill()
    for thread in threads:
        thread.join()
    assert not failures
    assert eventually(lambda: all(client.status()["a"].reason for client in clients))


def test_shared_is_said_in_the_status(join: Any) -> None:
    """`None` where nothing is shared, `alone` until the first call, then `shared`."""
    states: Dict[str, Any] = {"none": join(state=None).status().state}
    client = join()
    states["new"] = client.status().state
    client.chat("Hi")
    assert states == {"none": None, "new": "alone"}
    assert eventually(lambda: shares(client))
