"""One accepted connection: read, pause, send, and end it with a FIN or with an RST."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import socket
import ssl
import struct
import threading
from typing import Optional

from .wire import Message, MessageReader

# Windows has two unsigned shorts in its struct linger, everybody else two ints. On, with no time: close() resets.
_RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
_PATIENCE_S = 1.0


class Connection:
    """A socket with one owner thread. Only :meth:`abort` and :meth:`wait_closed` are for other threads.

    A lost peer shows as ``OSError`` from every method that does I/O.

    :param number: counted from 1, for the log.
    :param tls: the server's context, or ``None`` for plain text.
    """

    def __init__(self, sock: socket.socket, number: int, tls: Optional[ssl.SSLContext]) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self.aborted = False
        # The handshake waits for the client, so it is left to the owner's thread.
        self._socket = sock if tls is None else tls.wrap_socket(sock, True, do_handshake_on_connect=False)
        self._reader = MessageReader(self._socket.recv)
        self._lock = threading.Lock()  # abort() must not touch a descriptor that close() has given back
        self._closed = threading.Event()

    def handshake(self) -> None:
        """Agree on TLS, if there is any."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.do_handshake()

    def receive(self) -> Optional[Message]:
        """Wait for a request; ``None`` when the client, or :meth:`abort`, ended the connection."""
        message = self._reader.read()
        return None if self.aborted else message

    def send(self, data: bytes) -> None:
        """Write all of it, with one ``sendall``."""
        if data:
            self._socket.sendall(data)

    def pause(self, seconds: float) -> None:
        """Let ``seconds`` pass (infinitely many if need be); raise ``OSError`` as soon as the client hangs up."""
        if seconds <= 0:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            # A client that waits for its answer has nothing to say: readable means that it has hung up, or that
            # abort() has shut the reading side.
            if selector.select(None if math.isinf(seconds) else seconds):
                raise ConnectionAbortedError("the client did not wait for its answer")

    def abort(self) -> None:
        """Wake the owner thread, wherever it waits for the client, and have it reset the connection."""
        self._shutdown(socket.SHUT_RD)

    def wait_closed(self) -> None:
        """Wait until the owner thread has closed an aborted connection."""
        if not self._closed.wait(_PATIENCE_S):
            self._shutdown(socket.SHUT_RDWR)  # it is stuck in a send that nobody reads
            self._closed.wait(_PATIENCE_S)

    def close(self, *, reset: bool) -> None:
        """End the connection: with an RST if asked or aborted, with a FIN otherwise. For the owner thread."""
        with self._lock:
            if reset or self.aborted:
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._socket.close()
        self._closed.set()

    def _shutdown(self, how: int) -> None:
        with self._lock, contextlib.suppress(OSError):
            self.aborted = True
            # Past SSLSocket.shutdown, which would turn the owner's next write into plain text.
            socket.socket.shutdown(self._socket, how)
