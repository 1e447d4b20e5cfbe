"""The sockets that this process opened. A forked child has a copy of each, and lets go of it.

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
        #: Whether the program is about to end: whoever is done with a connection closes it, for no pool is closed any more.
        self.for_the_last_time = False
        process.register(self)

    def add(self, sock: Any) -> None:
        """Remember a socket."""
        self._open.add(sock)

    def after_fork(self) -> None:
        """Take those so far for the parent's, and let nobody in this process read, write or shut down a single one.

        Nobody would but greenlets of gevent, which go on in a child, and those who drop a stream that is half read.
        """
        self._inherited.extend(self._open)
        self._open = weakref.WeakSet()
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
        except OSError:  # no descriptor is left
            return
        for sock in self._inherited:
            if sock.fileno() >= 0:  # -1: it was closed
                os.dup2(nothing, sock.fileno(), inheritable=False)
        os.close(nothing)

    def close_inherited(self) -> None:
        """Give back the descriptors; buffers and locks around them are left in whatever state they were."""
        inherited, self._inherited = self._inherited, []
        for sock in inherited:
            descriptor = sock.detach()
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)


#: Those of all clients.
own_sockets = OwnSockets()
