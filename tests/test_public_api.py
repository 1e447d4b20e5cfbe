"""The package as its users see it: names, documentation, and what importing it costs and starts."""

import inspect
import subprocess
import sys

import pytest

import syncfailover

DESIGN = (
    "FailoverClient FailoverSession FailoverAdapter Endpoint EndpointRegistry HealthMonitor HealthStatus ProbeResult "
    "CircuitBreaker BreakerState RoundRobin WeightedRoundRobin LowestLatency LeastBusy Cheapest FailoverRetry Timeouts "
    "ChatReply FailoverError ConfigurationError NoEndpointAvailable QueueFull QueueTimeout AllEndpointsFailed "
    "DeadlineExceeded RequestRejected AuthenticationFailed ModelNotFound ContextLengthExceeded ContentFiltered "
    "QuotaExhausted RateLimited InvalidReply StreamInterrupted BudgetExceeded providers"
).split()


def test_the_designs_names_are_there() -> None:
    """Every public name of the design can be imported from the root, and `__all__` is sorted and complete."""
    assert set(DESIGN) <= set(syncfailover.__all__)
    assert list(syncfailover.__all__) == sorted(syncfailover.__all__)
    public = {name for name, value in vars(syncfailover).items() if inspect.isclass(value) and name[0] != "_"}
    assert public <= set(syncfailover.__all__)


@pytest.mark.parametrize("name", [name for name in syncfailover.__all__ if name != "__version__"])
def test_every_public_object_is_documented(name: str) -> None:
    """Classes and their public methods say what they are for."""
    thing = getattr(syncfailover, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for attribute, value in vars(thing).items():
            if inspect.isfunction(value) and not attribute.startswith("_"):
                assert inspect.getdoc(value), f"{name}.{attribute}"


def fresh(code: str) -> str:
    """Run code in a new interpreter and return what it printed; anything on stderr is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_importing_loads_nothing_extra() -> None:
    """A fresh interpreter that imports us has loaded our three dependencies, theirs, and the standard library."""
    code = (
        "import sys, requests, cachetools; before = set(sys.modules); import syncfailover;"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before} - {'syncfailover'}"
        " - set(getattr(sys, 'stdlib_module_names', ()))))"
    )
    if sys.version_info >= (3, 10):
        assert fresh(code) == "[]"
    assert (
        fresh("import sys, syncfailover; print('pytest' in sys.modules, 'asyncio' in sys.modules)")
        == "False False"
    )


def test_importing_starts_nothing() -> None:
    """No thread, no socket (but the one by which urllib3 looks for IPv6): importing and making a client only prepares."""
    code = (
        "import socket, threading, requests; real = socket.socket; made = [];"
        "socket.socket = type('S', (real,), {'__init__': lambda self, *a, **k: (made.append(1), real.__init__(self, *a, **k))[1]});"
        "import syncfailover as s; s.FailoverClient([s.Endpoint('a', 'http://127.0.0.1:9')]);"
        "print(threading.active_count(), len(made))"
    )
    assert fresh(code) == "1 0"


def test_a_program_that_forgets_to_close_ends_at_once_and_silently() -> None:
    """Daemon threads do not keep the interpreter, and nothing is printed at exit."""
    code = (
        "from syncfailover import Endpoint, FailoverClient; from syncfailover.testing import FakeUpstream;"
        "up = FakeUpstream(); up.start();"
        "client = FailoverClient([Endpoint('a', up.url)], model='m', probe_interval=0.05);"
        "client.wait_until_ready(5); print(client.chat('Hi').text)"
    )
    assert fresh(code) == "Hello from upstream."
