"""The time of one attempt, and the end that another thread can put to it.

One clock serves one attempt: all its socket operations get what is left of it. It also notes how far the request got,
which is what tells "never sent" from "perhaps processed".
"""

from __future__ import annotations

import socket
import threading
from contextlib import nullcontext, suppress
from time import monotonic
from typing import Any, ContextManager, Optional

from urllib3 import Timeout

from ..policy.node import Attempt

#: No socket operation is given less, in seconds: 0 would mean non-blocking.
LEAST_S = 0.001


class AttemptClock(Timeout):
    """urllib3's timeout for one attempt: a deadline for all of it, and the note of how far it got.

    Args:
        timeout_s: seconds for the whole attempt, from now.
        connect_s: seconds for opening a connection, all addresses of the host together.
        mends_stale: whether a request over a pooled connection that the server had closed is sent once more.

    """

    def __init__(self, timeout_s: float, connect_s: float, *, mends_stale: bool = True) -> None:
        super().__init__(connect=connect_s)
        self.timeout_s = timeout_s
        self.connect_s = connect_s
        self.mends_stale = mends_stale
        self.began = monotonic()
        self.deadline = self.began + timeout_s
        #: Whether it was called off, for good.
        self.aborted = False
        #: Whether a connection had to be opened for it.
        self.dialed = False
        #: Whether a proxy is being asked for a tunnel, which is not yet the request.
        self.tunnelling = False
        #: What the attempt can be cut off by; None where nobody will.
        self.kill_switch: Optional[KillSwitch] = None
        #: Query parameters of the endpoint, and a caller's, added below urllib3, whose debug log would show them.
        self.query = ""
        #: Whether the first byte of the request has been handed to the socket.
        self.sent = False
        #: Whether a byte of the reply has arrived.
        self.answered = False

    @classmethod
    def of(cls, attempt: Attempt, connect_s: float, *, streams: bool = False) -> AttemptClock:
        """Time an attempt; one that takes part in a race, or streams, can be called off."""
        timeout_s = min(attempt.timeout_s, attempt.content_s) if streams else attempt.timeout_s
        clock = cls(timeout_s, connect_s, mends_stale=attempt.repeatable)
        if attempt.race is not None or streams:
            clock.kill_switch = KillSwitch()
            attempt.clock = clock
            if attempt.aborted:  # before there was a clock to tell
                clock.abort()
        return clock

    def abort(self) -> None:
        """End the attempt at once, from another thread."""
        self.aborted = True
        self.deadline = 0.0
        if self.kill_switch is not None:
            self.kill_switch.cut()

    def left_s(self) -> float:
        """Return the seconds left, never less than a socket can be given."""
        return max(self.deadline - monotonic(), LEAST_S)

    def extend(self, timeout_s: float) -> None:
        """Count from the beginning again, to another end: a streamed body may take what the whole call has."""
        if self.aborted:
            return
        self.deadline = self.began + timeout_s

    def hasten(self, deadline: float) -> None:
        """End sooner, if that is sooner."""
        self.deadline = min(self.deadline, deadline)

    def ran_s(self, seconds: float) -> bool:
        """Tell whether so many seconds have passed since the beginning."""
        return monotonic() >= self.began + seconds

    @property
    def expired(self) -> bool:
        """Whether the attempt's time is over."""
        return monotonic() >= self.deadline

    # What urllib3 asks of a Timeout; one object serves one attempt, so a clone is not needed.

    def clone(self) -> AttemptClock:  # noqa: D102
        return self

    def start_connect(self) -> float:  # noqa: D102
        return monotonic()

    @property
    def connect_timeout(self) -> float:  # noqa: D102
        return min(self.connect_s, self.left_s())

    @property
    def read_timeout(self) -> float:  # noqa: D102
        return self.left_s()


class KillSwitch:
    """The socket that an attempt uses now, for somebody else to shut down; not a moment longer than it is used."""

    __slots__ = ("_cut", "_owned", "_sock", "lock")

    def __init__(self) -> None:
        #: Held while the socket is closed as well, lest its descriptor is shut down when it is another one's already.
        self.lock = threading.RLock()
        # All guarded by lock; only the attempt's own thread changes which socket it is.
        self._sock: Optional[socket.socket] = None
        self._owned = self._cut = False

    def hold(self, sock: Any, *, owned: bool = False) -> None:
        """Use this socket from now on; one that is `owned` is closed when it is let go."""
        sock = getattr(sock, "socket", sock)  # urllib3 wraps TLS inside of TLS
        if sock is self._sock:
            return
        with self.lock:
            self._put(sock, owned=owned)
            if self._cut:
                self._shut()

    def let_go(self) -> None:
        """Use none any more: the connection may serve another attempt."""
        if self._sock is None:
            return
        with self.lock:
            self._put(None, owned=False)

    def cut(self) -> None:
        """Shut down what is used, now or later."""
        with self.lock:
            self._cut = True
            self._shut()

    def _put(self, sock: Optional[socket.socket], *, owned: bool) -> None:
        if self._owned and self._sock is not None:
            self._sock.close()
        self._sock, self._owned = sock, owned

    def _shut(self) -> None:
        if self._sock is not None:
            with suppress(OSError):  # it is closed already
                # below TLS, whose state is another thread's
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


#: Where nobody could cut a socket off while it is being closed.
_UNGUARDED = nullcontext()


def closing(clock: Optional[AttemptClock]) -> ContextManager[Any]:
    """Guard the closing of a socket from whoever may call its attempt off."""
    return _UNGUARDED if clock is None or clock.kill_switch is None else clock.kill_switch.lock
