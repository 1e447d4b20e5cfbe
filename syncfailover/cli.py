"""The command line: `demo` shows what this package does, `check` probes endpoints, `upstream` plays one.

Exit codes: 0 all is well, 1 it is not, 2 wrong usage, 130 interrupted, 141 nobody reads the output any more.
"""

import argparse
import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import Any, Callable, Iterator, NoReturn, Optional, Sequence

from ._version import __version__
from .check import KEY_VARIABLES, as_json, as_table, check_all, endpoints_at, endpoints_of_environment
from .demo import NAMES, Plan, run
from .errors import ConfigurationError
from .fake_endpoint import play
from .live_table import is_terminal
from .testing import FakeUpstream, Fault, parse_fault
from .validation import number

_PROG = "syncfailover"
# As shells report a process that SIGINT (2) or SIGPIPE (13) ended: 128 and the signal's number.
_INTERRUPTED, _BROKEN_PIPE = 130, 141
_USAGE = 2


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command and return its exit code; `argv` is what follows the program's name."""
    if hasattr(sys.stdout, "reconfigure"):  # a name that the terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return _BROKEN_PIPE
    return code


def _run(argv: Optional[Sequence[str]]) -> int:
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except ConfigurationError as error:
        print(f"{_PROG}: error: {error}", file=sys.stderr)
        return _USAGE
    except SystemExit as end:  # argparse: help, version, usage
        return int(end.code or 0)


def _forget_stdout() -> None:
    """Keep the interpreter from complaining once more when it flushes at its end."""
    with suppress(OSError, ValueError):  # a stdout without a descriptor needs nothing
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """End by SIGTERM as by Ctrl-C, so that the terminal and the sockets are given back."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# The commands: from what was written to what is done


def _demo(arguments: argparse.Namespace) -> int:
    killed = tuple(dict.fromkeys(arguments.kill or Plan().killed))
    plan = Plan(arguments.seconds, arguments.rate, arguments.threads, killed, arguments.seed)
    with _sigterm_as_ctrl_c():
        return run(plan, sys.stdout, live=not arguments.plain and is_terminal(sys.stdout))


def _check(arguments: argparse.Namespace) -> int:
    whose = arguments.provider, arguments.path, arguments.key_env
    endpoints = endpoints_at(arguments.url, *whose) if arguments.url else endpoints_of_environment(*whose)
    checks = check_all(endpoints, timeout_s=arguments.timeout)
    print(as_json(checks) if arguments.json else as_table(checks))
    return 0 if all(check.up for check in checks) else 1


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
    with _sigterm_as_ctrl_c():
        play(upstream)
    return 0


# What may be written on the command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        _PROG, description="Keeps client.chat(...) working when an LLM endpoint does not."
    )
    parser.add_argument("--version", action="version", version=f"{_PROG} {__version__}")
    parser.set_defaults(command=lambda _arguments: _help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_demo(commands)
    _add_check(commands)
    _add_upstream(commands)
    return parser


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def _add_demo(commands: Any) -> None:
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
        type=_number_from(2),
        default=plan.seconds,
        help="how long it takes (default: %(default)g)",
    )
    add("--rate", type=_number_from(1), default=plan.rate, help="calls per second (default: %(default)g)")
    add(
        "--threads",
        type=_whole_number(1, 256),
        default=plan.threads,
        help="threads that call (default: %(default)s)",
    )
    add("--kill", action="append", choices=NAMES, help="who dies; may be repeated (default: alpha)")
    add("--plain", action="store_true", help="lines instead of a live table, as without a terminal")
    add("--seed", type=int, help="makes the random numbers behind jitter repeat")


def _add_check(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="probe all endpoints once; for cron and Nagios",
        description="Probe all endpoints once, in parallel, and say in the first line how it came out. Without a URL, "
        f"the endpoints are those whose keys are in {', '.join(KEY_VARIABLES.values())}. Keys are taken from the "
        "environment only, since everybody can read a command line.",
        epilog="Exit codes: 0 all endpoints are up (OK: ...), 1 any is down (DOWN: ...), 2 wrong usage. Nagios reads "
        "them as OK, WARNING and CRITICAL. For CRITICAL when any is down: syncfailover check ... || exit 2",
    )
    parser.set_defaults(command=_check)
    add = parser.add_argument
    add("url", nargs="*", metavar="[NAME=]URL", help="a base URL, such as https://api.example.com/v1")
    add(
        "--provider",
        choices=sorted(KEY_VARIABLES),
        help="probe the URLs as this provider's; or only its own keys",
    )
    add("--path", help="health path: from the host's root with a leading slash, else below the base URL")
    add(
        "--timeout", type=_number_from(0.01), default=1.0, help="seconds for one probe (default: %(default)g)"
    )
    add("--key-env", metavar="VAR", help="the environment variable that holds the key to probe with")
    add("--json", action="store_true", help="print JSON instead of a table")


def _add_upstream(commands: Any) -> None:
    parser = commands.add_parser(
        "upstream",
        help="play an endpoint that fails on command",
        description="Play an OpenAI-compatible endpoint until Ctrl-C. The first line printed is its base URL, then "
        "comes one line per request with what it was answered with. A SPEC is a fault, such as status:503, "
        "status:429,retry-after=2, hang, reset, refuse:5, html, ok,delay_s=0.5.",
    )
    parser.set_defaults(command=_upstream)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    add(
        "--port",
        type=_whole_number(0, 65535),
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


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number_from(minimum: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            return number("it", float(text), minimum=minimum)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {minimum:g}") from None

    return parse


def _whole_number(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isdecimal() and minimum <= int(text) <= maximum):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum} to {maximum}")
        return int(text)

    return parse
