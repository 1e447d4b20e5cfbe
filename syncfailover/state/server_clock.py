"""A server's clock, read off its replies: hosts need not agree on the time, and a look at it asks nobody."""

from __future__ import annotations

from time import monotonic
from typing import Callable, Optional

from .store import StoreError


class ServerClock:
    """The time on a server that says in its replies what time it is.

    A reply proves between which two offsets from the clock here the server's lies: it was written after the question was
    sent, and before the answer came. The offset is changed only where a reply contradicts it, and then as little as it
    takes: so time here goes on evenly, and a slow reply spoils nothing.

    Args:
        clock: seconds, monotonic.

    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._offset: Optional[float] = None

    def note(self, server_s: float, sent: float, received: float) -> None:
        """Take in a reply.

        Args:
            server_s: what time it was on the server, in Unix seconds.
            sent: when it was asked, on the clock here.
            received: when its answer was there.

        """
        low, high = server_s - received, server_s - sent
        known = (low + high) / 2.0 if self._offset is None else self._offset
        self._offset = min(max(known, low), high)

    def now(self) -> float:
        """Return Unix seconds on the server.

        Raises:
            StoreError: it has not been asked yet.

        """
        if self._offset is None:
            raise StoreError("the server's time is not known")
        return self._clock() + self._offset
