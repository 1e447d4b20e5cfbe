"""A process that is stopped for seconds, as a laptop's are when its lid is closed, and goes on."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Iterator, List

import pytest

from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server

PROGRAM = """
    import logging, sys
    from syncfailover import Endpoint, FailoverClient
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    endpoints = [Endpoint(name, url, "key", max_latency_ms=5000.0) for name, url in zip("abc", sys.argv[1:])]
    with FailoverClient(endpoints, model="m", probe_interval=0.2, probe_timeout=0.5) as client:
        client.wait_until_ready()
        logging.info("ready")
        for line in sys.stdin:
            logging.info("%s %s %s", line.strip(), client.chat("Hi").attempts[0].outcome, client.status())
"""


@pytest.fixture
def slow() -> Iterator[List[FakeUpstream]]:
    """Three upstreams that take so long that somebody is always being asked."""
    made = [FakeUpstream(name, delay_s=0.15).start() for name in "abc"]
    yield made
    for upstream in made:
        upstream.stop()


def test_nobody_is_marked_down_for_having_slept(slow: List[FakeUpstream]) -> None:
    """Five freezes, each with probes under way; the first call after each is answered by the first endpoint asked."""
    command = [sys.executable, "-u", "-c", textwrap.dedent(PROGRAM), *(upstream.url for upstream in slow)]
    lines: List[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:

        def until(beginning: str) -> str:
            for line in child.stdout or ():
                lines.append(line.strip())
                if line.startswith(beginning):
                    return line
            raise AssertionError(lines)

        try:
            until("ready")
            for turn in range(5):
                time.sleep(0.3 + 0.07 * turn)
                os.kill(child.pid, signal.SIGSTOP)
                time.sleep(3.0)
                os.kill(child.pid, signal.SIGCONT)
                print(f"turn {turn}", file=child.stdin)
                assert until(f"turn {turn}").startswith(f"turn {turn} ok")
            child.stdin.close()
            assert child.wait(10.0) == 0
        finally:
            child.kill()
    assert sum("woke" in line for line in lines) == 5, lines
    assert not [line for line in lines if "unhealthy" in line], lines
