"""gunicorn with eight workers that share a file: they probe as one process would, and know what one of them learns."""

import os
import signal
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from fleet import probes_per_interval
from serving import Server, eventually, load, program

from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server

WORKERS = 8
#: Seconds between probes, and how many of them are watched.
INTERVAL_S, WATCHED = 1.0, 8
#: What each worker is, and when the application is loaded.
SERVERS: Dict[str, Any] = {
    "sync": (["--worker-class=sync"], {}),
    "gevent": (["--worker-class=gevent"], {}),
    "sync, used before the fork": (["--worker-class=sync", "--preload"], {"WARM": "1"}),
}


def command(*options: str) -> List[str]:
    """Start eight workers."""
    bind = "--bind=127.0.0.1:{port}"
    common = [program("gunicorn"), bind, f"--workers={WORKERS}", "--log-level=warning"]
    return [*common, *options, "flask_site:app"]


def begin(server: Server) -> None:
    """Have each worker take part."""

    def all_share() -> bool:
        load(server.ask, 4 * WORKERS, 2 * WORKERS)
        states = server.states(WORKERS)
        return all(state["calls"] and state["state"] == "shared" for state in states.values())

    eventually(all_share, "all workers share")


def watch_probes(upstreams: List[FakeUpstream]) -> None:
    """See to it that all workers probe as one process would."""
    for upstream in upstreams:
        upstream.clear_log()
    time.sleep(WATCHED * INTERVAL_S)
    rates = {upstream.name: probes_per_interval(upstream, INTERVAL_S) for upstream in upstreams}
    assert all(0.7 <= rate <= 1.1 for rate in rates.values()), rates


@pytest.mark.parametrize("kind", SERVERS)
def test_eight_workers_probe_as_one(
    kind: str, server_of: Callable[..., Server], echoes: List[FakeUpstream], tmp_path: Path
) -> None:
    """Upstream sees at most 1.1 probes per endpoint and interval, while calls go on and after a worker was killed."""
    options, environ = SERVERS[kind]
    state = f"sqlite:///{tmp_path}/health.db"
    with server_of(command(*options), STATE=state, PROBE_INTERVAL=str(INTERVAL_S), **environ) as server:
        begin(server)
        watch_probes(echoes)

        echoes[0].kill()
        eventually(
            lambda: all(s["health"]["a"] == "unhealthy" for s in server.states(WORKERS).values()),
            "all workers know that one endpoint is dead",
        )
        echoes[0].revive()
        for worker in server.workers[: WORKERS // 2]:
            os.kill(worker, signal.SIGKILL)
        killed, before = time.monotonic(), len(echoes[1].probes.requests)
        assert echoes[1].probes.wait_for(before + 1)
        assert echoes[1].probes.requests[before].at - killed < 2 * INTERVAL_S

        begin(server)
        load(server.ask, 100)
        watch_probes(echoes)
        assert server.stop() == 0
        assert "state: " not in "\n".join(server.log)
        assert "Traceback" not in server.stderr
