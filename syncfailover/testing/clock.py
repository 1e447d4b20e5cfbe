"""A clock that moves only when told to, so that a test of thirty seconds takes none."""

from __future__ import annotations

import threading
from typing import List


class ManualClock:
    """Stand in for ``time.monotonic`` and ``time.sleep`` wherever a clock is an argument.

    Call it to read the time in seconds. It never moves by itself; :meth:`advance` and :meth:`sleep` move it.
    One clock may be shared between threads.

    :param start: the first reading, in seconds.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        #: Every duration handed to :meth:`sleep` so far, in seconds, in order.
        self.sleeps: List[float] = []

    def __call__(self) -> float:
        """Read the time, in seconds."""
        return self._now

    def __repr__(self) -> str:
        """Show the reading."""
        return f"<ManualClock at {self._now:g} s>"

    def advance(self, seconds: float) -> None:
        """Let time pass.

        :param seconds: how much; ``ValueError`` when negative, since a monotonic clock never goes back.
        """
        with self._lock:
            self._move(seconds)

    def sleep(self, seconds: float) -> None:
        """Stand in for ``time.sleep``: time passes at once, and :attr:`sleeps` remembers it.

        :param seconds: how long the caller wanted to sleep; ``ValueError`` when negative.
        """
        with self._lock:
            self._move(seconds)
            self.sleeps.append(seconds)

    def _move(self, seconds: float) -> None:
        """Hold the lock when calling this."""
        if not seconds >= 0:  # written so that nan is refused too
            raise ValueError(f"seconds: {seconds!r} is not 0 or more; a monotonic clock never goes back")
        self._now += seconds
