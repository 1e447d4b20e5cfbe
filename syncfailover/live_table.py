"""A block on a terminal that is redrawn in place, and the demo's view in it; its stand-in for a pipe, lines."""

import os
import shutil
import time
from collections import deque
from typing import Deque, List, NamedTuple, Protocol, Sequence, TextIO

from .policy.breaker import BreakerState
from .policy.health import HealthStatus
from .policy.snapshot import EndpointState
from .text_table import Cell, Column, Line, clip, glyphs_for, table

#: Characters of the longest bar.
_BAR = 12
#: Lines of narration that stay in sight.
_TOLD = 7

_STATUS_STYLES = {
    HealthStatus.HEALTHY: "green",
    HealthStatus.DEGRADED: "yellow",
    HealthStatus.UNHEALTHY: "red",
}
_BREAKER_STYLES = {
    BreakerState.CLOSED: "green",
    BreakerState.HALF_OPEN: "yellow",
    BreakerState.OPEN: "red",
    BreakerState.FORCED_OPEN: "red",
}

# ECMA-48, "Select Graphic Rendition" and the cursor controls; ?25 is DEC's cursor.
_SGR = {"bold": "1", "dim": "2", "red": "1;31", "green": "32", "yellow": "33", "invert": "7"}
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_RESET, _ERASE_RIGHT, _ERASE_BELOW = "\x1b[0m", "\x1b[K", "\x1b[J"


def is_terminal(out: TextIO) -> bool:
    """Tell whether escape codes are welcome: a terminal that can, and nobody who asked for none."""
    if os.environ.get("NO_COLOR") or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        return False
    knows_ansi = os.name != "nt" or "WT_SESSION" in os.environ or "TERM" in os.environ
    return knows_ansi and out.isatty()


class Canvas:
    """A block of lines that is drawn over itself; as a context manager it hides the cursor meanwhile.

    Args:
        out: a terminal.

    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._height = 0
        self.glyphs = glyphs_for(out)

    @property
    def width(self) -> int:
        """Characters in a line; the last one stays free, for some terminals wrap after it."""
        return max(1, shutil.get_terminal_size().columns - 1)

    @property
    def height(self) -> int:
        """Lines at most: a block that scrolls cannot be drawn over."""
        return max(1, shutil.get_terminal_size().lines - 1)

    def draw(self, lines: Sequence[Line]) -> None:
        """Replace the block, in one write, so that it does not flicker."""
        shown = lines[: self.height]
        up = f"\x1b[{self._height}A" if self._height else ""
        body = "".join(f"\r{_painted(line, self.width)}{_ERASE_RIGHT}\n" for line in shown)
        self._height = len(shown)
        self._out.write(up + body + _ERASE_BELOW)
        self._out.flush()

    def __enter__(self) -> "Canvas":
        """Hide the cursor."""
        self._out.write(_HIDE_CURSOR)
        return self

    def __exit__(self, *error: object) -> None:
        """Give the terminal back as it was; what was drawn stays."""
        self._out.write(_RESET + _SHOW_CURSOR)
        self._out.flush()


def _painted(line: Line, width: int) -> str:
    parts: List[str] = []
    left = width
    for cell in line:
        text = cell.text[:left]
        left -= len(text)
        code = _SGR.get(cell.style)
        parts.append(f"\x1b[{code}m{text}{_RESET}" if code and text else text)
    return "".join(parts)


#: How an endpoint is, in a table; `state_cells` fills them.
STATE_COLUMNS = (
    Column("endpoint", 8),
    Column("status", 9, rank=1),
    Column("breaker", 9, rank=2),
    Column("latency", 7, ">", rank=7),
    Column("in flight", 9, ">", rank=8),
)


def state_cells(state: EndpointState) -> Line:
    """Write how an endpoint is, for `STATE_COLUMNS`."""
    return [
        Cell(state.name, "bold"),
        Cell(state.status.value, _STATUS_STYLES.get(state.status, "")),
        Cell(state.breaker.value, _BREAKER_STYLES.get(state.breaker, "")),
        Cell("-" if state.latency_ms is None else f"{state.latency_ms:.0f} ms"),
        Cell(str(state.in_flight)),
    ]


class Row(NamedTuple):
    """One endpoint at one moment."""

    state: EndpointState
    served: int
    #: Calls within the last second.
    rate: int
    #: Attempts that failed; the calls behind them may have been answered elsewhere.
    errors: int


class Board(NamedTuple):
    """Everything that a view shows at one moment."""

    acts: Sequence[str]
    #: Which of them is on.
    act: int
    seconds_left: float
    headline: str
    rows: Sequence[Row]


class View(Protocol):
    """Shows a play to somebody."""

    def told(self, text: str) -> None:
        """Take in a line of narration."""

    def show(self, board: Board) -> None:
        """Show how everything is; called several times per second."""


class PlainView:
    """Lines for a pipe or a log: what is told, and once in a second how everything is."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._next_at = 0.0

    def told(self, text: str) -> None:
        """Print it."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def show(self, board: Board) -> None:
        """Print a line, if the last one is a second old."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + 1.0
        who = "; ".join(
            f"{row.state.name} {row.state.status.value}/{row.state.breaker.value} {row.rate}/s"
            for row in board.rows
        )
        self.told(f"{time.strftime('%H:%M:%S')}  {board.headline} | {who}")


class LiveView:
    """A block on a terminal: the acts, a row per endpoint, the headline, and what was told last."""

    _COLUMNS = (
        *STATE_COLUMNS,
        Column("served", 6, ">", rank=3),
        Column("calls/s", 7, ">", rank=4),
        Column("", _BAR, rank=5),
        Column("errors", 6, ">", rank=6),
        Column("reason", 9, rank=9, elastic=True),
    )

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._glyphs = canvas.glyphs
        self._told: Deque[str] = deque(maxlen=_TOLD)

    def told(self, text: str) -> None:
        """Keep it for the next drawing."""
        self._told.append(text)

    def show(self, board: Board) -> None:
        """Draw everything anew."""
        width, ellipsis = self._canvas.width, self._glyphs.ellipsis
        busiest = max(1, sum(row.rate for row in board.rows))
        rows = [self._row(row, busiest) for row in board.rows]
        told = [Cell(clip(text, width, ellipsis), "dim") for text in self._told]
        latest = [Cell(cell.text, "bold") for cell in told[-1:]]
        lines: List[Line] = [
            self._acts(board),
            [],
            *table(self._COLUMNS, rows, width, ellipsis),
            [],
            [Cell(board.headline, "bold")],
            [],
            *([cell] for cell in (*told[:-1], *latest)),
        ]
        self._canvas.draw(lines)

    def _acts(self, board: Board) -> Line:
        line: List[Cell] = []
        for number, act in enumerate(board.acts):
            line.append(Cell(f" {number + 1} {act} ", "invert" if number == board.act else "dim"))
            line.append(Cell(f" {self._glyphs.arrow} " if number + 1 < len(board.acts) else "   "))
        return [*line, Cell(f"{board.seconds_left:.0f} s left", "dim")]

    def _row(self, row: Row, full: int) -> Line:
        state = row.state
        good = "green" if state.eligible else "red"
        return [
            *state_cells(state),
            Cell(str(row.served)),
            Cell(str(row.rate)),
            Cell(bar(row.rate, full, _BAR, self._glyphs.bar), good),
            Cell(str(row.errors), "red" if row.errors else ""),
            Cell(state.reason, "dim"),
        ]


def bar(value: float, full: float, width: int, glyph: str) -> str:
    """Draw a share of `full` as a bar of at most `width` signs; something that is not nothing shows."""
    if value <= 0 or full <= 0:
        return ""
    return glyph * max(1, min(width, round(width * value / full)))
