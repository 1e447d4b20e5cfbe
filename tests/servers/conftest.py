"""What the proofs share: three upstreams that repeat what they are asked, and servers in front of them."""

from pathlib import Path
from typing import Any, Callable, Iterator, List, Sequence

import pytest
from redis_servers import Calls, RedisServer
from serving import Server

from syncfailover.testing import FakeUpstream


@pytest.fixture
def echoes() -> Iterator[List[FakeUpstream]]:
    """Three upstreams `a`, `b`, `c` that take 5 ms and say what they were asked."""
    upstreams = [FakeUpstream(name, text="{prompt}", delay_s=0.005).start() for name in "abc"]
    yield upstreams
    for upstream in upstreams:
        upstream.stop()


@pytest.fixture
def server_of(echoes: List[FakeUpstream], tmp_path: Path) -> Callable[..., Server]:
    """A function that makes servers: their command, and more for their environment."""

    def make(command: Sequence[str], **environ: Any) -> Server:
        return Server(command, echoes, tmp_path, **environ)

    return make


# Redis


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for all tests of a module."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def server(keeper: RedisServer) -> RedisServer:
    """The same Redis, with nothing in it."""
    keeper.client().flushall()
    return keeper


@pytest.fixture
def calls(upstreams: List[FakeUpstream]) -> Iterator[Calls]:
    """Clients in this process."""
    made = Calls(upstreams)
    yield made
    made.close()
