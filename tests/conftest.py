"""What all tests share: three upstreams and their endpoints, and that in CI a skipped test is a failed one."""

import fcntl
import gc
import os
import signal
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import hypothesis
import pytest
from fleet import endpoints_of

from syncfailover import FailoverClient
from syncfailover.testing import FakeUpstream

# A shell that runs CI in the background has Ctrl-C ignored, and every child inherits that; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes, or to think of one, says what else the machine is doing.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> Optional[bool]:
    """Leave the proofs with real servers alone unless they are asked for: they import what nobody else needs."""
    asked_for = "server" in config.getoption("markexpr").replace("not server", "")
    servers = Path(__file__).with_name("servers")
    return True if collection_path == servers and not asked_for else None


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Keep those that must run alone for the end: each of them waits for whatever is running, and all wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("quiet") is not None)


def pytest_collection_finish() -> None:
    """Take thousands of tests out of the garbage collector's sight, which stopped all threads for a third of a second."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a CI run in which a test was skipped: what it needs is to be installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def quiet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let a test that is marked `quiet` run alone, where several processes run the tests: it measures time.

    All others hold the lock together. Whoever wants it alone keeps the turnstile shut until it has been, or the others
    would never all be out.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    shared: Path = tmp_path_factory.getbasetemp().parent
    alone = request.node.get_closest_marker("quiet") is not None
    with (shared / "turnstile").open("w") as turnstile, (shared / "quiet").open("w") as lock:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        if alone:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
            return
        fcntl.flock(lock, fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


@pytest.fixture
def upstreams(fake_upstreams: Callable[..., List[FakeUpstream]]) -> List[FakeUpstream]:
    """Three upstreams that serve."""
    return fake_upstreams(3)


@pytest.fixture
def make_client(upstreams: List[FakeUpstream]) -> Any:
    """A function that makes clients of the three upstreams, closed after the test; unprobed unless asked for."""
    made: List[FailoverClient] = []

    def make(endpoints: Any = None, **options: Any) -> FailoverClient:
        options = {"model": "gpt-4.1", "probe_when": "never", "timeout": 5.0, **options}
        client = FailoverClient(endpoints_of(upstreams) if endpoints is None else endpoints, **options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()
