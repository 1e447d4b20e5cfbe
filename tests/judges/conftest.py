"""The judges: two llmock servers, an aimock server, and clients of them. A judge that is missing fails the test."""

import os
import shutil
import socket
import subprocess
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple
from urllib.request import urlopen

import pytest

from syncfailover import Endpoint, FailoverClient, FailoverRetry

INSTALL = 'pip install -e ".[test,judges]" on Python 3.11 or newer (docs/judges.md)'
AIMOCK = "@copilotkit/aimock@1.43.0"


def judge(name: str) -> Any:
    """Import a module of a judge, late: the default run does without."""
    try:
        return import_module(name)
    except ImportError as error:
        return pytest.fail(f"{error}: {INSTALL}")


class Pair(NamedTuple):
    """A primary, which has the faults, and a fallback, which has none: two llmock servers, as its handles."""

    primary: Any
    fallback: Any

    def endpoints(self, **of_primary: Any) -> List[Endpoint]:
        """Make endpoints of the two; the fallback has the lower priority."""
        return [
            Endpoint("primary", self.primary.base_url("openai"), "sk-primary", **of_primary),
            Endpoint("fallback", self.fallback.base_url("openai"), "sk-fallback", priority=1),
        ]


@pytest.fixture(scope="session")
def llmock_servers() -> Iterator[List[Any]]:
    """Two llmock servers on sockets of this machine, for all tests."""
    server = judge("llmock.testing").LLMockServer
    with server() as one, server() as other:
        yield [one, other]


@pytest.fixture
def pair(llmock_servers: List[Any]) -> Pair:
    """The two, with a clean slate; what they say tells who says it."""
    handle = judge("llmock.pytest_plugin").LLMock
    primary, fallback = (handle(server).reset() for server in llmock_servers)
    primary.reply("I am the primary, and this is my whole answer.", times=None)
    fallback.reply("I am the fallback, and this is my whole answer.", times=None)
    return Pair(primary, fallback)


@pytest.fixture
def make_client() -> Iterator[Callable[..., FailoverClient]]:
    """A function that makes unprobed clients with short pauses, closed after the test."""
    made: List[FailoverClient] = []

    def make(endpoints: List[Endpoint], **options: Any) -> FailoverClient:
        retry = FailoverRetry(3, backoff_base_s=0.1)
        options = {"model": "gpt-4o", "probe_when": "never", "timeout": 10.0, "max_retries": retry, **options}
        made.append(FailoverClient(endpoints, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="session")
def aimock_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API root of a running aimock, which npm installs to $AIMOCK_HOME unless it is there."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.fail("node and npm are missing: install Node.js 20.15 or newer (docs/judges.md)")
    home = Path(os.environ.get("AIMOCK_HOME") or tmp_path_factory.mktemp("aimock"))
    program = home / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    if not program.exists():
        command = [
            npm,
            "install",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            "--prefix",
            str(home),
            AIMOCK,
        ]
        subprocess.run(command, check=True, timeout=120)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    says = Path(__file__).with_name("aimock.json")
    options = ["-p", str(port), "-f", str(says), "--validate-on-load", "--log-level", "warn"]
    process = subprocess.Popen([node, str(program), *options])
    try:
        _wait_for(f"http://127.0.0.1:{port}/ready", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10.0)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=1.0):  # noqa: S310 - a URL of ours
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"aimock does not serve {url}; its exit status is {process.poll()}")
