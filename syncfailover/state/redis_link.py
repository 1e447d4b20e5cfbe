"""One connection to a Redis at a time: its owner is one thread, and what goes wrong is its owner's to try again."""

from __future__ import annotations

from time import monotonic
from typing import Any, List, Optional, Sequence, Tuple, Type

import redis
from redis.exceptions import NoScriptError, ResponseError

from .redis_route import Address, Options, Route
from .redis_scripts import Script

#: A node of a cluster says at once where our keys are, unless the cluster is being changed.
_MOVES = 2
#: Seconds after which a connection that was not used may have been closed for that alone.
_IDLE_S = 1.0


class Link:
    """A connection that is made when it is asked for.

    Args:
        kind: of connection.
        route: how the server is found.
        options: how to log in, and how long to wait.
        secrets: texts that are to be shown nowhere.

    """

    def __init__(self, kind: Type[Any], route: Route, options: Options, secrets: Sequence[str] = ()) -> None:
        self._kind = kind
        self._route = route
        self._options = options
        self._secrets = secrets
        self._place: Options = {}  # where it was connected to last
        self._connection: Optional[Any] = None
        self._used_at = 0.0

    def __str__(self) -> str:
        return f"{self._route}/{self._options.get('db', 0)}"

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def connect(self) -> None:
        """Connect to whoever is the right one now."""
        self._place = self._route.find()
        self._connection = self.twin()
        self._connection.connect()

    def twin(self) -> Any:
        """Return another connection to the same server, which its owner opens and closes."""
        return self._kind(**self._options, **self._place)

    def ask(self, *command: Any) -> Any:
        """Send a command to the server, or to the one that it names instead; return what it answers."""
        for _ in range(_MOVES):
            try:
                return self._ask(command)
            except ResponseError as error:
                address = _moved_to(error)
                if address is None:
                    raise
            self.close()
            self._route.moved(address)
            self.connect()
        return self._ask(command)

    def run(self, script: Script, keys: List[str], *values: Any) -> Any:
        """Run a script; its text is sent only to a server that does not know it yet."""
        try:
            return self.ask("EVALSHA", script.sha, len(keys), *keys, *values)
        except NoScriptError:
            return self.ask("EVAL", script.text, len(keys), *keys, *values)

    def _ask(self, command: Tuple[Any, ...]) -> Any:
        used_at, self._used_at = self._used_at, monotonic()
        try:
            return self._said(command)
        except redis.ConnectionError:
            if self._used_at - used_at < _IDLE_S:
                raise
        self.close()
        self.connect()
        return self._said(command)

    def _said(self, command: Tuple[Any, ...]) -> Any:
        if self._connection is None:
            raise redis.ConnectionError("not connected")
        self._connection.send_command(*command)
        return self._connection.read_response(disable_decoding=True)

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def failed(self) -> None:
        """Note that the server is of no use now: where there are others, one of them is asked next."""
        self._route.failed()

    def forsake(self) -> Optional[Any]:
        """Let go of the connection as it is, and return it."""
        connection, self._connection = self._connection, None
        return connection

    def public(self, text: str) -> str:
        """Return a text in one line, and without any secret of this connection."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())


def _moved_to(error: ResponseError) -> Optional[Address]:
    """Read where a node says that our keys are. Older versions of redis-py know that answer in clusters alone."""
    text = str(error)
    if type(error).__name__ != "MovedError" and not text.startswith("MOVED "):
        return None
    host, _, port = text.rsplit(maxsplit=1)[-1].rpartition(":")
    return host, int(port)
