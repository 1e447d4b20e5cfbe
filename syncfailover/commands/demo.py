"""The `demo` command: see `syncfailover/demo.py` for the play itself."""

import argparse
import sys
from typing import Any

from ..demo import Plan, run
from ..embedded import NAMES
from ..live_table import is_terminal
from .arguments import number_from, whole_number


def add_to(commands: Any) -> None:
    """Add this command to the command line."""
    plan = Plan()
    parser = commands.add_parser(
        "demo",
        help="watch three local endpoints serve, one die, and the calls go on",
        description="Three endpoints on this machine serve calls; one is killed and comes back. Needs no key and no "
        "network. Exits with 0 only if no call failed, the others served meanwhile and the killed served again.",
    )
    parser.set_defaults(command=_demo)
    add = parser.add_argument
    add(
        "--seconds",
        type=number_from(2),
        default=plan.seconds,
        help="how long it takes (default: %(default)g)",
    )
    add("--rate", type=number_from(1), default=plan.rate, help="calls per second (default: %(default)g)")
    add(
        "--threads",
        type=whole_number(1, 256),
        default=plan.threads,
        help="threads that call (default: %(default)s)",
    )
    add("--kill", action="append", choices=NAMES, help="who dies; may be repeated (default: alpha)")
    add("--plain", action="store_true", help="lines instead of a live table, as without a terminal")
    add("--seed", type=int, help="makes the random numbers behind jitter repeat")


def _demo(arguments: argparse.Namespace) -> int:
    killed = tuple(dict.fromkeys(arguments.kill or Plan().killed))
    plan = Plan(arguments.seconds, arguments.rate, arguments.threads, killed, arguments.seed)
    return run(plan, sys.stdout, live=not arguments.plain and is_terminal(sys.stdout))
