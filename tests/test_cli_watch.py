"""The `watch` command, run as users run it; and its table, on terminals of all sizes."""

import io
import signal
import subprocess
from pathlib import Path
from typing import Any, List

import pytest
from command_line import KEY, command, config_of, interrupt, into_closed_pipe, run
from terminal import SHOW_CURSOR, OnTerminal

from syncfailover import Endpoint, EndpointRegistry, ProbeResult
from syncfailover.commands.watch import LiveTables, PlainTables
from syncfailover.live_table import Canvas
from syncfailover.testing import FakeUpstream

FAST = ("probe_interval = 0.1", "probe_timeout = 0.5")


@pytest.fixture
def config(upstreams: List[FakeUpstream], tmp_path: Path) -> str:
    """A configuration of three upstreams that are probed often; the first one is the last."""
    return config_of(tmp_path, upstreams, *FAST)


def watch(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run `watch` with its output in a pipe."""
    return run("watch", *words, TEST_KEY=KEY)


def test_once_prints_one_table(config: str, upstreams: Any) -> None:
    """--once waits for the first checks, prints how everything is and ends with 0; it asks for no completion."""
    dead = upstreams[1]
    dead.kill()
    done = watch("--once", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    headline, heading, *rows = done.stdout.splitlines()
    assert headline.split(None, 1)[1] == "2 of 3 endpoints take calls"
    assert heading.split() == "endpoint status breaker latency in flight retry in reason".split()
    assert sorted(row.split()[:3] for row in rows) == sorted(
        [up.name, "unhealthy" if up is dead else "healthy", "closed"] for up in upstreams
    )
    assert next(row for row in rows if row.startswith(dead.name)).endswith("connect refused")
    assert all(request.is_probe for upstream in upstreams for request in upstream.requests)
    assert KEY not in done.stdout


def test_in_a_pipe_it_prints_a_table_per_interval(config: str, upstreams: Any) -> None:
    """Without a terminal, tables come one after another, without an escape code, until --seconds are over.

    Checks are made at the configuration's interval.
    """
    done = watch("--config", config, "--interval", "0.2", "--seconds", "0.7")
    assert (done.returncode, done.stderr) == (0, "")
    tables = done.stdout.split("\n\n")
    assert len(tables) in (4, 5)
    assert all(table.split(None, 1)[1].startswith("3 of 3 endpoints take calls\n") for table in tables)
    assert "\x1b" not in done.stdout
    assert all(len(upstream.requests) >= 4 for upstream in upstreams)


def test_on_a_terminal_a_death_shows_at_once(config: str, upstreams: Any) -> None:
    """The table is drawn over itself, between two intervals too; Ctrl-C gives the terminal back and exits with 0."""
    terminal = OnTerminal("watch", "--config", config, "--interval", "60", TEST_KEY=KEY)
    terminal.read_until("healthy")
    terminal.read_until("3 of 3 endpoints take calls")
    upstreams[0].kill()
    terminal.read_until("2 of 3 endpoints take calls")
    upstreams[0].revive()
    terminal.shown = terminal.shown[:10]
    terminal.read_until("3 of 3 endpoints take calls")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until(SHOW_CURSOR)
    code, settings = terminal.end()
    assert code == 0
    assert settings == terminal.settings
    assert terminal.shown.endswith(SHOW_CURSOR)
    assert "\x1b[6A" in terminal.shown


def test_it_stays_within_a_small_terminal(config: str) -> None:
    """On 40 columns and 5 lines no line wraps and nothing scrolls; what has no room is counted."""
    words = ("watch", "--config", config, "--seconds", "1")
    terminal = OnTerminal(*words, columns=40, lines=5, TEST_KEY=KEY)
    terminal.read_until(SHOW_CURSOR)
    assert terminal.end()[0] == 0
    lines = terminal.live()
    assert max(map(len, lines)) <= 39
    assert any(line.endswith("and 3 more") for line in lines)
    assert "\x1b[5A" not in terminal.shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_told_to(number: int, config: str) -> None:
    """Ctrl-C and SIGTERM are how it ends: exit code 0, and not a word on stderr."""
    how = command("watch", "--config", config, TEST_KEY=KEY)
    with subprocess.Popen(**how, stdout=subprocess.PIPE) as process:
        assert "3 of 3" in process.stdout.readline()
        code, _, complaint = interrupt(process, number)
    assert (code, complaint) == (0, "")


def test_nobody_reads_the_tables() -> None:
    """A closed pipe ends it without a word."""
    assert into_closed_pipe("watch", "--demo") == (141, "")


def test_the_demo_shows_a_death() -> None:
    """--demo needs no key and no configuration: one of its endpoints dies before long."""
    with subprocess.Popen(
        **command("watch", "--demo", "--interval", "0.5"), stdout=subprocess.PIPE
    ) as process:
        rows = (line.split() for line in process.stdout)
        assert "healthy" in next(row for row in rows if row[:1] == ["alpha"])
        assert next(row for row in rows if row[:2] == ["alpha", "unhealthy"])
        assert interrupt(process)[0] == 0


def registry_of(up: str, down: str) -> EndpointRegistry:
    """Make a registry with an endpoint per letter, of which these are up and those are down."""
    names = sorted(up + down)
    registry = EndpointRegistry([Endpoint(name, "http://127.0.0.1:9") for name in names])
    for name in names:
        registry.probed(ProbeResult(name, alive=name in up, detail="HTTP 200" if name in up else "refused"))
    return registry


@pytest.mark.parametrize(
    ("height", "shown"),
    [
        (20, ["a", "b", "c", "d", "e"]),
        (8, ["a", "b", "c", "d", "e"]),
        (7, ["b", "d", "a"]),
        (5, ["b"]),
        (2, []),
    ],
)
def test_where_it_is_too_high_those_that_take_calls_give_way(
    height: int, shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are shown in their order where they fit; else the dead come first and the rest is counted."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", str(height + 1))
    out = io.StringIO()
    LiveTables(Canvas(out)).show(registry_of(up="ace", down="bd").snapshot())
    text = out.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\r", "")
    assert [
        line.split()[0] for line in text.splitlines() if line[:1] in "abcde" and line[1:2] == " "
    ] == shown
    assert (f"and {5 - len(shown)} more" in text) == (0 < len(shown) < 5)
    assert text.count("\n") <= height


def test_news_is_another_state_and_only_for_a_terminal() -> None:
    """A live table is drawn anew when a state changed since it was shown; tables in a pipe keep to the interval."""
    registry = registry_of(up="ab", down="")
    live, lines = LiveTables(Canvas(io.StringIO())), PlainTables(io.StringIO())
    for view in (live, lines):
        view.show(registry.snapshot())
        assert not view.is_news(registry.snapshot())
    for _ in range(3):
        registry.probed(ProbeResult("a", alive=False, detail="refused"))
    assert live.is_news(registry.snapshot())
    assert not lines.is_news(registry.snapshot())
