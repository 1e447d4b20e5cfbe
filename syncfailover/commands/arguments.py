"""What several commands have in common: numbers within bounds, and where the settings come from."""

import argparse
from typing import Callable, Optional

from .. import settings
from ..errors import ConfigurationError
from ..settings_environ import CONFIG
from ..validation import number


def number_from(minimum: float) -> Callable[[str], float]:
    """Return what reads a number of at least `minimum`."""

    def parse(text: str) -> float:
        try:
            return number("it", float(text), minimum=minimum)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {minimum:g}") from None

    return parse


def whole_number(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return what reads a whole number within these bounds."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and minimum <= int(text) <= maximum):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def add_config(parser: argparse._ActionsContainer) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a TOML file with endpoints and options, as `syncfailover init` prints one (default: the file that "
        f"{CONFIG} names, else the keys in {', '.join(names[0] for names in settings.KEY_VARIABLES.values())})",
    )


def found_settings(config: Optional[str], otherwise: str) -> settings.Settings:
    """Read that file, or the environment where none is named; `otherwise` is the way out where nothing is set."""
    if config is not None:
        return settings.from_file(config)
    try:
        return settings.from_env()
    except ConfigurationError as error:
        if error.field != CONFIG:
            raise
        text = f"{error.message}\n  --config FILE names such a file for one run\n  {otherwise}"
        raise ConfigurationError(text, field=error.field) from None
