"""A terminal of its own for the command line."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from typing import Any, Dict, List, Tuple

from command_line import clean_environment

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def environment(**extra: str) -> Dict[str, str]:
    """Return an environment in which escape codes are welcome wherever there is a terminal."""
    kept = {
        name: value
        for name, value in clean_environment().items()
        if name not in ("CI", "NO_COLOR", "COLUMNS", "LINES")
    }
    return {**kept, "TERM": "xterm", **extra}


class OnTerminal:
    """A command on a terminal of its own.

    Args:
        words: the command and its arguments.
        columns: width of the terminal.
        lines: its height.

    """

    def __init__(self, *words: str, columns: int = 100, lines: int = 30, **extra: str) -> None:
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.settings = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "syncfailover", *words],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=environment(**extra),
        )
        self.shown = ""

    def read_until(self, text: str) -> None:
        """Read until that text has been shown."""
        while text not in self.shown:
            ready, _, _ = select.select([self._master], [], [], 20)
            if not ready:
                self.process.kill()
                self.process.wait(10)
                raise AssertionError(f"{text!r} was not shown, but {self.shown!r}")
            self.shown += os.read(self._master, 65536).decode(errors="replace")

    def end(self) -> Tuple[int, Any]:
        """Read to the end; return the exit code and the settings that the terminal is left with."""
        settings = termios.tcgetattr(self._slave)
        os.close(self._slave)
        try:
            while True:
                data = os.read(self._master, 65536)
                if not data:
                    break
                self.shown += data.decode(errors="replace")
        except OSError:  # how Linux says that the last one has closed the terminal
            pass
        os.close(self._master)
        return self.process.wait(10), settings

    def live(self) -> List[str]:
        """Return the lines that were drawn while the cursor was hidden, without their escape codes."""
        drawn = self.shown[self.shown.index(HIDE_CURSOR) : self.shown.index(SHOW_CURSOR)]
        return [re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", line).strip("\r") for line in drawn.split("\n")]
