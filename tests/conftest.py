"""What all tests share: three upstreams and their endpoints, and that in CI a skipped test is a failed one."""

import os
import signal
from typing import Any, Callable, List

import pytest
from fleet import endpoints_of

from syncfailover import FailoverClient
from syncfailover.testing import FakeUpstream

# A shell that runs CI in the background has Ctrl-C ignored, and every child inherits that; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a CI run in which a test was skipped: what it needs is to be installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
