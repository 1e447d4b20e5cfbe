"""Redis servers of our own: started on a free port, killed, paused, restarted; and processes that share health there."""

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import pytest
import redis
from fleet import endpoints_of
from serving import PATIENCE_S, SITES, environ_of, eventually, free_port

from syncfailover import FailoverClient
from syncfailover.testing import FakeUpstream

#: What a user has to be allowed; docs/sharing.md lists it.
RIGHTS = (
    "+evalsha +eval +time +getrange +set +type +del +expire +zadd +zremrangebyscore +zcard +publish +subscribe +ping +select"
).split()
#: Seconds; so that a test is over soon.
INTERVAL_S = 0.5
#: Seconds within which a call must be answered whatever happens to the store: a call takes a few milliseconds, and the
#: machine may be busy.
QUICK_S = 0.5


class RedisServer:
    """A server that keeps nothing on disk unless it is told to.

    Args:
        home: where it may write.
        options: for its command line, beyond the usual.

    """

    def __init__(self, home: Path, *options: str, port: Optional[int] = None) -> None:
        self.home = home
        self.port = free_port() if port is None else port
        self.options = list(options)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: Optional[subprocess.Popen] = None
        self._admin: Dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<RedisServer {self.port}>"

    def start(self, **admin: Any) -> "RedisServer":
        """Start it, and wait until it answers; `admin` is what our own clients need to log in."""
        self._admin = admin or self._admin
        usual = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._run(["redis-server", *usual, "--dir", str(self.home), *self.options])
        return self

    def start_as_sentinel(self, *lines: str) -> "RedisServer":
        """Start it as a sentinel that is told this."""
        config = self.home / f"sentinel-{self.port}.conf"
        config.write_text("\n".join([f"port {self.port}", "bind 127.0.0.1", f"dir {self.home}", *lines]))
        self._run(["redis-server", str(config), "--sentinel"])
        return self

    def _run(self, command: Sequence[str]) -> None:
        with (self.home / f"redis-{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(self._answers, f"{self} answers")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.home / f"redis-{self.port}.log").read_text()[-2000:]
        try:
            return self.client().ping()
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def client(self, **options: Any) -> redis.Redis:
        """Make a client that waits for a paused server."""
        place = {"host": "127.0.0.1", "port": self.port}
        return redis.Redis(**{**place, "socket_timeout": PATIENCE_S, **self._admin, **options})

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE_S)

    def pause(self) -> None:
        """Have it stand still, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        self._process.send_signal(signal.SIGCONT)

    def dump(self) -> Dict[bytes, Any]:
        """Return everything that it holds."""
        client = self.client()
        read = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        }
        return {key: read[client.type(key)](key) for key in client.scan_iter()}


class SlowWay:
    """A port that leads to a server, and takes its time over everything that the server says."""

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
                for source, sink, slow in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._carry, args=(source, sink, slow), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, slow: bool) -> None:
        with suppress(OSError), source, sink:
            while True:
                data = source.recv(65536)
                if not data:
                    sink.shutdown(socket.SHUT_RDWR)
                    return
                time.sleep(self.delay_s if slow else 0.0)
                sink.sendall(data)

    def close(self) -> None:
        """Close the port."""
        self._listener.close()


class Peer:
    """A process with a client of its own, which does what it is told; see `sites/peer.py`."""

    def __init__(self, state: str, upstreams: Sequence[FakeUpstream], home: Path, **options: Any) -> None:
        environ = environ_of(upstreams, home / "log", STATE=state, OPTIONS=json.dumps(options))
        self._stderr = (home / "peers").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(SITES / "peer.py")],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def tell(self, *command: Any) -> None:
        """Have it begin something."""
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """Wait for what it has to say to that."""
        line = self.process.stdout.readline()
        assert line, "it has died"
        return json.loads(line)

    def ask(self, *command: Any) -> Any:
        """Have it do something, and return what it says."""
        self.tell(*command)
        return self.hear()

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout, self._stderr):
            pipe.close()


class Peers:
    """Processes, started together."""

    def __init__(self, make: Callable[[], Peer], count: int) -> None:
        self.all = [make() for _ in range(count)]
        for peer in self.all:
            assert peer.hear() == "ready"

    def ask(self, *command: Any) -> List[Any]:
        """Have all of them do something at once; return what they say."""
        for peer in self.all:
            peer.tell(*command)
        return [peer.hear() for peer in self.all]

    def prober(self, name: str) -> Peer:
        """Wait until exactly one of them probes an endpoint, and return it."""

        def only() -> Optional[Peer]:
            found = [peer for peer in self.all if peer.ask("probes", name)]
            return found[0] if len(found) == 1 else None

        return eventually(only, f"one of them probes {name}")


class Calls:
    """Clients in this process, the calls that they make, and how long these take."""

    def __init__(self, upstreams: Sequence[FakeUpstream]) -> None:
        self.upstreams = upstreams
        self.slowest_s = 0.0
        self.clients: List[FailoverClient] = []

    def client(self, state: Any, **options: Any) -> FailoverClient:
        """Make another client."""
        options = {"timeout": 10.0, "probe_interval": INTERVAL_S, "model": "gpt-4.1", **options}
        made = FailoverClient(endpoints_of(list(self.upstreams)), state=state, **options)
        self.clients.append(made)
        return made

    def ask(self, count: int = 1) -> None:
        """Ask with each client; no call may fail."""
        for _ in range(count):
            for client in self.clients:
                began = time.monotonic()
                client.chat("Hello")
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def ask_until(self, what: Callable[[], Any], why: str) -> Any:
        """Ask until something holds, and return it."""

        def look() -> Any:
            self.ask()
            return what()

        return eventually(look, why)

    def all_are(self, state: str) -> bool:
        """Tell whether all clients say that they are "shared" or "alone"."""
        return all(client.status().state == state for client in self.clients)

    def close(self) -> None:
        """Close the clients."""
        for client in self.clients:
            client.close()


def warnings_of(caplog: pytest.LogCaptureFixture) -> List[str]:
    """Return what was warned of the store."""
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    return [message for message in told if message.startswith("state: ")]
