"""The question of the `chat` command: what was written on the command line, and what was piped in."""

import select
import sys
from typing import Any, Optional

from ..errors import ConfigurationError

#: Seconds that stdin is given to begin beside a TEXT: a service's may be a pipe that nobody ever writes to.
_PATIENCE_S = 1.0


def asked(text: Optional[str]) -> str:
    """Put together the question; without a `text`, or for "-", it is what stdin has.

    Raises:
        ConfigurationError: stdin is no text.

    """
    parts = [] if text in (None, "-") else [str(text)]
    stdin = sys.stdin
    if text == "-" or (not _is_terminal(stdin) and (not parts or _begins(stdin))):
        parts.append(_read(stdin))
    return "\n\n".join(part for part in parts if part.strip())


def _is_terminal(stdin: Any) -> bool:
    """Tell whether a person would have to type; a closed stdin has nothing to read either."""
    return stdin is None or stdin.closed or stdin.isatty()


def _begins(stdin: Any) -> bool:
    """Tell whether anything comes, were it only the end."""
    try:
        if select.select([stdin], [], [], _PATIENCE_S)[0]:
            return True
    except (OSError, ValueError):  # not something that can be waited for: Windows, a test's stand-in
        return True
    sys.stderr.write(f"stdin is open, but nothing came for {_PATIENCE_S:g} s: it is not read\n")
    return False


def _read(stdin: Any) -> str:
    if stdin is None or stdin.closed:
        return ""
    try:
        return str(stdin.read()).rstrip("\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"stdin: is no text in {error.encoding} ({error.reason})") from None
    except OSError:  # it cannot be read at all, which is what an empty one comes to
        return ""
