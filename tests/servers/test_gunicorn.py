"""gunicorn: each kind of worker, forked before and after the application is loaded, and recycled."""

import re
from typing import Any, Callable, Dict, List, NamedTuple

import gunicorn
import pytest
from serving import Server, load, program, prove

from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server


class Kind(NamedTuple):
    """A kind of worker: its options, and how many requests it serves at once."""

    options: List[str]
    threads: int


WORKERS = {
    "sync": Kind(["--worker-class=sync"], 1),
    "gthread": Kind(["--worker-class=gthread", "--threads=4"], 4),
    "gevent": Kind(["--worker-class=gevent", "--config=python:gevent_first"], 8),
    "gevent, which patches late": Kind(["--worker-class=gevent"], 8),
}
#: When the application is loaded, and whether its client works before the fork.
LOADED: Dict[str, Any] = {
    "in each worker": ([], {}),
    "before the fork": (["--preload"], {}),
    "and used before the fork": (["--preload"], {"WARM": "1"}),
}
#: Of 23, those with threads hang up on requests when they are recycled, whatever the application is; of 27 not.
RECYCLED = [kind for kind in WORKERS if kind != "gthread" or gunicorn.version_info >= (27,)]
#: What it says where nothing is wrong with the application: that a worker which had just begun was told to end, and that
#: urllib3 was there before gevent.
ASIDE = re.compile(
    r"^\[.*was sent SIGTERM!\n|^.*MonkeyPatchWarning: Monkey-patching ssl .*\n *monkey\.patch_all\(\)\n",
    re.MULTILINE,
)


def command(kind: str, *options: str) -> List[str]:
    """Start two workers, silent unless something is wrong."""
    usual = ["--bind=127.0.0.1:{port}", "--workers=2", "--log-level=warning"]
    return [program("gunicorn"), *usual, *WORKERS[kind].options, *options, "flask_site:app"]


@pytest.mark.parametrize("loaded", LOADED)
@pytest.mark.parametrize("kind", WORKERS)
def test_an_endpoint_dies_under_load(kind: str, loaded: str, server_of: Callable[..., Server]) -> None:
    """No request fails, each worker knows by itself, nothing is shared or left, and the end is quick and silent."""
    options, environ = LOADED[loaded]
    with server_of(command(kind, *options), **environ) as server:
        prove(server, workers=2, threads=WORKERS[kind].threads)
        assert (server.stop(), ASIDE.sub("", server.stderr)) == (0, "")


@pytest.mark.parametrize("kind", RECYCLED)
def test_workers_are_recycled(
    kind: str, echoes: List[FakeUpstream], server_of: Callable[..., Server]
) -> None:
    """A worker that has served its share ends, the next one begins, and no request notices."""
    recycling = ["--preload", "--max-requests=20", "--max-requests-jitter=5"]
    with server_of(command(kind, *recycling), WARM="1") as server:
        served = load(server.ask, 150, then={50: echoes[0].kill, 100: echoes[0].revive})
        while len(served) < 4:  # one of gevent looks once a second whether it has served enough
            served.update(load(server.ask, 50))
        assert (server.stop(), ASIDE.sub("", server.stderr)) == (0, "")
