"""A store that answers late or never: the thread that waits for it is alone in that."""

import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence

import pytest
from fleet import endpoints_of

from syncfailover import EndpointRegistry, FailoverClient
from syncfailover.policy.sharing import Gossip
from syncfailover.runtime import process
from syncfailover.runtime.peers import Peers
from syncfailover.testing import FakeUpstream, ManualClock


class Stuck:
    """A store that, once told to, says nothing; as a name server may do that is asked where the store is."""

    kind = "stuck"
    look_s = 0.05
    is_quick = False

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.asked_for_s: List[float] = []

    def open(self, on_news: Callable[[], None]) -> None:
        """Wait until it goes on."""
        self.goes_on.wait()

    def now(self) -> float:
        """Return the time."""
        return time.time()

    def has_news(self) -> bool:
        """Have none."""
        return False

    def read(self, endpoints: Sequence[str]) -> List[Any]:
        """Know nothing."""
        return []

    def write(self, records: Any, fences: Any) -> None:
        """Keep nothing."""

    def lease(self, endpoints: Sequence[str], owner: str, ttl_s: float) -> Dict[str, int]:
        """Grant nothing: somebody else has all of them."""
        self.asked_for_s.append(ttl_s)
        return {}

    def release(self, endpoints: Sequence[str], owner: str) -> None:
        """Take nothing back."""

    def settle(self, accounts: Any) -> Dict[str, float]:
        """Have enough of everything."""
        return {account.name: 50.0 for account in accounts}

    def close(self) -> None:
        """Do nothing."""

    def forsake(self) -> None:
        """Do nothing."""


@pytest.fixture
def store() -> Iterator[Stuck]:
    """A store that goes on at the latest when the test is over."""
    made = Stuck()
    yield made
    made.goes_on.set()


def client_at(store: Stuck, upstreams: List[FakeUpstream], **options: Any) -> FailoverClient:
    """Make a client that shares its health there."""
    registry = EndpointRegistry(endpoints_of(upstreams), **options)
    registry.peers = Peers(registry, Gossip(registry._pool, registry.chance), store)
    return FailoverClient(registry, model="gpt-4.1")


def test_nobody_waits_for_a_store_that_is_stuck(store: Stuck, upstreams: List[FakeUpstream]) -> None:
    """Its first call waits a moment, none after that does, and soon endpoints are probed as without it."""
    store.goes_on.clear()
    client = client_at(store, upstreams, probe_interval=0.3)
    began = time.monotonic()
    client.chat("Hello")
    assert time.monotonic() - began < 1.0
    began = time.monotonic()
    assert upstreams[0].probes.wait_for(2, 5.0)
    assert time.monotonic() - began > 0.3, "for a while it might have been somebody else's to probe"
    client.chat("Hello")
    store.goes_on.set()
    client.close()


def test_others_probe_while_the_store_answers(store: Stuck, upstreams: List[FakeUpstream]) -> None:
    """Whoever has no lease probes nothing, for as long as the store answers; then it does."""
    client = client_at(store, upstreams, probe_interval=0.2)
    client.chat("Hello")
    assert not upstreams[0].probes.wait_for(1, 1.5)
    store.goes_on.clear()
    assert upstreams[0].probes.wait_for(2, 5.0)
    store.goes_on.set()
    client.close()


def test_where_the_talk_has_no_thread_the_monitor_probes(
    store: Stuck, upstreams: List[FakeUpstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that could start the one thread and not the other probes as without a store."""
    start_thread = process.start_thread

    def refuse(target: Any, name: str, *args: Any) -> threading.Thread:
        if name == "syncfailover-peers":
            raise process.NoThread("no more")
        return start_thread(target, name, *args)

    monkeypatch.setattr(process, "start_thread", refuse)
    client = client_at(store, upstreams, probe_interval=0.2)
    client.chat("Hello")
    assert upstreams[0].probes.wait_for(2, 5.0)
    client.close()


@pytest.mark.parametrize(("interval_s", "lease_s"), [(0.1, 0.5), (2.0, 1.8), (100.0, 90.0), (86400.0, 216.0)])
def test_how_long_leases_last(store: Stuck, interval_s: float, lease_s: float) -> None:
    """They follow the interval of probes, but for busy machines, and for stores that take no lease beyond 300 s."""
    clock = ManualClock()
    upstreams = [FakeUpstream("a", port=1)]
    registry = EndpointRegistry(endpoints_of(upstreams), probe_interval=interval_s, clock=clock)
    peers = Peers(registry, Gossip(registry._pool, registry.chance), store)
    peers._monitors.add(Probing)
    peers.talk()
    assert store.asked_for_s == [pytest.approx(lease_s)]
    clock.advance(lease_s / 2)
    peers.talk()
    assert len(store.asked_for_s) == 2, "it is renewed before it is over"


class Probing:
    """A monitor that runs."""

    running = True

    @staticmethod
    def hurry() -> None:
        """Do nothing."""
