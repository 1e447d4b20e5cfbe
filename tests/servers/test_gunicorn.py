"""gunicorn: each kind of worker, forked before and after the application is loaded, and recycled."""

from typing import Any, Callable, Dict, List

import pytest
from serving import Server, load, program, prove

from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server

#: The options of each kind of worker, and how many requests it serves at once.
WORKERS = {"sync": ([], 1), "gthread": (["--threads", "4"], 4), "gevent": ([], 8)}
#: When the application is loaded, and whether its client works before the fork.
LOADED: Dict[str, Any] = {
    "in each worker": ([], {}),
    "before the fork": (["--preload"], {}),
    "and used before the fork": (["--preload"], {"WARM": "1"}),
}


def command(kind: str, *options: str) -> List[str]:
    """Start two workers, silent unless something is wrong."""
    return [
        program("gunicorn"),
        "--bind=127.0.0.1:{port}",
        "--workers=2",
        f"--worker-class={kind}",
        "--log-level=warning",
        *WORKERS[kind][0],
        *options,
        "flask_site:app",
    ]


@pytest.mark.parametrize("loaded", LOADED)
@pytest.mark.parametrize("kind", WORKERS)
def test_an_endpoint_dies_under_load(kind: str, loaded: str, server_of: Callable[..., Server]) -> None:
    """No request fails, each worker knows by itself, nothing is shared or left, and the end is quick and silent."""
    options, environ = LOADED[loaded]
    with server_of(command(kind, *options), **environ) as server:
        prove(server, workers=2, threads=WORKERS[kind][1])
        assert (server.stop(), server.stderr) == (0, "")


@pytest.mark.parametrize("kind", WORKERS)
def test_workers_are_recycled(
    kind: str, echoes: List[FakeUpstream], server_of: Callable[..., Server]
) -> None:
    """A worker that has served its share ends, the next one begins, and no request notices."""
    recycling = ["--preload", "--max-requests=20", "--max-requests-jitter=5"]
    with server_of(command(kind, *recycling), WARM="1") as server:
        served = load(server.ask, 300, then={100: echoes[0].kill, 200: echoes[0].revive})
        assert len(served) > 2
        assert (server.stop(), server.stderr) == (0, "")
