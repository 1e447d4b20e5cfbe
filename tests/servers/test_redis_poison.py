"""Whatever stands in Redis, or is said there, is read within bounds and believed only if it can be: one warning at most."""

import json
import time
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import redis
from redis_servers import INTERVAL_S, QUICK_S, Calls, RedisServer, warnings_of
from serving import eventually

from syncfailover.policy.entry import KINDS, LARGEST
from syncfailover.state.redis import RedisStore
from syncfailover.state.store import Account, Record
from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server

ENDPOINT = "ab" * 12


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    """A store at that server."""
    made = RedisStore(server.url)
    made.open(lambda: None)
    yield made
    made.close()


@pytest.fixture
def calls() -> Iterator[Calls]:
    """Clients in this process, of two upstreams."""
    upstreams = [FakeUpstream(name).start() for name in "ab"]
    made = Calls(upstreams)
    yield made
    made.close()
    for upstream in upstreams:
        upstream.stop()


def key(kind: str, endpoint: str = ENDPOINT) -> str:
    """Name a key."""
    return f"{{syncfailover}}:1:{endpoint}:{kind}"


def put(admin: redis.Redis, name: str, value: Any) -> None:
    """Put something there, of whatever type."""
    admin.delete(name)
    if isinstance(value, list):
        admin.rpush(name, *value)
    elif isinstance(value, dict):
        admin.hset(name, mapping=value)
    else:
        admin.set(name, value)


def entry(at: float, until: float, value: Any, header: Any = None) -> bytes:
    """Make an entry as it is kept."""
    shown = at if header is None else header
    return f"{shown} up\n".encode() + json.dumps([at, until, value]).encode()


DEAD = {"status": "unhealthy", "good": 0, "bad": 9, "failed": True, "detail": "poisoned", "latency_ms": None}
OPEN = {"open": True, "until": 0.0, "since": 0.0, "trials": 1, "reason": "poisoned"}
NOW = time.time()

#: What may stand in the place of an entry; none of it says anything that could be so.
POISON: Dict[str, Any] = {
    "ten megabytes": b"x" * 10_000_000,
    "ten megabytes of an entry": entry(NOW, NOW + 60, DEAD) + b" " * 10_000_000,
    "a list": [b"1", b"2"],
    "a hash": {"at": "1"},
    "no text": bytes(range(256)),
    "no entry": b"hello\nworld",
    "an empty object": b"1 up\n{}",
    "deep": b"1 up\n" + b"[" * 8000,
    "from the future": entry(NOW + 9e6, NOW + 9e6 + 60, DEAD),
    "from the future, it says": entry(NOW, NOW + 60, DEAD, header=9e12)[:-5],
    "for ever": entry(NOW, NOW + 9e9, DEAD),
    "endless": entry(float("inf"), float("nan"), DEAD),
    "wrong types": entry(NOW, NOW + 60, {**DEAD, "status": 7}),
    "a status that there is not": entry(NOW, NOW + 60, {**DEAD, "status": "on fire"}),
    "something missing": entry(NOW, NOW + 60, {"status": "unhealthy"}),
    "a list for a value": entry(NOW, NOW + 60, [1, 2, 3]),
}


@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_entry(
    poison: str, server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind of poison in the place of each kind of entry is warned of once, and believed by nobody."""
    client = calls.client(server.url)
    admin = server.client()
    names = [
        key(kind, endpoint) for endpoint in client.registry.peers.gossip.identities.values() for kind in KINDS
    ]
    for name in names:
        put(admin, name, POISON[poison])
    calls.ask_until(lambda: warnings_of(caplog), "it is warned of")
    calls.ask_until(lambda: calls.all_are("shared"), "the store is in use")
    admin.publish("{syncfailover}:1:news", "read again")
    calls.ask(10)
    assert all(state.eligible for state in client.status().endpoints)
    (only,) = warnings_of(caplog)
    assert only.startswith("state: redis: an entry is ignored: ")
    assert "poisoned" not in only
    assert calls.slowest_s < 0.3 + QUICK_S


def test_poison_is_overwritten(server: RedisServer, store: RedisStore) -> None:
    """What stands in the place of an entry is replaced by the next one that is found out, whatever it was."""
    admin = server.client()
    for poison in POISON.values():
        for kind in KINDS:
            put(admin, key(kind), poison)
        now = store.now()
        store.write([Record(ENDPOINT, kind, now, now + 60.0, b"[]") for kind in KINDS], {})
        assert {data for *_, data in store.read([ENDPOINT])} == {b"[]"}, poison[:40]


def test_little_is_read_of_much(server: RedisServer, store: RedisStore) -> None:
    """Ten megabytes in each place cost a few kilobytes to find."""
    admin = server.client()
    for kind in (*KINDS, "lease"):
        put(admin, key(kind), POISON["ten megabytes"])
    before = admin.info("stats")["total_net_output_bytes"]
    found = store.read([ENDPOINT])
    assert store.lease([ENDPOINT], "aa", 1.0)
    now = store.now()
    store.write([Record(ENDPOINT, "health", now, now + 60.0, b"[]")], {})
    assert admin.info("stats")["total_net_output_bytes"] - before < 100_000
    assert [kind for _, kind, data in found if len(data) > LARGEST] == list(KINDS)


@pytest.mark.parametrize(
    "poison",
    [
        b"hello",
        b"",
        [b"1"],
        {"a": "b"},
        b"aa 1 " + b"9" * 100,
        b"aa " + b"9" * 20 + b" 5",
        b"cc 5 99999999999999",
        b"x" * 10_000_000,
        b"aa nan nan",
    ],
)
def test_a_poisoned_lease(server: RedisServer, store: RedisStore, poison: Any) -> None:
    """A lease that cannot be is nobody's: it is taken, given up, and fences nobody."""
    admin = server.client()
    put(admin, key("lease"), poison)
    now = store.now()
    store.write([Record(ENDPOINT, "health", now, now + 60.0, b"[1]")], {})
    assert store.read([ENDPOINT]) == [(ENDPOINT, "health", b"[1]")]
    store.release([ENDPOINT], "aa")
    token = store.lease([ENDPOINT], "aa", 1.0)[ENDPOINT]
    assert abs(token / 1000.0 - store.now()) < 5.0
    assert store.lease([ENDPOINT], "bb", 1.0) == {}


@pytest.mark.parametrize(
    "poison", [b"hello", [b"1"], {"a": "b"}, b"nan nan", b"inf 1", b"1 inf", b"5", b"x" * 10_000_000]
)
def test_a_poisoned_account(server: RedisServer, store: RedisStore, poison: Any) -> None:
    """An account that cannot be is a new one."""
    put(server.client(), "{syncfailover}:1:account:retries:x", poison)
    put(server.client(), "{syncfailover}:1:members:retries:x", poison)
    found = store.settle([Account("retries:x", -1.0, 100.0, 1.0, "aa"), Account("usd:x", 0.5)])
    assert found == {"retries:x": 99.0, "usd:x": 0.5}
    found = store.settle([Account("retries:x", 200.0, 100.0, 0.0, "bb")])
    assert found == {"retries:x": 200.0}, "two may keep twice as much"


@pytest.mark.parametrize(
    "accounts",
    [
        [(0.0, None, 0.0), (0.1, None, 0.0), (0.2, None, 0.0)],
        [(-250.0, 100.0, 1.0), (0.0, 100.0, 1.0)],
        [(500.0, 100.0, 1.0), (-0.3, 100.0, 0.0), (1e-9, 100.0, 0.0)],
        [(-1.0, None, 0.0), (3.14159265358979, None, 0.0)],
        [(10.0, 0.0, 5.0), (0.0, 0.0, 5.0)],
    ],
)
def test_accounts_are_reckoned_as_elsewhere(store: RedisStore, accounts: List[Tuple[Any, ...]]) -> None:
    """The script comes to the same as `Account.settled`, to the last digit where time adds nothing."""
    known: Any = None
    for change, capacity, per_second in accounts:
        account = Account("x", change, capacity, per_second)
        found = store.settle([account])["x"]
        expected = account.settled(known, store.now())
        assert found == pytest.approx(expected, abs=per_second * 0.5 + 1e-12)
        known = found, store.now()


def test_garbage_on_the_channel(server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is said there costs ten reads a second at most, and nobody warns or fails."""
    client = calls.client(server.url)
    calls.ask()
    eventually(lambda: not client.registry.peers.store.has_news(), "it listens")
    admin = server.client()
    admin.config_resetstat()
    began = time.monotonic()
    while time.monotonic() - began < 2.0:
        with admin.pipeline(transaction=False) as pipe:
            for _ in range(100):
                pipe.publish("{syncfailover}:1:news", b"\xff\x00garbage" * 10)
            pipe.execute()
        calls.ask()
    took = time.monotonic() - began
    admin.publish("{syncfailover}:1:news", b"x" * 10_000_000)
    calls.ask(5)
    reads = admin.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert reads / took < 10 + 8 / INTERVAL_S
    assert calls.slowest_s < 0.3 + QUICK_S
    assert client.status().state == "shared"
    assert not warnings_of(caplog)


def test_a_user_who_writes_everywhere_stops_nobody(
    server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody who goes on poisoning all of it keeps the processes from sharing, and from nothing else."""
    client = calls.client(server.url)
    admin = server.client()
    calls.ask()
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        for name in admin.scan_iter():
            put(admin, name.decode(), b"poison")
        calls.ask()
    assert calls.slowest_s < 0.3 + QUICK_S
    assert all(state.eligible for state in client.status().endpoints)
    assert len(warnings_of(caplog)) == 1


def test_members_that_cannot_be_do_not_count(server: RedisServer, store: RedisStore) -> None:
    """Members that are long gone, or come from the future, are forgotten."""
    admin = server.client()
    members = "{syncfailover}:1:members:retries:x"
    admin.zadd(members, {"old": 1.0, "endless": float("inf"), "late": time.time() + 9e6})
    assert store.settle([Account("retries:x", 500.0, 100.0, 0.0, "aa")]) == {"retries:x": 100.0}
    assert admin.zrange(members, 0, -1) == [b"aa"]
    assert 0 < admin.ttl(members) <= 60
