"""uWSGI: it forks without a word to Python, and older ones let no thread run unless they are told to."""

import subprocess
from typing import Any, Callable, Dict, List

import pytest
from serving import Server, footprint, load, program, prove

from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server

#: When the application is loaded, and whether its client works before the fork.
LOADED: Dict[str, Any] = {
    "in each worker": (["--lazy-apps"], {}),
    "before the fork": ([], {}),
    "and used before the fork": ([], {"WARM": "1"}),
}
THREADS: Dict[str, List[str]] = {
    "not asked for": [],
    "enable-threads": ["--enable-threads"],
    "threads": ["--threads=4"],
}


@pytest.fixture(scope="session")
def threads_by_default() -> bool:
    """Whether threads run without being asked for: they do in 2.0.27, and not in 2.0.23."""
    told = subprocess.run(
        [program("pyuwsgi"), "--help"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return "true by default" in told[told.index("--enable-threads") :].splitlines()[0]


def command(site: str, *options: str) -> List[str]:
    """Start two workers, which say nothing unless something is wrong."""
    return [
        program("pyuwsgi"),
        "--http-socket=127.0.0.1:{port}",
        "--master",
        "--processes=2",
        "--die-on-term",
        "--need-app",
        "--disable-logging",
        f"--module={site}",
        *options,
    ]


def complaints(said: str) -> List[str]:
    """Find what uWSGI did not say because all is well."""
    bad = ("Traceback", "Error", "Warning", "rror:", "killed", "DAMN", "SIGSEGV", "Exception", "respawn")
    return [line for line in said.splitlines() if any(word in line for word in bad)]


@pytest.mark.parametrize("loaded", LOADED)
@pytest.mark.parametrize("threads", THREADS)
def test_an_endpoint_dies_under_load(
    threads: str, loaded: str, threads_by_default: bool, server_of: Callable[..., Server]
) -> None:
    """No request fails, each worker knows by itself, nothing is shared or left, and the end is quick."""
    options, environ = LOADED[loaded]
    passive = threads == "not asked for" and not threads_by_default
    with server_of(command("django_site", *options, *THREADS[threads]), **environ) as server:
        prove(server, workers=2, threads=4 if threads == "threads" else 1, passive=passive)
        assert footprint(server.pid).threads == 1, (
            "the master forks whenever it likes, so nobody else may run in it"
        )
        warned = [line for line in server.log if "no background thread can run" in line]
        told = {line.split()[0] for line in warned}
        assert len(warned) == len(told) == (2 + bool(environ) if passive else 0)
        assert all("start it with --enable-threads" in line for line in warned)
        assert server.stop() == 0
        assert complaints(server.stderr) == []


def test_workers_are_recycled(echoes: List[FakeUpstream], server_of: Callable[..., Server]) -> None:
    """A worker that has served its share ends, the next one begins, and no request notices."""
    options = ["--enable-threads", "--max-requests=20", "--min-worker-lifetime=0"]
    with server_of(command("flask_site", *options), WARM="1") as server:
        served = load(server.ask, 200, then={60: echoes[0].kill, 130: echoes[0].revive})
        assert len(served) >= 4
        assert server.stop() == 0
