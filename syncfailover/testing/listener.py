"""The port itself: listening, shut, or silent. It is held throughout, so that it stays the same one.

A shut port stays bound without listening. Were it given back, another process could take it, and a client on the
same host could even connect to itself, when the kernel picks that very port as its source.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Callable, List, Optional

from .answer import State

_BACKLOG = 1024
_WAKE_S = 0.5  # shutdown() wakes accept() on Linux; elsewhere this timeout does
_SILENCE_S = 0.05  # on the loopback device a connect that takes longer was dropped
_MAX_FILLERS = 16


class Listener:
    """One port in one of the four states. Not thread-safe: the upstream switches it under a lock.

    :param port: 0 lets the system choose, the first time; the choice is kept.
    :param welcome: called in the listener's thread with each accepted socket, which it then owns.
    """

    def __init__(self, host: str, port: int, welcome: Callable[[socket.socket], None]) -> None:
        self.port = port
        self._host = host
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._welcome = welcome
        self._socket: Optional[socket.socket] = None
        self._thread: Optional[threading.Thread] = None
        self._fillers: List[socket.socket] = []

    def switch(self, state: State) -> None:
        """Turn the port into ``state``. Connections not accepted yet are reset.

        Raises ``OSError`` when the port cannot be had.
        """
        self._close()
        if state is State.STOPPED:
            return
        self._socket = self._bind()
        if state is State.UP:
            self._socket.listen(_BACKLOG)
            self._socket.settimeout(_WAKE_S)
            name = f"fake-upstream-{self.port}"
            self._thread = threading.Thread(target=self._accept, args=(self._socket,), name=name, daemon=True)
            self._thread.start()
        elif state is State.BLACKHOLE:
            self._socket.listen(0)
            self._fill_backlog()

    def _bind(self) -> socket.socket:
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self._host, self.port))
        except OSError:
            bound.close()
            raise
        self.port = bound.getsockname()[1]
        return bound

    def _accept(self, listening: socket.socket) -> None:
        while self._socket is listening:
            with contextlib.suppress(OSError):  # a timeout, or a client that has left already
                self._welcome(listening.accept()[0])

    def _fill_backlog(self) -> None:
        """Connect to ourselves until the kernel drops the SYNs, as it then does everybody's."""
        for _ in range(_MAX_FILLERS):
            filler = socket.socket(self._family, socket.SOCK_STREAM)
            self._fillers.append(filler)
            filler.settimeout(_SILENCE_S)
            try:
                filler.connect((self._host, self.port))
            except OSError:
                return
        raise OSError("this system completes connections beyond the backlog, so it cannot play a black hole")

    def _close(self) -> None:
        listening, self._socket = self._socket, None
        if listening is not None:
            with contextlib.suppress(OSError):  # not connected: it was not listening, or this is not Linux
                listening.shutdown(socket.SHUT_RDWR)
            if self._thread is not None:
                self._thread.join()
                self._thread = None
            listening.close()
        while self._fillers:
            self._fillers.pop().close()
