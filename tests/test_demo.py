"""The demo, run as users run it; its verdict, on made-up tallies; and the tables that it draws."""

import io
import re
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from terminal import HIDE_CURSOR, SHOW_CURSOR, OnTerminal, environment

from syncfailover.demo import NAMES, Plan, run
from syncfailover.events import AttemptRecord
from syncfailover.live_table import Canvas, bar, is_terminal
from syncfailover.tally import Called, Tally, objections, verdict
from syncfailover.text_table import ASCII, FANCY, Cell, Column, clip, glyphs_for, plain, table


def demo(*words: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Run the demo with its output in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "syncfailover", "demo", *words],
        capture_output=True,
        text=True,
        env=environment(**extra),
        timeout=30,
        check=False,
    )


def test_in_a_pipe_the_whole_story_is_told_in_plain_ascii() -> None:
    """Without a terminal the demo prints lines: all serve, one dies, the calls go on, it comes back; exit 0."""
    done = demo("--seconds", "4", "--seed", "1", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "\x1b" not in done.stdout
    story = [
        "KILLED alpha",
        "alpha: breaker opens",
        "REVIVED alpha",
        "alpha takes traffic again",
        "PASSED: none of",
    ]
    places = [done.stdout.index(chapter) for chapter in story]
    assert places == sorted(places)
    totals = next(line for line in done.stdout.splitlines() if line.startswith("all "))
    before, during, after, failed = (int(word) for word in totals.split()[1:5])
    assert min(before, during, after, failed) > 0
    assert f"PASSED: none of {before + during + after} calls failed" in done.stdout


def test_when_everybody_dies_the_demo_fails() -> None:
    """The verdict is not scripted: with nobody left to serve, calls fail, the demo says so and exits with 1."""
    done = demo("--seconds", "2", "--plain", "--kill", "alpha", "--kill", "beta", "--kill", "gamma")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    last = lines[-1]
    assert re.match(r"FAILED: \d+ of \d+ calls failed \(the first: ", last)
    assert "nobody else was there to serve" in last
    trials = [line for line in lines if "trial failed" in line or "half-open" in line]
    assert len(trials) <= 2 * 2 * len(NAMES), (
        "every call is a trial then, and told once of each endpoint and act"
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_on_a_terminal_it_redraws_in_place_and_leaves_the_terminal_as_it_was() -> None:
    """The live view moves the cursor up and draws over itself; at the end the cursor is back and nothing changed."""
    terminal = OnTerminal("demo", "--seconds", "3")
    terminal.read_until("PASSED: ")
    code, settings = terminal.end()
    shown = terminal.shown
    assert code == 0
    assert shown.count(HIDE_CURSOR) == shown.count(SHOW_CURSOR) == 1
    assert shown.index(HIDE_CURSOR) < shown.index("KILLED alpha") < shown.index(SHOW_CURSOR)
    assert len(re.findall(r"\x1b\[\d+A", shown)) >= 10
    assert "\x1b" not in shown[shown.index(SHOW_CURSOR) + len(SHOW_CURSOR) :]
    assert settings == terminal.settings


def test_no_line_is_longer_than_a_narrow_terminal() -> None:
    """On 40 columns the live view leaves columns out instead of wrapping; Ctrl-C ends it cleanly with 130."""
    terminal = OnTerminal("demo", "--seconds", "60", columns=40)
    terminal.read_until("threads call")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until("interrupted")
    code, settings = terminal.end()
    assert code == 130
    assert "Traceback" not in terminal.shown
    assert terminal.shown.index(SHOW_CURSOR) < terminal.shown.index("interrupted")
    assert settings == terminal.settings
    live = terminal.live()
    assert any(line.startswith("alpha") for line in live)
    assert max(map(len, live)) <= 39


def test_afterwards_no_thread_is_left() -> None:
    """The demo closes client, upstreams and callers before it returns."""
    before = set(threading.enumerate())
    out = io.StringIO()
    assert run(Plan(seconds=2.0, rate=60.0, threads=3), out, live=False) == 0, out.getvalue()
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:  # a connection's thread ends by itself once its socket is shut
        thread.join(2)
    assert not any(thread.is_alive() for thread in left)


def answered(name: str, at: float, *, after_failing_at: str = "") -> Called:
    """Make a call that an endpoint answered."""
    failed = [AttemptRecord(after_failing_at, "never_sent", "refused", None, 0, 1, None, maybe_billed=False)]
    ok = AttemptRecord(name, "ok", "ok", 200, 0, 30.0, 0.5, maybe_billed=True)
    return Called(at, [*(failed if after_failing_at else ()), ok], None)


def tally_of(*calls: Called) -> Tally:
    """Count calls of a play in which alpha dies at 10 and revives at 20."""
    tally = Tally(NAMES, killed=["alpha"])
    tally.turns = [10.0, 20.0]
    for call in calls:
        tally.add(call)
    return tally


def test_a_play_that_comes_out_well_has_no_objections() -> None:
    """All calls answered, the others serving meanwhile and the killed serving again: that passes, in numbers."""
    tally = tally_of(
        answered("alpha", 1), answered("beta", 11, after_failing_at="alpha"), answered("alpha", 22)
    )
    assert objections(tally) == []
    assert verdict(tally) == (
        "PASSED: none of 3 calls failed; with alpha dead for 10.0 s, beta and gamma answered 1 calls, "
        "and 2.0 s after the revival alpha took traffic again (1 calls)."
    )
    assert tally.headline() == "3 calls answered, 0 failed, 1 saved by failover, $1.5000"
    assert (tally.failed_attempts["alpha"], tally.latency_ms(["alpha"])) == (1, 30.0)


@pytest.mark.parametrize(
    ("calls", "objection"),
    [
        (
            [answered("beta", 11), answered("alpha", 21), Called(12, (), "no endpoint")],
            "1 of 3 calls failed (the first: no endpoint)",
        ),
        ([answered("alpha", 21)], "nobody else was there to serve with alpha dead"),
        ([answered("beta", 11), answered("alpha", 9)], "alpha served no call after the revival"),
    ],
)
def test_each_broken_promise_is_an_objection(calls: Any, objection: str) -> None:
    """Each of the three promises, broken alone, is named and fails the demo."""
    tally = tally_of(*calls)
    assert objections(tally) == [objection]
    assert verdict(tally) == f"FAILED: {objection}."


COLUMNS = [Column("name", 4), Column("n", 1, ">", rank=2), Column("why", 5, rank=1, elastic=True)]
ROWS = [[Cell("alpha"), Cell("12"), Cell("connect refused")]]


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (None, "alpha  12  connect refused"),
        (26, "alpha  12  connect refused"),
        (20, "alpha  12  connect.."),
        (16, "alpha  12  con.."),
        (15, "alpha  connec.."),
        (12, "alpha  con.."),
        (11, "alpha"),
        (4, "al.."),
        (1, "."),
    ],
)
def test_a_table_gives_way_to_a_narrow_terminal(width: Any, row: str) -> None:
    """First the elastic column shrinks, then the least important are left out, at last the first is cut."""
    assert plain(table(COLUMNS, ROWS, width)[1]) == row


def test_text_is_cut_and_bars_are_drawn_to_measure() -> None:
    """A cut text has the width asked for; a bar is a share, and never empty for something."""
    assert [clip("abcdef", width, "..") for width in (0, 1, 3, 6)] == ["", ".", "a..", "abcdef"]
    assert [bar(value, 10, 4, "#") for value in (0, 0.1, 5, 10, 99)] == ["", "#", "##", "####", "####"]


@pytest.mark.parametrize(
    ("name", "value", "welcome"),
    [("UNRELATED", "1", True), ("NO_COLOR", "1", False), ("CI", "true", False), ("TERM", "dumb", False)],
)
def test_escape_codes_only_where_they_are_welcome(
    name: str, value: str, welcome: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR, CI and a dumb terminal turn the live view off; so does everything that is no terminal."""
    for variable in ("CI", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    terminal = io.StringIO()
    assert is_terminal(terminal) is False
    terminal.isatty = lambda: True
    assert is_terminal(terminal) is welcome


@pytest.mark.parametrize(("encoding", "glyphs"), [("utf-8", FANCY), ("ascii", ASCII), ("latin-1", ASCII)])
def test_glyphs_fit_the_encoding(encoding: str, glyphs: Any) -> None:
    """Where the output cannot take a sign, letters stand in for it."""
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding) as out:
        assert glyphs_for(out) == glyphs


def test_a_canvas_never_draws_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block taller than the terminal is cut, for one that scrolls cannot be drawn over."""
    monkeypatch.setenv("COLUMNS", "11")
    monkeypatch.setenv("LINES", "4")
    out = io.StringIO()
    canvas = Canvas(out)
    canvas.draw([[Cell("x" * 20, "red")]] * 9)
    canvas.draw([[Cell("end")]])
    first, second = out.getvalue().split("\x1b[3A")
    assert first.count("\n") == 3
    assert "x" * 10 in first
    assert "x" * 11 not in first
    assert second == "\rend\x1b[K\n\x1b[J"
