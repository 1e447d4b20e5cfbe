"""The `init` command: a commented configuration file to start from."""

import argparse
import sys
from typing import Any

from ..starter import STARTER_TOML
from ..validation import reject


def add_to(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "init",
        help="print a commented configuration file to start from",
        description="Print a commented TOML file, for --config and for SYNCFAILOVER_CONFIG: "
        "`syncfailover init > syncfailover.toml`. It names the environment variables that hold the keys, and no key.",
    )
    parser.set_defaults(command=_init)
    parser.add_argument("--output", metavar="FILE", help="write it there instead; a file that exists is kept")


def _init(arguments: argparse.Namespace) -> int:
    if arguments.output is None:
        sys.stdout.write(STARTER_TOML)
        return 0
    try:
        with open(arguments.output, "x", encoding="utf-8") as file:  # noqa: PTH123 - "x" is what refuses
            file.write(STARTER_TOML)
    except FileExistsError:
        raise reject("--output", arguments.output, "a file that does not exist yet") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise reject("--output", arguments.output, f"a file that can be written ({reason})") from None
    sys.stderr.write(f"wrote {arguments.output}\n")
    return 0
