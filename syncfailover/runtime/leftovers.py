"""What the collector found to be left over, kept for a moment when locks may be taken.

The collector may run in a thread that holds any lock. Appending to a deque takes none.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Callable, Deque


class Leftovers:
    """Things to do; false where there are none."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: Deque[Callable[[], None]] = deque()

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self._waiting)

    def add(self, leftover: Callable[[], None]) -> None:
        """Have this done later."""
        self._waiting.append(leftover)

    def clear_up(self) -> None:
        """Do what there is, holding no lock."""
        while self._waiting:
            with suppress(IndexError):  # another thread took it
                self._waiting.popleft()()

    def forget(self) -> None:
        """Do none of it: it was another process's."""
        self._waiting.clear()
