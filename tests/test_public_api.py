"""The package as its users see it: names, documentation, and what importing it costs and starts."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import syncfailover

DESIGN = (
    "FailoverClient FailoverSession FailoverAdapter Endpoint EndpointRegistry HealthMonitor HealthStatus ProbeResult "
    "CircuitBreaker BreakerState RoundRobin WeightedRoundRobin LowestLatency LeastBusy Cheapest FailoverRetry Timeouts "
    "ChatReply ChatStream FailoverError ConfigurationError NoEndpointAvailable QueueFull QueueTimeout AllEndpointsFailed "
    "DeadlineExceeded RequestRejected AuthenticationFailed ModelNotFound ContextLengthExceeded ContentFiltered "
    "QuotaExhausted RateLimited InvalidReply StreamInterrupted BudgetExceeded providers"
).split()


def test_the_designs_names_are_there() -> None:
    """Every public name of the design can be imported from the root, and `__all__` is sorted and complete."""
    assert set(DESIGN) <= set(syncfailover.__all__)
    assert list(syncfailover.__all__) == sorted(syncfailover.__all__)
    assert set(syncfailover.__all__) <= set(dir(syncfailover))
    errors = {name for name, value in vars(syncfailover.errors).items() if _is_error(value)}
    assert errors <= set(syncfailover.__all__)


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, syncfailover.FailoverError)


def test_what_type_checkers_see_is_what_there_is() -> None:
    """The imports for type checkers name the very modules that names are loaded from at run time."""
    tree = ast.parse(Path(syncfailover.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        for alias in node.names
        if isinstance(node, ast.ImportFrom)
    }
    assert {name: module for name, module in seen.items() if module} == syncfailover._MODULE_OF
    assert {name for name, module in seen.items() if not module} == {"providers", "testing"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt export is told as Python tells it."""
    with pytest.raises(AttributeError, match="no attribute 'FailoverKlient'"):
        _ = syncfailover.FailoverKlient


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
