"""Celery: a client that is made, or already used, before the worker forks its pool."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping

import pytest
from celery import Celery
from redis_servers import RedisServer
from serving import PATIENCE_S, children, connections, environ_of, eventually, footprint, load, program

from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server

PROCESSES = 2
#: Seconds in which an idle worker is to be gone once it was asked to.
STOP_S = 10.0


class Worker:
    """A worker with a pool of two processes."""

    def __init__(self, home: Path, environ: Mapping[str, str], *options: str) -> None:
        self._home = home
        command = [program("celery"), "-A", "celery_site", "worker", "--pool=prefork", "--loglevel=error"]
        with (home / "stderr").open("wb") as stderr, (home / "stdout").open("wb") as stdout:
            self._process = subprocess.Popen(
                [*command, f"--concurrency={PROCESSES}", "--without-mingle", "--without-gossip", *options],
                cwd=home,
                env=dict(environ),
                stdout=stdout,
                stderr=stderr,
            )
        self.pid = self._process.pid

    @property
    def processes(self) -> List[int]:
        """Those of the pool."""
        return children(self.pid)

    def stop(self) -> str:
        """Ask it to end, and return what it said on stderr; it has to be gone in time, and all processes with it."""
        everybody = [self.pid, *self.processes]
        began = time.monotonic()
        self._process.terminate()
        assert self._process.wait(PATIENCE_S) == 0
        assert time.monotonic() - began < STOP_S
        assert not [pid for pid in everybody if Path(f"/proc/{pid}").exists()]
        return (self._home / "stderr").read_text()

    def kill(self) -> None:
        """End it after a failure."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_S)
            finally:
                self._process.kill()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of our own."""
    server = RedisServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture
def environ(tmp_path: Path, queue: RedisServer, echoes: List[FakeUpstream]) -> Dict[str, str]:
    """What the site finds in its environment."""
    not_ours = [
        "ignore:You're running the worker with superuser privileges",
        "ignore:Python 3.8 is no longer supported",  # says a library of redis-py's
    ]
    as_root = {"C_FORCE_ROOT": "1", "PYTHONWARNINGS": ",".join(not_ours)}
    return environ_of(echoes, tmp_path / "log", REDIS_URL=queue.url, **as_root)


@pytest.fixture
def send(queue: RedisServer) -> Iterator[Callable[..., Any]]:
    """A function that has a task done and returns what came of it, which the task puts into a list of Redis."""
    app = Celery(broker=queue.url)
    results = queue.client()

    def do(name: str, *arguments: Any) -> Any:
        task = app.send_task(f"celery_site.{name}", arguments, ignore_result=True)
        found = results.blpop(task.id, PATIENCE_S - 1.0)
        assert found is not None, f"{name}{arguments} was never done"
        return json.loads(found[1])

    yield do
    app.close()
    results.close()


@pytest.fixture
def start(tmp_path: Path, environ: Dict[str, str]) -> Iterator[Callable[..., Worker]]:
    """A function that starts workers."""
    started: List[Worker] = []

    def start_one(*options: str, **more: str) -> Worker:
        started.append(Worker(tmp_path, {**environ, **more}, *options))
        return started[-1]

    yield start_one
    for worker in started:
        worker.kill()


def states(send: Callable[..., Any]) -> Dict[int, Any]:
    """Ask so often, and so many at once, that each process has said what it knows."""
    found: Dict[int, Any] = {}

    def ask_all() -> bool:
        for state in askers.map(send, ["state"] * 2 * PROCESSES):
            found[state["pid"]] = state
        return len(found) == PROCESSES

    with ThreadPoolExecutor(2 * PROCESSES) as askers:
        eventually(ask_all, "each process has answered")
    return found


def learned(send: Callable[..., Any], **down: str) -> None:
    """Wait until each process has found out by itself who is down, and that all others are healthy."""

    def all_know() -> bool:
        healths = [state["health"] for state in states(send).values()]
        return all(found == {**dict.fromkeys("abc", "healthy"), **down} for found in healths)

    eventually(all_know, f"all know that {down or 'nobody'} is down")


@pytest.mark.parametrize("warm", ["", "1"], ids=["made before the fork", "used before the fork"])
def test_an_endpoint_dies_under_load(
    warm: str, start: Callable[..., Worker], send: Callable[..., Any], echoes: List[FakeUpstream]
) -> None:
    """No task fails, each process knows by itself, nothing is shared or left, and the end is quick and silent."""

    def ask(question: str, stream: bool) -> Any:
        return send("ask", question, stream)

    worker = start(WARM=warm)
    idle = {pid: footprint(pid) for pid in states(send)}
    answered = load(ask, then={50: echoes[0].kill, 100: echoes[0].revive})
    assert set(answered) == set(idle) == set(worker.processes)

    echoes[0].kill()
    learned(send, a="unhealthy")
    load(ask, 50)
    echoes[0].revive()
    learned(send)
    load(ask, 50)

    known = states(send)
    assert {(state["mode"], state["inherited"]) for state in known.values()} == {("active", False)}
    for one, other in combinations([worker.pid, *known], 2):
        assert not connections(one, echoes) & connections(other, echoes)
    for pid, before in idle.items():
        after = footprint(pid)
        assert after.threads <= before.threads + 1 + 2 * 3, "a monitor, and helpers"
        assert after.descriptors <= before.descriptors + 2 * 3, "two connections for each endpoint"
    assert worker.stop() == ""


def test_processes_are_recycled(
    start: Callable[..., Worker], send: Callable[..., Any], echoes: List[FakeUpstream]
) -> None:
    """A process that has done its share ends, the next one is forked of a parent with threads, and no task notices."""
    worker = start("--max-tasks-per-child=15", WARM="1")
    answered = load(
        lambda question, stream: send("ask", question, stream),
        then={50: echoes[0].kill, 100: echoes[0].revive},
    )
    assert len(answered) >= 8
    assert worker.stop() == ""
