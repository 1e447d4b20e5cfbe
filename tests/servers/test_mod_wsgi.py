"""mod_wsgi-express: two applications in sub-interpreters of the same processes, each with a client of its own."""

import copy
import itertools
import os
import re
import signal
from pathlib import Path
from typing import Any, Callable, List, Tuple

import pytest
from serving import SITES, Server, load, program, prove

from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server

PROCESSES, THREADS = 2, 4
#: The two applications, each in an interpreter of its own; httpd's old processes find the new daemons by the same socket.
APPLICATIONS = """\
WSGISocketRotation Off
WSGIScriptAlias /second {sites}/django_site.py {group} application-group=second
WSGIScriptAlias / {sites}/flask_site.py {group} application-group=first
<Directory {sites}>
    Require all granted
</Directory>
"""
#: requests says so in every interpreter but the first of a process: charset_normalizer's compiled part, which only
#: guesses encodings, refuses to be loaded twice.
NOT_OURS = "ignore:Unable to find acceptable character detection dependency"
#: httpd runs no application as root. This root is another user to itself, and may read what root may.
UNPRIVILEGED = ["unshare", "--user", "--map-user=33", "--map-group=33"] if os.getuid() == 0 else []


@pytest.fixture
def httpd(server_of: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
    """A function that makes servers: whether daemon processes serve, and more options."""

    def make(*options: str, daemon: bool = True) -> Server:
        applications, root = tmp_path / "applications.conf", tmp_path / "root"
        root.mkdir()
        command = [
            *UNPRIVILEGED,
            program("mod_wsgi-express"),
            "start-server",
            "--application-type=static",
            "--host=127.0.0.1",
            "--port={port}",
            f"--server-root={root}",
            f"--python-path={SITES}",
            f"--include-file={applications}",
            f"--processes={PROCESSES}",
            f"--threads={THREADS}",
            "--locale=C.UTF-8",
            "--log-to-terminal",
            "--log-level=info",
            *options,
        ]
        server = server_of(command, PYTHONWARNINGS=NOT_OURS)
        group = f"process-group=127.0.0.1:{server.port}" if daemon else ""
        applications.write_text(APPLICATIONS.format(sites=SITES, group=group))
        return server

    return make


def interpreters(server: Server) -> Tuple[Server, Server]:
    """Return the server as its two applications see it."""
    second = copy.copy(server)
    second.url += "/second"
    return server, second


def ended_well(server: Server) -> bool:
    """Stop it: every process ends by itself, neither crashes nor is killed, and nothing else is in the error log."""
    assert server.stop() == 0
    lines = [line for line in server.stderr.splitlines() if line.startswith("[")]
    # httpd's own advice, on how many processes it should have, is no error.
    usual = re.compile(r"\[\w+:(notice|info)\] |\[mpm_")
    assert not [line for line in lines if not usual.search(line) or "exit signal" in line]
    stopping = set(map(int, re.findall(r"\[pid (\d+):.* Shutdown requested", server.stderr)))
    ended = set(map(int, re.findall(r"\[pid (\d+):.* Exiting (?:daemon )?process", server.stderr)))
    assert not stopping - ended
    return True


def calls(server: Server) -> int:
    """Count the calls of one application's clients."""
    return sum(state["calls"] for state in server.states(PROCESSES).values())


def alternately(first: Server, second: Server) -> Callable[[str, bool], Any]:
    """Ask one application and the other by turns, streamed or not."""
    turns = itertools.count()

    def ask(question: str, stream: bool) -> Any:
        return (first, second)[next(turns) // 2 % 2].ask(question, stream)

    return ask


def test_each_interpreter_has_a_client_of_its_own(httpd: Callable[..., Server]) -> None:
    """An endpoint dies under load, first of one application, then of the other, in the same processes: no call fails."""
    with httpd() as server:
        first, second = interpreters(server)
        assert set(first.states(PROCESSES)) == set(second.states(PROCESSES)), "the same processes"
        prove(first, workers=PROCESSES, threads=THREADS)
        assert calls(second) == 0, "nothing is shared"
        asked = calls(first)
        prove(second, workers=PROCESSES, threads=THREADS)
        assert calls(first) == asked
        assert ended_well(server)


def test_a_graceful_restart(httpd: Callable[..., Server], echoes: List[FakeUpstream]) -> None:
    """Daemon processes end and begin anew while both applications are asked and an endpoint is dead: no call fails.

    A restart of httpd itself is no proof of ours: on a busy machine mod_wsgi answers 503 in the moment between two of its
    sockets.
    """
    with httpd("--graceful-timeout=1") as server:
        both = interpreters(server)
        before = {pid for one in both for pid in one.states(PROCESSES)}

        def restart() -> None:
            for pid in before:
                os.kill(pid, signal.SIGUSR1)

        load(alternately(*both), 150, then={50: echoes[0].kill, 100: restart})
        while any(Path(f"/proc/{pid}").exists() for pid in before):
            load(alternately(*both), 50)
        echoes[0].revive()
        assert not before & set(load(alternately(*both), 100))
        assert ended_well(server)


def test_embedded(httpd: Callable[..., Server], echoes: List[FakeUpstream]) -> None:
    """Inside httpd's own processes, both applications are asked when an endpoint dies and returns: no call fails."""
    with httpd("--embedded-mode", daemon=False) as server:
        both = interpreters(server)
        load(alternately(*both), then={50: echoes[0].kill, 100: echoes[0].revive})
        states = [state for one in both for state in one.states(PROCESSES).values()]
        assert {state["mode"] for state in states} == {"active"}
        assert ended_well(server)
