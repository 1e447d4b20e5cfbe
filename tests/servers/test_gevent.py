"""gevent: programs that it patches before they import the package, after that, or when their client is made already.

They are in `patched.py`; their upstreams are here, in a process that is not patched.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from runtime.test_wire import certificate

from syncfailover.testing import FakeUpstream, Hang, Ok, Status, Stream

pytestmark = pytest.mark.server

HERE = Path(__file__).parent
#: Seconds within which a program has to end once it has said all.
EXIT_S = 2.0
#: Seconds after which a program that should have ended will not.
PATIENCE_S = 60.0

Run = Callable[..., Dict[str, Any]]


@pytest.fixture(params=["http", "https"])
def tls(request: Any, tmp_path: Path) -> Any:
    """A server's context and the file of whom it is certified by; nothing for plain HTTP."""
    return certificate(tmp_path, "localhost") if request.param == "https" else (None, "")


@pytest.fixture
def upstreams(tls: Any) -> Iterator[List[FakeUpstream]]:
    """Three upstreams `a`, `b`, `c` that say what they were asked."""
    made = [FakeUpstream(name, text="{prompt}", tls=tls[0]).start() for name in "abc"]
    yield made
    for upstream in made:
        upstream.stop()


@pytest.fixture(params=["before the import", "after the import", "after the client was made"])
def run(request: Any, tls: Any, upstreams: List[FakeUpstream]) -> Run:
    """A function that runs a program's work, patched at one time or another, and returns what came of it.

    Whatever it does, it ends at once and silently, closed or not, and where gevent complains of being late, it is not
    because of this package.
    """
    where = {upstream.name: upstream.url.replace("127.0.0.1", "localhost") for upstream in upstreams}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environ = {**outside, "UPSTREAMS": json.dumps(where), "AUTHORITY": tls[1]}

    def run_it(work: str, *events: Callable[[], Any]) -> Dict[str, Any]:
        command = [sys.executable, str(HERE / "patched.py"), request.param, work]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, stderr=pipe) as program:
            try:
                for event in events:
                    assert program.stdout.readline() == b"ready\n", program.communicate()[1].decode()[-3000:]
                    event()
                    program.stdin.write(b"\n")
                    program.stdin.flush()
                said, complained = program.communicate(timeout=PATIENCE_S)
                ended = time.monotonic()
            except BaseException:
                program.kill()
                raise
        assert (program.returncode, complained.decode()) == (0, "")
        result: Dict[str, Any] = json.loads(said)
        assert ended - result["at"] < EXIT_S
        assert not any("syncfailover" in complaint for complaint in result["complaints"])
        assert request.param != "before the import" or not result["complaints"]
        return result

    return run_it


def test_fifty_calls_take_the_time_of_one(run: Run, upstreams: List[FakeUpstream]) -> None:
    """A call that waits for its answer holds up no other, nor does connecting."""
    for upstream in upstreams:
        upstream.delay_s = 1.0
    result = run("crowd")
    assert result["answers"] == [True] * 50
    assert 1.0 <= result["took_s"] < 3.0
    assert sum(upstream.max_in_flight for upstream in upstreams) >= 50


def test_a_dead_endpoint_costs_no_call(run: Run, upstreams: List[FakeUpstream]) -> None:
    """Whoever was talking to it, or is about to, goes elsewhere; the monitor sees it, too."""
    result = run("death", upstreams[0].kill)
    assert result["answers"] == [True] * 8
    assert all(asker.count(True) == len(asker) >= 5 for asker in result["more"])
    assert result["noticed"]


def test_a_deadline_holds(run: Run, upstreams: List[FakeUpstream]) -> None:
    """Where nobody answers, a call ends at its time, and until then others go on."""
    for upstream in upstreams:
        upstream.calls.always(Hang())
    result = run("silence")
    assert all(error.startswith("DeadlineExceeded") for error in result["result"]), result["result"]
    assert 0.95 <= result["took_s"] < 1.5
    assert result["longest_gap_s"] < 0.5


def test_a_call_that_waits_holds_up_nobody(run: Run, upstreams: List[FakeUpstream]) -> None:
    """Where all endpoints want to be asked later, the call sleeps, and others go on."""
    for upstream in upstreams:
        upstream.calls.script(Status(429, headers={"Retry-After": "2"}))
    result = run("patience")
    assert result["result"] is True
    assert 1.5 <= result["took_s"] < 4.0
    assert result["longest_gap_s"] < 0.5


def test_the_monitor_is_a_greenlet(run: Run, upstreams: List[FakeUpstream]) -> None:
    """Nobody asks anything, and still it is seen that an endpoint dies and comes back."""
    first = upstreams[0]
    result = run("monitor", first.kill, first.revive, first.heal)
    assert "syncfailover-monitor" in result["threads"]
    assert result["seen"] == [True, True, True]


def test_streams(run: Run, upstreams: List[FakeUpstream]) -> None:
    """They are read side by side, and whoever leaves or stops one ends its connection."""

    def become_slow() -> None:
        for upstream in upstreams:
            upstream.calls.always(Stream(tokens=2000, interval_s=0.05))

    result = run("streams", become_slow)
    assert result["whole"] == [f"question {turn}" for turn in range(20)]
    assert result["left"] == ["token0"] * 3
    assert all(0.15 < took_s < 2.0 for took_s in result["stopped"]), result["stopped"]
    assert all(upstream.wait_for(lambda up=upstream: up.in_flight == 0) for upstream in upstreams)
    assert sum(upstream.disconnects for upstream in upstreams) == 6


def test_calls_wait_in_line(run: Run, upstreams: List[FakeUpstream]) -> None:
    """Where nobody is up, callers wait, and are answered when somebody is."""
    for upstream in upstreams:
        upstream.kill()
    result = run("queue", upstreams[0].revive)
    assert (result["down"], result["in_line"]) == (True, True)
    assert result["answers"] == [True] * 10


def test_a_late_call_is_hedged(run: Run, upstreams: List[FakeUpstream]) -> None:
    """A second endpoint is asked, and the first is called off."""
    result = run("hedging", lambda: upstreams[0].calls.script(Ok("too late", delay_s=10.0)))
    assert result["text"] == "late"
    assert result["attempts"] == 2
    assert 0.05 <= result["took_s"] < 2.0
    assert upstreams[0].wait_for(lambda: upstreams[0].disconnects == 1)


def test_a_forked_child_calls_on_its_own(run: Run, upstreams: List[FakeUpstream]) -> None:
    """Though greenlets go on in a child, those of the package do not, and no connection is used by two."""
    result = run("fork")
    assert (result["parent"], result["child"]) == (True, True)
    assert all(request.status == 200 for upstream in upstreams for request in upstream.requests)


def test_closing_ends_everything(run: Run, upstreams: List[FakeUpstream]) -> None:
    """The monitor and its helpers are gone, and so are the connections."""
    result = run("close")
    assert "syncfailover-monitor" in result["before"]
    assert result["ended"]
    assert result["took_s"] < 1.5
