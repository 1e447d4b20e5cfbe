"""The command line: `demo` shows what this package does, `check` watches endpoints, `upstream` plays one.

Exit codes: 0 all is well, 1 it is not, 2 wrong usage, 130 interrupted, 141 nobody reads the output any more.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import (
    AbstractSet,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
)

from . import providers
from ._version import __version__
from .adapter import EndpointRegistry
from .demo import NAMES, Plan, run
from .endpoint import ApiKey, Endpoint
from .errors import ConfigurationError
from .live_table import Cell, Column, glyphs_for, is_terminal, plain, table, width_of
from .policy.health import ProbeResult
from .runtime.monitor import HealthMonitor
from .runtime.probe import HttpProbe
from .runtime.transport import Transports
from .testing import FakeUpstream, Fault, SeenRequest, parse_fault
from .validation import number

_PROG = "syncfailover"
# As shells report a process that SIGINT (2) or SIGPIPE (13) ended: 128 and the signal's number.
_INTERRUPTED, _BROKEN_PIPE = 130, 141
_USAGE = 2

#: Where each provider's keys are looked for, separated by commas.
KEY_VARIABLES = {
    "holysheep": "HOLYSHEEP_API_KEYS",
    "openai": "OPENAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
}


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


# demo


def _demo(arguments: argparse.Namespace) -> int:
    plan = Plan(
        arguments.seconds,
        arguments.rate,
        arguments.threads,
        tuple(dict.fromkeys(arguments.kill or Plan().killed)),
        arguments.seed,
    )
    with _sigterm_as_ctrl_c():
        return run(plan, sys.stdout, live=not arguments.plain and is_terminal(sys.stdout))


# check


def _check(arguments: argparse.Namespace) -> int:
    endpoints = _endpoints(arguments)
    registry = EndpointRegistry(endpoints, probe_timeout=arguments.timeout)
    transports = Transports(registry.endpoints)
    monitor = HealthMonitor(registry, HttpProbe(transports), timeout=arguments.timeout, probe_when="never")
    try:
        checks = [_Check(e, result) for e, result in zip(registry.endpoints, monitor.probe_all())]
    finally:
        monitor.close()
        transports.close()
    print(_as_json(checks) if arguments.json else _as_table(checks))
    return 0 if all(check.up for check in checks) else 1


class _Check(NamedTuple):
    """An endpoint, and what its probe found."""

    endpoint: Endpoint
    result: ProbeResult

    @property
    def up(self) -> bool:
        """Whether it would serve a call: a host that refuses the key will not."""
        return self.result.alive and not self.result.key_refused


def _summary(checks: Sequence[_Check]) -> str:
    """Say it in one line, as Nagios wants it first."""
    down = [check for check in checks if not check.up]
    if not down:
        return f"OK: {len(checks)} of {len(checks)} endpoints up"
    which = ", ".join(f"{check.endpoint.name}: {check.result.detail}" for check in down)
    return f"CRITICAL: {len(down)} of {len(checks)} endpoints down ({which})"


def _as_table(checks: Sequence[_Check]) -> str:
    columns = (
        Column("name", 4),
        Column("status"),
        Column("HTTP", rank=1),
        Column("latency", align=">", rank=2),
        Column("detail", 12, rank=3, elastic=True),
    )
    ellipsis = glyphs_for(sys.stdout).ellipsis
    lines = table(columns, [_row(check) for check in checks], width_of(sys.stdout), ellipsis)
    return "\n".join([_summary(checks), "", *map(plain, lines)])


def _row(check: _Check) -> List[Cell]:
    result = check.result
    status = "-" if result.status is None else str(result.status)
    latency = "-" if result.latency_ms is None else f"{result.latency_ms:.0f} ms"
    return [
        Cell(text) for text in (result.endpoint, "up" if check.up else "down", status, latency, result.detail)
    ]


def _as_json(checks: Sequence[_Check]) -> str:
    endpoints = [
        {"url": check.endpoint.probe_url(), "up": check.up, **check.result._asdict()} for check in checks
    ]
    return json.dumps(
        {"up": all(c.up for c in checks), "summary": _summary(checks), "endpoints": endpoints}, indent=2
    )


def _endpoints(arguments: argparse.Namespace) -> List[Endpoint]:
    """Make the endpoints that were named, or those whose keys are in the environment."""
    path = {} if arguments.path is None else {"health_check_path": arguments.path}
    if arguments.url:
        return _named_endpoints(arguments, path)
    variables = dict(KEY_VARIABLES)
    if arguments.provider:
        variables = {arguments.provider: arguments.key_env or KEY_VARIABLES[arguments.provider]}
    elif arguments.key_env:
        raise ConfigurationError("--key-env: whose key? name a URL, or a --provider")
    found = [e for name, variable in variables.items() for e in _provider_endpoints(name, variable, path)]
    if not found:
        raise ConfigurationError(f"nothing to check: name a URL, or set {' or '.join(variables.values())}")
    return found


def _named_endpoints(arguments: argparse.Namespace, path: Dict[str, str]) -> List[Endpoint]:
    key = None
    if arguments.key_env:
        key = os.environ.get(arguments.key_env, "").strip()
        if not key:
            raise ConfigurationError(f"--key-env: the environment variable {arguments.key_env} is not set")
    named: List[Tuple[str, str]] = []
    for word in arguments.url:
        named.append(_name_and_url(word, {name for name, _url in named}))
    return [_named_endpoint(arguments.provider, name, url, key, path) for name, url in named]


def _named_endpoint(
    provider: Optional[str], name: str, url: str, key: ApiKey, path: Dict[str, str]
) -> Endpoint:
    if provider is None:
        return Endpoint(name, url, key, **path)  # type: ignore[arg-type]
    return providers.from_keys(provider, [key], name=name, base_url=url, **path)[0]


def _name_and_url(word: str, taken: AbstractSet[str]) -> Tuple[str, str]:
    """Split `name=url`; a URL without a name goes by host and port, or by itself where that is taken."""
    name, equals, url = word.partition("=")
    if equals and "://" not in name:
        return name, url
    host = re.split("[/?#]", word.partition("://")[2])[0].rpartition("@")[2]
    return (host if host and host not in taken else word), word


def _provider_endpoints(provider: str, variable: str, path: Dict[str, str]) -> List[Endpoint]:
    keys = [key.strip() for key in os.environ.get(variable, "").split(",") if key.strip()]
    return providers.from_keys(provider, keys, **path) if keys else []


# upstream


def _upstream(arguments: argparse.Namespace) -> int:
    upstream = FakeUpstream(arguments.name, text=arguments.text, host=arguments.host, port=arguments.port)
    upstream.script(*arguments.fault)
    if arguments.always:
        upstream.always(arguments.always)
    for channel, fault in ((upstream.calls, arguments.calls), (upstream.probes, arguments.probes)):
        if fault:
            channel.always(fault)
    with _sigterm_as_ctrl_c(), suppress(KeyboardInterrupt), _listening(upstream):
        print(upstream.url, flush=True)
        while True:
            for request in _news(upstream):
                print(_seen(request), flush=True)
    return 0


def _listening(upstream: FakeUpstream) -> FakeUpstream:
    try:
        return upstream.start()
    except OSError as error:
        where = upstream.origin.partition("://")[2]
        raise ConfigurationError(f"cannot listen on {where}: {error.strerror or error}") from None


def _news(upstream: FakeUpstream) -> List[SeenRequest]:
    """Wait for requests, take them out of the log and return them; an empty list from time to time."""
    news: List[SeenRequest] = []

    def take() -> List[SeenRequest]:  # under the log's lock, so that no request falls between the two steps
        news.extend(upstream.requests)
        upstream.clear_log()
        return news

    upstream.wait_for(take, timeout=1.0)
    return news


def _seen(request: SeenRequest) -> str:
    path = request.path.encode("ascii", "backslashreplace").decode()
    return f"{time.strftime('%H:%M:%S')}  {request.method} {path}  {_brief(request.fault)}"


def _brief(fault: Fault) -> str:
    """Write a fault with what was chosen of it: `Status(code=503)`."""
    chosen = [
        f"{f.name}={getattr(fault, f.name)!r}" for f in fields(fault) if getattr(fault, f.name) != f.default
    ]
    return f"{type(fault).__name__}({', '.join(chosen)})"


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
        description="Probe all endpoints once, in parallel. Exits with 0 if all are up, 1 if any is down. Without "
        f"a URL, the endpoints are those whose keys are in {', '.join(KEY_VARIABLES.values())}. Keys are taken from "
        "the environment only, since everybody can read a command line.",
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
