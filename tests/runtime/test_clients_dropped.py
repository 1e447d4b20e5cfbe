"""Clients are cheap to make and to forget: making one opens nothing and starts nothing, dropping one leaves nothing."""

import gc
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import weakref
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from fleet import endpoints_of

from syncfailover import Endpoint, FailoverClient, FailoverError, FailoverSession
from syncfailover.testing import FakeUpstream

#: Bytes that a thousand dropped clients may leave.
LEFT_BYTES = 1_000_000

ENDPOINTS = [Endpoint(name, f"http://127.0.0.1:{port}/v1", "key") for port, name in enumerate("abc", 1)]


class Left:
    """What is there now that was not before."""

    def __init__(self) -> None:
        gc.collect()
        self._threads = set(threading.enumerate())
        self._descriptors = self._open()
        self._bytes = tracemalloc.get_traced_memory()[0]

    @staticmethod
    def _open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    @property
    def threads(self) -> List[str]:
        """The names of our threads; one that ends may take a moment."""
        return self._settled(
            lambda: [t.name for t in set(threading.enumerate()) - self._threads if "syncfailover-" in t.name]
        )

    @property
    def descriptors(self) -> int:
        """How many more descriptors are open."""
        return self._settled(lambda: max(0, self._open() - self._descriptors))

    @property
    def size(self) -> int:
        """How many more bytes are allocated."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._bytes

    @staticmethod
    def _settled(count: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 5.0
        while count() and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        return count()


@pytest.fixture
def left() -> Iterator[Callable[[], Left]]:
    """A function that begins to count; memory is traced meanwhile."""
    tracemalloc.start()
    yield Left
    tracemalloc.stop()


MAKERS: Dict[str, Callable[[Path], Any]] = {
    "client": lambda _path: FailoverClient(ENDPOINTS, model="m", hedge_after=100.0),
    "sharing client": lambda path: FailoverClient(ENDPOINTS, model="m", state=f"sqlite:///{path}"),
    "session": lambda _path: FailoverSession(ENDPOINTS),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_thousand_that_were_never_used_leave_nothing(
    kind: str, left: Callable[[], Left], tmp_path: Path
) -> None:
    """No thread, no file and hardly a byte."""
    path = tmp_path / "state"
    MAKERS[kind](path)
    before = left()
    for _ in range(1000):
        MAKERS[kind](path)
    assert before.size < LEFT_BYTES
    assert before.threads == []
    assert before.descriptors == 0
    assert not path.exists()


def test_a_hundred_that_made_a_call_each_leave_nothing(
    left: Callable[[], Left], upstreams: List[FakeUpstream], tmp_path: Path
) -> None:
    """Neither the monitor's threads nor connections, whether closed or dropped."""
    endpoints = endpoints_of(upstreams)

    def use(turn: int) -> None:
        state = f"sqlite:///{tmp_path}/state" if turn % 10 == 0 else None
        client = FailoverClient(endpoints, model="m", hedge_after=4000.0, state=state)
        assert client.chat("Hi").text
        if turn % 2:
            client.close()

    for turn in range(10):
        use(turn)
    before = left()
    for turn in range(100):
        use(turn)
        for upstream in upstreams:
            upstream.clear_log()
    assert before.threads == []
    assert before.descriptors <= 3, "of the upstreams' ends, which close in their own time"
    assert before.size < LEFT_BYTES


@pytest.mark.parametrize("door", ["client", "session"])
def test_what_holds_threads_and_connections_is_gone_at_once(door: str, upstreams: List[FakeUpstream]) -> None:
    """Without the collector: client, monitor and connections are in no cycle, after a call and after one that failed."""

    def fails(call: Callable[..., Any], what: str) -> bool:
        try:
            call(what)
        except FailoverError:
            return True
        return False

    made: Any = FailoverClient(endpoints_of(upstreams), model="m", hedge_after=4000.0)
    caller = made._caller
    assert made.chat("Hi").text
    if door == "session":
        made = FailoverSession(endpoints_of(upstreams))
        caller = made._door
        assert made.get("/models").ok
    for upstream in upstreams:
        upstream.kill()
    assert fails(made.chat, "Hi") if door == "client" else fails(made.get, "/models")
    refs = [weakref.ref(thing) for thing in (made, caller.monitor, caller.transports)]
    gc.disable()
    try:
        del made, caller
        assert [ref() for ref in refs] == [None] * 3
    finally:
        gc.enable()


PROGRAM = """
    import sys
    from syncfailover import Endpoint, FailoverClient, FailoverSession
    FailoverClient([Endpoint("z", "http://127.0.0.1:9/v1", "key")], model="m", state=sys.argv[1])  # imports what it needs
    events = []
    sys.addaudithook(lambda event, args: events.append((event, args)))
    endpoints = [Endpoint(name, "https://api.example.com/v1", "key") for name in "abc"]
    made = [FailoverClient(endpoints, model="m", state=state) for state in (None, sys.argv[1])]
    made.append(FailoverSession(endpoints))
    seen = list(events)
    told = [e for e in seen if e[0].startswith(("socket.", "open", "sqlite3.", "subprocess.", "os.", "_thread."))]
    print(told)
"""


def test_making_one_does_no_io(tmp_path: Path) -> None:
    """Not a file is opened, no name looked up, nobody connected to, no thread started."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM), f"sqlite:///{tmp_path}/state"],
        capture_output=True,
        text=True,
        timeout=30.0,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert list(tmp_path.iterdir()) == []
