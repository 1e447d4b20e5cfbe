"""How the Redis is found that is to be connected to.

All keys of a deployment are in one hash slot, so a cluster is to us the one node that has this slot: whoever is asked
says where that is (MOVED). Sentinels are asked anew before each connection. So neither needs more than plain connections,
and a failover is over with the next one.
"""

from __future__ import annotations

from typing import Any, Dict, Sequence, Tuple, Type

import redis

#: Nodes of a cluster that are remembered at most.
_NODES = 32

#: Host and port.
Address = Tuple[str, int]
#: What a connection is made with: a kind of connection, and the arguments for it.
Options = Dict[str, Any]
Maker = Tuple[Type[Any], Options]


class Route:
    """The way to a server that has one place."""

    def __init__(self, shown: str, place: Options) -> None:
        self._shown = shown
        self._place = place

    def __str__(self) -> str:
        return self._shown

    def find(self) -> Options:
        """Return its place, as a connection wants it."""
        return self._place

    def moved(self, address: Address) -> None:
        """Note that a server has said who is to be asked in its place."""

    def failed(self) -> None:
        """Note that the one found last is of no use now."""


class Nodes(Route):
    """The way to a server at an address, or to the nodes of a cluster that are known: the first of them is asked."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        super().__init__("{}:{}".format(*addresses[0]), {})
        self._addresses = list(addresses)

    def find(self) -> Options:
        """Return the first."""
        host, port = self._addresses[0]
        return {"host": host, "port": port}

    def moved(self, address: Address) -> None:
        """Put it first. Without a host, it is another port of the one that was asked."""
        found = (address[0] or self._addresses[0][0], address[1])
        others = [known for known in self._addresses if known != found]
        self._addresses = [found, *others][:_NODES]

    def failed(self) -> None:
        """Put the first last."""
        self._addresses = [*self._addresses[1:], self._addresses[0]]


class Sentinels(Route):
    """The way to the master that sentinels name.

    Args:
        service: what they call it.
        sentinels: what connections to them are made with.

    """

    def __init__(self, service: str, sentinels: Sequence[Maker]) -> None:
        super().__init__(f"sentinel:{service}", {})
        self._service = service
        self._sentinels = list(sentinels)

    def find(self) -> Options:
        """Ask one after the other; who knows nothing is asked last the next time.

        Raises:
            redis.RedisError: nobody knows.

        """
        trouble: Exception = redis.ConnectionError(f"no sentinel knows a master called {self._service}")
        for kind, options in list(self._sentinels):
            sentinel = kind(**options)
            try:
                sentinel.connect()
                sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
                found = sentinel.read_response(disable_decoding=True)
            except (redis.RedisError, OSError) as error:
                trouble = error
            else:
                if found:
                    return {"host": found[0].decode(), "port": int(found[1])}
            finally:
                sentinel.disconnect()
            self._sentinels = [*self._sentinels[1:], self._sentinels[0]]
        raise trouble
