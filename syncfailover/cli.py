"""The command line: `chat` asks, `watch` and `check` look, `init` begins, `demo` shows, `upstream` plays an endpoint.

Exit codes: 0 all is well, 1 it is not, 2 wrong usage or configuration, 130 interrupted, 141 nobody reads the output any
more.
"""

import argparse
import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import Callable, Iterator, NoReturn, Optional, Sequence

from ._version import __version__
from .commands import chat, check, demo, init, upstream, watch
from .errors import ConfigurationError, FailoverError

_PROG = "syncfailover"
# As shells report a process that SIGINT (2) or SIGPIPE (13) ended: 128 and the signal's number.
_INTERRUPTED, _BROKEN_PIPE = 130, 141
_FAILED, _USAGE = 1, 2
_COMMANDS = (chat, watch, check, init, demo, upstream)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command and return its exit code; `argv` is what follows the program's name."""
    _open_what_is_closed()
    if hasattr(sys.stdout, "reconfigure"):  # a name that the terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _sigterm_as_ctrl_c():
            code = _run(argv)
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return _BROKEN_PIPE
    except OSError as error:  # a full disk, say: the commands deal with all others
        _forget_stdout()
        with suppress(OSError):
            print(
                f"{_PROG}: error: the output cannot be written ({error.strerror or error})", file=sys.stderr
            )
        return _FAILED
    return code


def _open_what_is_closed() -> None:
    """Put something in the place of a standard stream that a service was started without."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - until the end


def _run(argv: Optional[Sequence[str]]) -> int:
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except FailoverError as error:
        print(f"{_PROG}: error: {error}", file=sys.stderr)
        return _USAGE if isinstance(error, ConfigurationError) else _FAILED
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        _PROG, description="Keeps client.chat(...) working when an LLM endpoint does not."
    )
    parser.add_argument("--version", action="version", version=f"{_PROG} {__version__}")
    parser.set_defaults(command=lambda _arguments: _help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0
