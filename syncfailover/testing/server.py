"""The engine below an upstream: its state, its connections, and one conversation per thread."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from typing import Callable, Optional, Set

from .answer import Answer, End, State
from .connection import Connection
from .faults import openai_error
from .listener import Listener
from .wire import MalformedRequestError, Message, as_response

_GONE = Answer(end=End.CLOSE)


class Server:
    """Carry out answers on real sockets.

    :param admit: called with each request and its connection's number; says what to do.
    :param done: called once for each admitted request, just before the last byte of its answer, and told whether
        the client has left instead of waiting for it.
    :param changed: notified at every change of state.
    :param close_after: close each connection after that many answers.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        admit: Callable[[Message, int], Answer],
        done: Callable[[bool], None],
        changed: threading.Condition,
        tls: Optional[ssl.SSLContext] = None,
        close_after: Optional[int] = None,
    ) -> None:
        self.state = State.STOPPED
        self.accepted = 0
        self._listener = Listener(host, port, self._welcome)
        self._admit = admit
        self._done = done
        self._changed = changed
        self._tls = tls
        self._close_after = close_after
        self._live: Set[Connection] = set()
        # One change of state at a time. Nobody waits for a connection while holding it, since the connection's
        # thread may be waiting for it.
        self._switching = threading.Lock()
        self._timer: Optional[threading.Timer] = None

    @property
    def port(self) -> int:
        """The port; 0 as long as the system has not chosen one."""
        return self._listener.port

    def start(self) -> None:
        """Leave STOPPED for UP; nothing happens in any other state."""
        with self._switching:
            if self.state is State.STOPPED:
                self._switch(State.UP)

    def become(self, state: State, for_s: Optional[float] = None) -> None:
        """Go from any state but STOPPED to another, or back UP after ``for_s`` seconds."""
        with self._switching:
            if self.state is State.STOPPED:
                return
            ending = self._switch(state)
            if for_s is not None:
                self._revive_after(for_s)
        for connection in ending:
            connection.wait_closed()

    def _switch(self, state: State) -> Set[Connection]:
        """Hold ``_switching`` when calling this, and wait for the returned connections to close afterwards."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if state is not self.state:
            self._listener.switch(state)
        with self._changed:
            ending = set(self._live) if state in (State.REFUSING, State.STOPPED) else set()
        # Aborted before the new state shows, lest one that a black hole held slips out an answer.
        for connection in ending:
            connection.abort()
        with self._changed:
            self.state = state
            self._changed.notify_all()
        return ending

    def _revive_after(self, seconds: float) -> None:
        """Hold ``_switching`` when calling this."""

        def expire() -> None:
            with self._switching:
                if self._timer is timer:  # otherwise it was cancelled too late to stop it
                    self._switch(State.UP)

        timer = self._timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()

    def _welcome(self, sock: socket.socket) -> None:
        number = self.accepted + 1  # only the listener's thread accepts
        try:
            connection = Connection(sock, number, self._tls)
        except OSError:  # it has left already
            sock.close()
            return
        with self._changed:
            self.accepted = number
            self._live.add(connection)
            self._changed.notify_all()
        name = f"{threading.current_thread().name}-connection-{number}"
        threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        last = _GONE
        try:
            connection.handshake()
            last = self._converse(connection)
        except OSError:  # the client has left, or abort() came
            pass
        finally:
            with self._changed:
                self._live.discard(connection)
            # Before the reset, so that a client that has learned of its fate finds the port changed already.
            if last.state is not None:
                self.become(last.state, last.for_s)
            connection.close(reset=last.end is End.RESET)

    def _converse(self, connection: Connection) -> Answer:
        """Answer one request after another, and return the answer that ended the connection."""
        for count in itertools.count(1):
            try:
                message = connection.receive()
            except MalformedRequestError as error:
                connection.send(as_response(400, openai_error(400, str(error))).encode(is_last=True))
                return _GONE
            if message is None:
                return _GONE
            self._await_audible(connection)
            answer = self._admit(message, connection.number)
            self._deliver(connection, answer, message)
            if answer.end is not End.KEEP:
                return answer
            if message.is_last or count == self._close_after:
                break
        return _GONE

    def _deliver(self, connection: Connection, answer: Answer, message: Message) -> None:
        """Write each step when the next one is known, so that the last one can be told from the others."""
        unsent = b""
        abandoned = False
        try:
            connection.pause(answer.delay_s)
            for step in answer.steps(is_last=message.is_last):
                self._await_audible(connection)
                connection.send(unsent)
                connection.pause(step.pause_s)
                unsent = step.data
            self._await_audible(connection)
        except OSError:
            abandoned = not connection.aborted
            raise
        finally:
            # Before the last write, so that a client that has its answer finds the gauge settled.
            self._done(abandoned)
        connection.send(unsent)

    def _await_audible(self, connection: Connection) -> None:
        """Hold what a black hole holds."""
        if self.state is State.BLACKHOLE:
            with self._changed:
                self._changed.wait_for(lambda: self.state is not State.BLACKHOLE)
        if connection.aborted:
            raise ConnectionAbortedError("the upstream was shut down")
