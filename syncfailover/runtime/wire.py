"""Connections with a deadline: one attempt's time bounds connecting, sending and reading together.

`requests` and urllib3 time single socket operations, so that a server that trickles a byte a second is never late.
Here every socket operation of an attempt gets what is left of the attempt's time, by its clock.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Dict, Optional

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from .attempt_clock import LEAST_S, AttemptClock, closing
from .own_sockets import own_sockets

#: A pooled connection that the server had closed fails at once; one that breaks later was working on the request.
_STALE_WITHIN_S = 1.0


class _FinalResponse(http.client.HTTPResponse):
    """http.client skips 100 Continue, but takes 102 and 103 for the answer; the real one would answer the next call."""

    def _read_status(self) -> Any:
        status_line = super()._read_status()  # type: ignore[misc]
        while 102 <= status_line[1] < 200:
            http.client.parse_headers(self.fp)
            status_line = super()._read_status()  # type: ignore[misc]
        return status_line


class _DeadlineReader(io.RawIOBase):
    """The reading side of a socket, each read given what is left of the attempt."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, clock: AttemptClock) -> None:
        self._raw = raw
        self._sock = sock
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        left = self._clock.deadline - monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        self._sock.settimeout(left)
        count = self._raw.readinto(buffer)
        if count and not self._clock.tunnelling:
            self._clock.answered = True
        return count

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        if not self.closed:
            with closing(self._clock):
                self._raw.close()
            super().close()


#: Bytes of a body that is sent together with its head.
_SMALL_BODY = 16 * 1024

if TYPE_CHECKING:
    from urllib3 import HTTPConnectionPool as _Pool
    from urllib3.connection import HTTPConnection as _Connection
else:  # mixed into the plain and into the TLS classes below
    _Connection = _Pool = object


class _DeadlineMixin(_Connection):
    """What both kinds of connection do differently from urllib3's."""

    #: The attempt that uses the connection now; None outside of one (a proxy's CONNECT).
    clock: Optional[AttemptClock] = None
    #: The head of a request whose body is to go with it; None where it goes by itself.
    _head: Optional[bytes] = None

    def response_class(  # type: ignore[override]
        self, sock: socket.socket, *args: Any, **kwargs: Any
    ) -> http.client.HTTPResponse:
        """Make http.client's response, reading through the deadline."""
        response = _FinalResponse(sock, *args, **kwargs)
        if self.clock is not None:
            raw = response.fp.detach()
            response.fp = io.BufferedReader(_DeadlineReader(raw, sock, self.clock))
        return response

    def request(self, method: str, url: str, body: Any = None, *args: Any, **kwargs: Any) -> None:
        """Send a request, a small body in one piece with its head: two are two packets, and two system calls."""
        self._head = b"" if isinstance(body, bytes) and 0 < len(body) <= _SMALL_BODY else None
        try:
            super().request(method, url, body, *args, **kwargs)
        finally:
            self._head = None

    def send(self, data: Any) -> None:
        """Send with what is left of the attempt: urllib3 would give a large body the connect timeout."""
        clock: Optional[AttemptClock] = self.clock
        if self._head == b"":
            self._head = data
            return
        if self._head is not None:
            data, self._head = self._head + data, None
        if clock is not None:
            if self.sock is None:
                self.connect()
            if clock.kill_switch is not None and not clock.tunnelling:  # TLS will take a tunnel's socket over
                clock.kill_switch.hold(self.sock)
            # A socket that was cut off before its handshake has none: nothing may count as sent over it.
            if clock.aborted:
                raise socket.timeout("called off")
            self.sock.settimeout(clock.left_s())
            clock.sent = not clock.tunnelling
        super().send(data)

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        """Begin a request, its endpoint's own query parameters added."""
        if self.clock is not None and self.clock.query and not self.clock.tunnelling:
            url += ("&" if "?" in url else "?") + self.clock.query
        super().putrequest(method, url, *args, **kwargs)

    def close(self) -> None:
        """Close, and forget the attempt."""
        clock, self.clock = self.clock, None
        with closing(clock):
            super().close()

    def connect(self) -> None:
        """Connect, and remember the socket that TLS has put in the place of the one that was opened."""
        super().connect()
        own_sockets.add(getattr(self.sock, "socket", self.sock))  # urllib3 wraps TLS inside of TLS

    def _new_conn(self) -> socket.socket:
        """Open a socket: the connect timeout bounds all addresses of the host together, and the TLS handshake."""
        if self.clock is not None:
            self.clock.dialed = True
        host, port = self._dns_host, self.port
        deadline = monotonic() + (self.timeout or LEAST_S)
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NewConnectionError(self, f"DNS: {host}: {error}") from error
        refused: Optional[OSError] = None
        for family, kind, protocol, _name, address in found:
            if deadline <= monotonic() or (self.clock is not None and self.clock.expired):
                break
            sock = socket.socket(family, kind, protocol)
            own_sockets.add(sock)
            try:
                self._dial(sock, address, deadline)
            except OSError as error:
                sock.close()
                refused = error
            else:
                return sock
        if refused is None or isinstance(refused, socket.timeout):
            raise ConnectTimeoutError(self, "connect timed out") from refused
        raise NewConnectionError(self, str(refused)) from refused

    def _dial(self, sock: socket.socket, address: Any, deadline: float) -> None:
        """Connect to one address, until the deadline or until the attempt is called off."""
        clock = self.clock
        if clock is not None and clock.kill_switch is not None:
            double = sock.dup()  # TLS will take the socket over
            own_sockets.add(double)
            clock.kill_switch.hold(double, owned=True)
        for option in self.socket_options or ():
            sock.setsockopt(*option)
        sock.settimeout(max(deadline - monotonic(), LEAST_S))
        sock.connect(address)
        if clock is not None and clock.expired:  # no handshake and no request, if it was called off meanwhile
            raise socket.timeout("timed out")
        sock.settimeout(max(deadline - monotonic(), LEAST_S))


class DeadlineHTTPConnection(_DeadlineMixin, HTTPConnection):
    """A plain connection."""


class DeadlineHTTPSConnection(_DeadlineMixin, HTTPSConnection):
    """A TLS connection."""


class _PoolMixin(_Pool):
    """Hand each connection its attempt's clock, and mend a stale connection once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The attempt of the calling thread: urllib3 does not pass it on to where a proxy is asked for a tunnel. Made
        #: here, not at import, lest all greenlets share it where gevent comes between the two.
        self._calling = threading.local()

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        """Have a body that is shorter than announced noticed; urllib3 1.26 does not by itself."""
        self._calling.clock = kwargs.get("timeout")
        return super().urlopen(*args, enforce_content_length=True, **kwargs)

    def _prepare_proxy(self, conn: Any) -> Any:
        """Ask a proxy for a tunnel, under the deadline."""
        clock = getattr(self._calling, "clock", None)
        if not isinstance(clock, AttemptClock):
            return super()._prepare_proxy(conn)
        conn.clock, clock.tunnelling = clock, True
        try:
            return super()._prepare_proxy(conn)
        finally:
            clock.tunnelling = False

    def _put_conn(self, conn: Any) -> None:
        """Take a connection back, which nobody may cut off from now on."""
        clock = getattr(conn, "clock", None)
        if clock is not None:
            conn.clock = None
            if clock.kill_switch is not None:
                clock.kill_switch.let_go()
        if own_sockets.for_the_last_time and conn is not None:
            conn.close()
        super()._put_conn(conn)

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:
        clock = kwargs.get("timeout")
        if not isinstance(clock, AttemptClock):
            return super()._make_request(conn, *args, **kwargs)
        reused = conn.sock is not None
        began = monotonic()
        conn.clock = clock
        try:
            return super()._make_request(conn, *args, **kwargs)
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            body = kwargs.get("body")
            repeatable = clock.mends_stale and (body is None or isinstance(body, (bytes, str)))
            over = clock.expired or monotonic() - began > _STALE_WITHIN_S
            fresh_fault = not reused or clock.answered or over
            if fresh_fault or not repeatable:
                raise
        # The server had closed this idle connection: nothing was received, so once more over a new one.
        conn.close()
        conn.clock, clock.sent = clock, False
        return super()._make_request(conn, *args, **kwargs)


class DeadlineHTTPPool(_PoolMixin, HTTPConnectionPool):
    """Connections to one origin without TLS."""

    ConnectionCls = DeadlineHTTPConnection


class DeadlineHTTPSPool(_PoolMixin, HTTPSConnectionPool):
    """Connections to one origin with TLS."""

    ConnectionCls = DeadlineHTTPSConnection


POOLS: Dict[str, type] = {"http": DeadlineHTTPPool, "https": DeadlineHTTPSPool}
