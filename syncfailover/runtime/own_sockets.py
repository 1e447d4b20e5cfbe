"""The sockets that this process opened. A forked child has a copy of each, and closes it.

A pool knows its idle connections only. One that another thread of the parent used, or was opening, at the moment of the
fork would stay open in the child for ever, so that the other end never learns that the parent has closed it.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Any, List

from . import process


class OwnSockets:
    """Knows sockets for as long as they are in use; a forked child starts with none."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._inherited: List[Any] = []
        process.register(self)

    def add(self, sock: Any) -> None:
        """Remember a socket."""
        self._open.add(sock)

    def after_fork(self) -> None:
        """Take those so far for the parent's."""
        self._inherited.extend(self._open)
        self._open = weakref.WeakSet()

    def close_inherited(self) -> None:
        """Close the copies of what the parent opened; neither it nor the other end notices.

        Nothing but the descriptor is touched: locks and buffers around it are in whatever state they were.
        """
        inherited, self._inherited = self._inherited, []
        for sock in inherited:
            descriptor = sock.detach()
            if descriptor >= 0:  # -1: it was closed
                with suppress(OSError):
                    os.close(descriptor)


#: Those of all clients.
own_sockets = OwnSockets()
