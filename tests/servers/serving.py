"""A real server in processes of its own: started, loaded, looked at from outside, and stopped.

`prove` is what every one of them has to show; the tests say how the server is started, and what is special about it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set

import requests

from syncfailover.testing import FakeUpstream

SITES = Path(__file__).with_name("sites")
#: Seconds after which something that should have happened will not.
PATIENCE_S = 20.0
#: Seconds in which a server is to be gone once it was asked to.
STOP_S = 5.0

Ask = Callable[[str, bool], Mapping[str, Any]]


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environ_of(upstreams: Sequence[FakeUpstream], log: Path, **more: str) -> Dict[str, str]:
    """Make what the sites want to find in their environment."""
    where = json.dumps({upstream.name: upstream.url for upstream in upstreams})
    path = os.pathsep.join([str(SITES), os.environ.get("PYTHONPATH", "")])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**inherited, "UPSTREAMS": where, "LOG": str(log), "PYTHONPATH": path, **more}


def program(name: str) -> str:
    """Find a program that was installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


# Processes, from outside


class Footprint(NamedTuple):
    """What a process holds."""

    descriptors: int
    threads: int


def footprint(pid: int) -> Footprint:
    """Count what a process holds now."""
    there = Path(f"/proc/{pid}")
    return Footprint(*(len(list(there.joinpath(what).iterdir())) for what in ("fd", "task")))


def children(pid: int) -> List[int]:
    """List the processes that a process started and that are there."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def connections(pid: int, upstreams: Sequence[FakeUpstream]) -> Set[str]:
    """Name the connections to upstreams that a process holds: two that share one have inherited it."""
    ports = {upstream.port for upstream in upstreams}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    known = {f"socket:[{fields[9]}]" for fields in lines if int(fields[2].partition(":")[2], 16) in ports}
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            held.add(os.readlink(descriptor))
    return held & known


def eventually(what: Callable[[], Any], why: str) -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {why}"
        time.sleep(0.05)


# Load


def load(
    ask: Ask, total: int = 150, threads: int = 8, then: Optional[Mapping[int, Callable[[], Any]]] = None
) -> "Counter[int]":
    """Ask from many threads; each question must be answered, by its own echo. Count the answers by process.

    Args:
        ask: asks one question, streamed or not.
        total: how many questions; every other one is streamed.
        threads: how many at once.
        then: what to do when so many have been answered.

    """
    turns = iter(range(total))
    taking = threading.Lock()
    answered: Counter[int] = Counter()
    failures: List[str] = []
    events = dict(then or {})

    def work() -> None:
        while True:
            with taking:
                turn = next(turns, None)
            if turn is None:
                return
            question = uuid.uuid4().hex
            try:
                answer = ask(question, turn % 2 == 1)
                if answer["text"] != question:
                    failures.append(f"{answer} to {question}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                failures.append(f"{type(error).__name__}: {error}")
                continue
            with taking:
                answered[answer["pid"]] += 1
                event = events.pop(sum(answered.values()), None)
            if event is not None:
                event()

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60.0)
        assert not worker.is_alive(), "a question was never answered"
    assert not failures, f"{len(failures)} of {total} failed: {failures[:3]}"
    assert not events
    return answered


# A server


class Server:
    """A server that runs from `with` on, and whose site is one of `sites/`.

    Args:
        command: how it is started; `{port}` stands for the port.
        upstreams: whom the site asks.
        home: where it may write.
        environ: more for its environment.

    """

    def __init__(
        self, command: Sequence[str], upstreams: Sequence[FakeUpstream], home: Path, **environ: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.upstreams = upstreams
        self._command = [part.replace("{port}", str(self.port)) for part in command]
        self._home = home
        self._log = home / "log"
        self._environ = environ_of(upstreams, self._log, **environ)
        self._exit: Optional[int] = None

    def __enter__(self) -> "Server":
        with (self._home / "stderr").open("wb") as stderr, (self._home / "stdout").open("wb") as stdout:
            self._process = subprocess.Popen(
                self._command, cwd=self._home, env=self._environ, stdout=stdout, stderr=stderr
            )
        try:
            eventually(self._answers, "the server answers")
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._kill()

    def _kill(self) -> None:
        """End what is left of it, after a failure."""
        if self._process.poll() is None:
            left = [self._process.pid, *children(self._process.pid)]
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(PATIENCE_S)

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"it ended: {self.stderr}"
        try:
            return requests.get(self.url + "/state", timeout=PATIENCE_S).ok
        except requests.ConnectionError:
            return False

    @property
    def pid(self) -> int:
        """Its first process."""
        return self._process.pid

    @property
    def workers(self) -> List[int]:
        """The processes that it has now."""
        return children(self.pid)

    @property
    def stderr(self) -> str:
        """What it has said so far, on stdout and on stderr."""
        return (self._home / "stdout").read_text() + (self._home / "stderr").read_text()

    @property
    def log(self) -> List[str]:
        """What the package has logged so far, in all processes."""
        return self._log.read_text().splitlines()

    def get(self, path: str, **params: str) -> Dict[str, Any]:
        """Ask for a page, over a connection of its own."""
        response = requests.get(self.url + path, params=params, timeout=PATIENCE_S)
        assert response.ok, f"{response.status_code}: {response.text[-500:]}"
        return response.json()

    def ask(self, question: str, stream: bool = False) -> Dict[str, Any]:
        """Ask a question."""
        return self.get("/ask", q=question, **({"stream": "1"} if stream else {}))

    def states(self, workers: int) -> Dict[int, Dict[str, Any]]:
        """Ask so often, and so many at once, that each worker has said what it knows."""
        found: Dict[int, Dict[str, Any]] = {}

        def ask_once() -> None:
            state = self.get("/state")
            found[state["pid"]] = state

        def ask_all() -> bool:
            askers = [threading.Thread(target=ask_once) for _ in range(2 * workers)]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join()
            return len(found) >= workers

        eventually(ask_all, f"{workers} workers have answered; only {sorted(found)} did")
        return found

    def stop(self) -> int:
        """Ask it to end, and return its exit status; it has to be gone in time, and all of its processes with it."""
        everybody = [self.pid, *self.workers]
        self._process.terminate()
        try:
            status = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {STOP_S:g} s: {self.stderr}") from None
        left = [pid for pid in everybody if Path(f"/proc/{pid}").exists()]
        assert not left, "workers outlived their server"
        return status


def prove(server: Server, *, workers: int, threads: int = 1, passive: bool = False) -> None:
    """Kill an endpoint under load, bring it back, and look at what each worker knows and holds.

    Args:
        server: it runs, and has been asked nothing yet.
        workers: how many processes serve.
        threads: how many requests each of them serves at once.
        passive: whether the site can have no thread of its own, so that only calls bring news.

    """
    first = server.upstreams[0]
    idle = {pid: footprint(pid) for pid in server.states(workers)}
    calls = load(server.ask, then={50: first.kill, 100: first.revive})
    assert set(calls) == set(idle), "each worker took part, and none died"

    first.kill()
    learned(server, idle, passive, **{first.name: "unhealthy"})
    load(server.ask, 50)
    first.revive()
    learned(server, idle, passive)
    load(server.ask, 50)

    states = server.states(workers)
    assert {state["mode"] for state in states.values()} == {"passive" if passive else "active"}
    assert not any(state["inherited"] for state in states.values())
    processes = [server.pid, *states]
    for one, other in combinations(dict.fromkeys(processes), 2):
        assert not connections(one, server.upstreams) & connections(other, server.upstreams)
    # The monitor, a helper for each endpoint, and as many again that came while those were not quite done.
    probers = 0 if passive else 1 + 2 * len(server.upstreams)
    at_once = (threads + (0 if passive else 1)) * len(server.upstreams)
    for pid, before in idle.items():
        after = footprint(pid)
        assert after.threads <= before.threads + probers + threads, f"{before}, then {after}"
        assert after.descriptors <= before.descriptors + at_once + threads, f"{before}, then {after}"


def learned(server: Server, workers: Mapping[int, Any], passive: bool, **down: str) -> None:
    """Wait until each worker has found out by itself who is down, and that nobody else is.

    A thread probes everybody, so that the others are healthy; a call probes only whom no call has reached lately.
    """
    states: Dict[int, Any] = {}

    def knows(state: Mapping[str, Any]) -> bool:
        fine = {"healthy", "unknown"} if passive else {"healthy"}
        return all(
            status in ({down[name]} if name in down else fine) for name, status in state["health"].items()
        )

    def all_know() -> bool:
        if passive:
            load(server.ask, 4 * len(workers), 2 * len(workers))
        states.update(server.states(len(workers)))
        return all(knows(state) for state in states.values())

    try:
        eventually(all_know, f"all know that {down or 'nobody'} is down")
    except AssertionError as error:
        raise AssertionError(f"{error}; they say {states}") from None
