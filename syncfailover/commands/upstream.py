"""The `upstream` command: see `syncfailover/fake_endpoint.py` for what it prints."""

import argparse
from typing import Any

from ..fake_endpoint import play
from ..testing import FakeUpstream, Fault, parse_fault
from .arguments import whole_number


def add_to(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "upstream",
        help="play an endpoint that fails on command",
        description="Play an OpenAI-compatible endpoint until Ctrl-C. The first line printed is its base URL, then "
        "comes one line per request with what it was answered with. A SPEC is a fault, such as status:503, "
        "status:429,retry-after=2, hang, reset, refuse:5, html, ok,delay_s=0.5, stream:100,interval_s=0.05, "
        "stream_cut:3, stream_stall:3.",
    )
    parser.set_defaults(command=_upstream)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    add(
        "--port",
        type=whole_number(0, 65535),
        default=8001,
        help="0 takes any free one (default: %(default)s)",
    )
    add("--name", default="upstream", help="its name (default: %(default)s)")
    add(
        "--fault",
        metavar="SPEC",
        action="append",
        type=_fault,
        default=[],
        help="for one call; repeat for the next",
    )
    add("--always", metavar="SPEC", type=_fault, help="for every call and every probe after that")
    add("--calls", metavar="SPEC", type=_fault, help="for every call after that")
    add("--probes", metavar="SPEC", type=_fault, help="for every probe")
    add("--text", default="Hello from {name}.", help="what completions say (default: %(default)r)")


def _upstream(arguments: argparse.Namespace) -> int:
    upstream = FakeUpstream(arguments.name, text=arguments.text, host=arguments.host, port=arguments.port)
    upstream.script(*arguments.fault)
    for answer_with, fault in (
        (upstream.always, arguments.always),
        (upstream.calls.always, arguments.calls),
        (upstream.probes.always, arguments.probes),
    ):
        if fault is not None:
            answer_with(fault)
    play(upstream)
    return 0


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
