"""The `watch` command: how all endpoints are, again and again. It asks their health paths, and for no completion."""

import argparse
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Iterator, List, Optional, Protocol, TextIO, Tuple

from ..adapter import EndpointRegistry
from ..embedded import embedded_upstreams, endpoints_of
from ..live_table import STATE_COLUMNS, Canvas, is_terminal, state_cells
from ..policy.health import HealthStatus
from ..policy.snapshot import EndpointState, Snapshot
from ..runtime.monitor import HealthMonitor
from ..testing import Ok, Refuse
from ..text_table import Cell, Column, Line, glyphs_for, plain, table, width_of
from .arguments import add_config, found_settings, number_from

#: Seconds that the first checks may take beyond their timeout.
_GRACE_S = 0.2
#: In the demo, alpha answers so many checks, is dead for so many seconds, and so on: for some ten minutes.
_DEMO_INTERVAL_S, _DEMO_CHECKS, _DEMO_DEAD_S, _DEMO_DEATHS = 0.25, 12, 5.0, 75


def add_to(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "watch",
        help="show how all endpoints are, until Ctrl-C",
        description="Check the health of the configured endpoints and show how they are, until Ctrl-C: a live table on "
        "a terminal, else one table per interval. Health checks only, never a completion, so that it costs nothing.",
        epilog="Exit codes: 0 at the end, by Ctrl-C too, 2 wrong usage or configuration. How often endpoints are "
        "checked is probe_interval in the configuration, 2 s by default. To act on what is down: syncfailover check",
    )
    parser.set_defaults(command=_watch)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group()
    add_config(source)
    source.add_argument(
        "--demo",
        action="store_true",
        help="watch endpoints embedded in this command, of which one dies and comes back; needs no key",
    )
    add(
        "--interval",
        metavar="SECONDS",
        type=number_from(0.1),
        default=1.0,
        help="seconds between two tables (default: %(default)g)",
    )
    add("--seconds", type=number_from(0.1), help="end after that long (default: Ctrl-C ends it)")
    add("--once", action="store_true", help="print one table, after the first check of each endpoint")
    add("--plain", action="store_true", help="tables one after another, as without a terminal")


def _watch(arguments: argparse.Namespace) -> int:
    live = is_terminal(sys.stdout) and not (arguments.plain or arguments.once)
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        registry = stack.enter_context(_registry(arguments))
        monitor = HealthMonitor(registry)
        stack.callback(monitor.close)
        monitor.probe_soon()
        view: View = LiveTables(stack.enter_context(Canvas(sys.stdout))) if live else PlainTables(sys.stdout)
        seconds = 0.0 if arguments.once else arguments.seconds
        if not live:  # nobody wants to read that nothing is known yet
            registry.wait_for(_is_complete, monitor.timeout + _GRACE_S)
        watch(registry, view, arguments.interval, seconds)
    return 0


@contextmanager
def _registry(arguments: argparse.Namespace) -> Iterator[EndpointRegistry]:
    if not arguments.demo:
        found = found_settings(arguments.config, "syncfailover watch --demo needs none of it")
        probes = {name: found.options[name] for name in _PROBE_OPTIONS if name in found.options}
        yield EndpointRegistry(found.endpoints, **probes)
        return
    with embedded_upstreams("") as upstreams:
        life = [*([Ok()] * _DEMO_CHECKS), Refuse(_DEMO_DEAD_S)]
        upstreams["alpha"].probes.script(*life * _DEMO_DEATHS)
        yield EndpointRegistry(endpoints_of(upstreams), probe_interval=_DEMO_INTERVAL_S)


#: What of a client's options concerns health checks.
_PROBE_OPTIONS = ("probe_interval", "probe_timeout", "rise", "fall")


# What is shown when


class View(Protocol):
    """Shows how everything is to somebody."""

    def show(self, now: Snapshot) -> None:
        """Show it."""

    def is_news(self, now: Snapshot) -> bool:
        """Tell whether it should be shown before its time."""


def watch(registry: EndpointRegistry, view: View, interval_s: float, seconds: Optional[float]) -> None:
    """Show how everything is, at every interval and when there is news; None goes on until interrupted."""
    ends_at = float("inf") if seconds is None else time.monotonic() + seconds
    while True:
        view.show(registry.snapshot())
        left = ends_at - time.monotonic()
        if left <= 0:
            return
        registry.wait_for(view.is_news, min(interval_s, left))


def _is_complete(now: Snapshot) -> bool:
    return all(state.status is not HealthStatus.UNKNOWN for state in now.endpoints)


class PlainTables:
    """Tables one after another, for a pipe or a log."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._before = ""

    def show(self, now: Snapshot) -> None:
        """Print a table."""
        lines = table(_COLUMNS, _rows(now), width_of(self._out), glyphs_for(self._out).ellipsis)
        self._out.write("\n".join([f"{self._before}{_headline(now)}", *map(plain, lines), ""]))
        self._out.flush()
        self._before = "\n"

    def is_news(self, _now: Snapshot) -> bool:
        """Keep to the interval."""
        return False


class LiveTables:
    """A table on a terminal that is drawn over itself, at once where an endpoint changes."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._shown: List[Tuple[object, ...]] = []

    def show(self, now: Snapshot) -> None:
        """Draw the table anew; where it is too high, those that take calls are left out first."""
        self._shown = _states(now)
        room = max(1, self._canvas.height - 3)  # headline, blank line, heading
        rows, ellipsis = _rows(now), self._canvas.glyphs.ellipsis
        rest: List[Line] = []
        if len(rows) > room:
            rows = _rows(now, takes_calls=False) + _rows(now, takes_calls=True)
            rest = [[Cell(f"{ellipsis} and {len(rows) - room + 1} more", "dim")]]
            rows = rows[: room - 1]
        lines = table(_COLUMNS, rows, self._canvas.width, ellipsis)
        self._canvas.draw([[Cell(_headline(now), "bold")], [], *lines, *rest])

    def is_news(self, now: Snapshot) -> bool:
        """Tell whether an endpoint is another than it was when shown."""
        return _states(now) != self._shown


def _states(now: Snapshot) -> List[Tuple[object, ...]]:
    return [(state.status, state.breaker, state.eligible) for state in now.endpoints]


_COLUMNS = (
    *STATE_COLUMNS,
    Column("retry in", align=">", rank=6),
    Column("reason", 9, rank=3, elastic=True),
)


def _rows(now: Snapshot, *, takes_calls: Optional[bool] = None) -> List[Line]:
    """Write a row per endpoint, of all or of those that take calls or do not."""
    return [_row(state, now) for state in now.endpoints if takes_calls in (None, state.eligible)]


def _row(state: EndpointState, now: Snapshot) -> Line:
    retry_in = "-" if state.retry_at is None else f"{max(0.0, state.retry_at - now.taken_at):.1f} s"
    return [*state_cells(state), Cell(retry_in), Cell(state.reason, "dim")]


def _headline(now: Snapshot) -> str:
    takers = sum(state.eligible for state in now.endpoints)
    return f"{time.strftime('%H:%M:%S')}  {takers} of {len(now)} endpoints take calls"
