"""Hears when peers have news: a connection of its own, on which Redis speaks first.

A message says that there is something to read, never what: so whoever could send one could cause a read, and no more.
"""

from __future__ import annotations

import logging
import socket
import threading
import weakref
from contextlib import suppress
from typing import Any, Callable, Optional

logger = logging.getLogger(__name__)

#: Seconds of silence after which Redis is asked whether it is there; after as many again it is not.
_SILENCE_S = 5.0
#: Seconds between two tellings: what comes in between is read with the next one.
_PACE_S = 0.1
#: Messages at most until somebody is told.
_MOST = 1000


class Listener:
    """A thread that listens to a channel until it is closed, or loses its connection.

    Args:
        connection: not opened yet.
        channel: what it is called.
        own: what a message of ours says; nobody is told of that.
        on_news: told of the others', and once at the beginning; a method holds its owner weakly.

    """

    def __init__(self, connection: Any, channel: str, own: bytes, on_news: Callable[[], None]) -> None:
        self._connection = connection
        self._channel = channel
        self._own = own
        self._on_news = _weakly(on_news)
        self._closing = threading.Event()
        #: Whether whatever is said now is heard.
        self.hears = False
        #: Whether it has ended, or never began.
        self.ended = False

    def start(self) -> None:
        """Start the thread; where none can be had it has ended."""
        try:
            threading.Thread(target=self._run, name="syncfailover-news", daemon=True).start()
        except RuntimeError as error:
            self.ended = True
            logger.debug("state: no thread can listen: %s", error)

    def close(self) -> None:
        """Have the thread end; it is not waited for."""
        self._closing.set()
        found = getattr(self._connection, "_sock", None)
        if found is not None:  # it is in use over there, and must not be closed here; but it can be hung up
            with suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._listen()
        except Exception as error:  # noqa: BLE001 - whatever redis-py raises on what it reads; all of it means the same
            if not self._closing.is_set():
                logger.debug("state: nothing is heard of peers: %s", type(error).__name__)
        finally:
            self.hears, self.ended = False, True
            self._connection.disconnect()

    def _listen(self) -> None:
        connection = self._connection
        connection.connect()
        connection.send_command("SUBSCRIBE", self._channel)
        connection.read_response(disable_decoding=True)
        self.hears = True
        self._tell()  # what was said before
        asked = False
        while not self._closing.is_set():
            if connection.can_read(timeout=_SILENCE_S):
                asked = False
                if self._is_news():
                    self._tell()
                    self._closing.wait(_PACE_S)
            elif asked:
                return
            else:
                connection.send_command("PING")
                asked = True

    def _is_news(self) -> bool:
        """Read all that is there, and tell whether a peer has said anything."""
        news = False
        for _ in range(_MOST):
            message = self._connection.read_response(disable_decoding=True)
            news = news or (
                isinstance(message, list) and message[0] == b"message" and message[-1] != self._own
            )
            if not self._connection.can_read(timeout=0):
                break
        return news

    def _tell(self) -> None:
        on_news = self._on_news()
        if on_news is None:
            self._closing.set()
        else:
            on_news()


def _weakly(callback: Callable[[], None]) -> Callable[[], Optional[Callable[[], None]]]:
    try:
        return weakref.WeakMethod(callback)
    except TypeError:  # no method
        return lambda: callback
