"""Health shared over Redis: what one process learns all know, one of them probes, and nothing of it is in the way of calls."""

import gc
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from fleet import probes_per_interval
from redis.connection import Connection
from redis_servers import INTERVAL_S, RIGHTS, Calls, Peer, Peers, RedisServer, warnings_of
from serving import eventually

from syncfailover import BudgetExceeded, Endpoint, FailoverClient
from syncfailover.state.redis import RedisStore
from syncfailover.state.store import Record
from syncfailover.testing import FakeUpstream, Status

pytestmark = pytest.mark.server

#: Milliseconds within which all know.
ALL_KNOW_MS = 500.0


@pytest.fixture
def upstreams() -> Iterator[List[FakeUpstream]]:
    """Three upstreams."""
    made = [FakeUpstream(name).start() for name in "abc"]
    yield made
    for upstream in made:
        upstream.stop()


@pytest.fixture
def fleet(
    server: RedisServer, upstreams: List[FakeUpstream], tmp_path: Path
) -> Iterator[Callable[..., Peers]]:
    """A function that makes processes."""
    made: List[Peer] = []

    def make(count: int, **options: Any) -> Peers:
        options = {"probe_interval": INTERVAL_S, "timeout": 10.0, **options}

        def start() -> Peer:
            made.append(Peer(server.url, upstreams, tmp_path, **options))
            return made[-1]

        return Peers(start, count)

    yield make
    for peer in made:
        peer.stop()


def spread_ms(times: List[float], since: float) -> float:
    """Return how long after something the last one knew."""
    assert all(times), "somebody never knew"
    return (max(times) - since) * 1000.0


def test_all_know_of_open_breakers(
    fleet: Callable[..., Peers], upstreams: List[FakeUpstream], record_property: Any
) -> None:
    """The failures of one process open the breaker in all within 500 ms; its success closes it in all."""
    peers = fleet(6, priorities={"b": 1, "c": 1}, recovery_timeout=1.0, max_retries=0)
    peers.ask("start")
    upstreams[0].calls.always(Status(503))
    first, *others = peers.all
    for peer in others:
        peer.tell("wait", "breakers", "a", "open")
    first.ask("ask", 3)
    opened = first.ask("wait", "breakers", "a", "open")
    took_ms = spread_ms([peer.hear() for peer in others], opened)
    record_property("all know of an open breaker, ms", took_ms)
    assert took_ms < ALL_KNOW_MS
    assert {peer.ask("ask")["endpoint"] for peer in others} <= {"b", "c"}

    upstreams[0].heal()
    for peer in others:
        peer.tell("wait", "breakers", "a", "closed")
    eventually(lambda: first.ask("ask")["endpoint"] == "a", "the first to ask it is answered")
    times = [peer.hear() for peer in others]
    took_ms = spread_ms(times, min(times))
    record_property("all know of a closed breaker, ms", took_ms)
    assert took_ms < ALL_KNOW_MS


def test_all_know_what_probes_find(
    fleet: Callable[..., Peers], upstreams: List[FakeUpstream], record_property: Any
) -> None:
    """What the one prober finds dead all know within 500 ms of it, and what it finds alive again as well."""
    peers = fleet(6)
    peers.ask("start")
    peers.ask("wait", "health", "a", "healthy")
    for change, found in ((upstreams[0].kill, "unhealthy"), (upstreams[0].revive, "healthy")):
        for peer in peers.all:
            peer.tell("wait", "health", "a", found)
        change()
        times = [peer.hear() for peer in peers.all]
        took_ms = spread_ms(times, min(times))
        record_property(f"all know that it is {found}, ms", took_ms)
        assert took_ms < ALL_KNOW_MS


def test_one_prober_for_all(
    fleet: Callable[..., Peers], upstreams: List[FakeUpstream], record_property: Any
) -> None:
    """Eight processes make one probe per endpoint and interval, all together."""
    peers = fleet(8)
    peers.ask("start")
    peers.ask("wait", "health", "c", "healthy")
    for name in "abc":
        peers.prober(name)
    began = time.monotonic()
    time.sleep(12 * INTERVAL_S)
    for upstream in upstreams:
        rate = probes_per_interval(upstream, INTERVAL_S, began)
        record_property(f"probes of {upstream.name} per interval", rate)
        assert 0.8 <= rate <= 1.1


def test_a_killed_prober_is_replaced(
    fleet: Callable[..., Peers], upstreams: List[FakeUpstream], record_property: Any
) -> None:
    """Within two intervals of a SIGKILL another process probes; two seconds are the default interval."""
    interval_s = 1.0
    peers = fleet(4, probe_interval=interval_s)
    peers.ask("start")
    prober = peers.prober("a")
    prober.process.kill()
    killed = time.monotonic()
    peers.all.remove(prober)
    for upstream in upstreams:
        assert upstream.probes.wait_for(
            lambda u=upstream: any(request.at > killed + 0.1 for request in u.probes.requests), 10.0
        )
        probed = min(request.at for request in upstream.probes.requests if request.at > killed + 0.1)
        record_property(f"intervals until {upstream.name} was probed again", (probed - killed) / interval_s)
        assert probed - killed <= 2.0 * interval_s + 0.1


def test_a_closed_prober_is_replaced_at_once(fleet: Callable[..., Peers]) -> None:
    """A process that leaves gives its leases up."""
    peers = fleet(3)
    peers.ask("start")
    prober = peers.prober("a")
    prober.ask("close")
    closed = time.monotonic()
    peers.all.remove(prober)
    peers.prober("a")
    assert time.monotonic() - closed < INTERVAL_S


def test_a_paused_prober_comes_too_late(
    fleet: Callable[..., Peers], server: RedisServer, upstreams: List[FakeUpstream]
) -> None:
    """A prober that stood still while another took over changes nothing when it goes on, and probes no more."""
    peers = fleet(3)
    peers.ask("start")
    paused = peers.prober("a")
    upstreams[0].probes.script(*[Status(503)] * 2)
    assert upstreams[0].probes.wait_for(lambda: upstreams[0].probes.requests[-1].status == 503)
    os.kill(paused.pid, 19)  # SIGSTOP, with a failure seen and perhaps not told, and another on its way
    peers.all.remove(paused)
    successor = peers.prober("a")
    token = int(server.client().get(lease_key(server)).split()[1])
    os.kill(paused.pid, 18)  # SIGCONT
    paused.ask("wait", "health", "a", "healthy")
    for _ in range(10):
        time.sleep(INTERVAL_S / 5)
        assert not paused.ask("probes", "a")
    assert successor.ask("probes", "a")
    assert int(server.client().get(lease_key(server)).split()[1]) == token
    assert set(peers.ask("wait", "health", "a", "healthy", 1.0)) != {0.0}


def lease_key(server: RedisServer) -> bytes:
    """Return the name of any lease: one process has all of them."""
    return server.client().keys("*:lease")[0]


def test_fencing(server: RedisServer) -> None:
    """A probe is kept only from the last one who got the lease, also after a release, an end, and an empty restart."""
    old, new = RedisStore(server.url), RedisStore(server.url)
    for store in (old, new):
        store.open(lambda: None)
    endpoint = "ab" * 12

    def told(store: RedisStore, fences: Any, data: bytes) -> bool:
        now = store.now()
        store.write([Record(endpoint, "health", now, now + 60.0, data, "up")], fences)
        return (endpoint, "health", data) in new.read([endpoint])

    first = old.lease([endpoint], "aa", 0.05)
    assert told(old, first, b"[0]")
    eventually(lambda: new.lease([endpoint], "bb", 5.0), "the lease is over")
    second = new.lease([endpoint], "bb", 5.0)
    assert second[endpoint] > first[endpoint]
    assert old.lease([endpoint], "aa", 5.0) == {}
    assert not told(old, first, b"[1]")
    assert not told(old, {}, b"[2]")
    assert told(new, second, b"[3]")
    new.release([endpoint], "bb")
    assert not told(old, first, b"[4]")
    assert old.lease([endpoint], "aa", 5.0)[endpoint] > second[endpoint]
    server.client().flushall()
    assert new.lease([endpoint], "bb", 5.0)[endpoint] > second[endpoint]
    assert not told(old, first, b"[5]")
    for store in (old, new):
        store.close()


def test_rests_are_shared(server: RedisServer, calls: Calls, upstreams: List[FakeUpstream]) -> None:
    """A key that one client finds refused rests for the other, and so does a model that an endpoint does not have."""
    one, other = (calls.client(server.url, balancer="round_robin") for _ in range(2))
    calls.ask()
    upstreams[0].calls.script(Status(401))
    upstreams[1].calls.script(Status(404, body={"error": {"code": "model_not_found", "message": "no"}}))
    for _ in range(4):
        one.chat("Hello")
    eventually(lambda: not other.status()["a"].eligible, "the other knows that the key is refused")
    assert other.status()["a"].reason.startswith("key rests")
    eventually(
        lambda: {other.chat("Hello").endpoint for _ in range(6)} == {"c"},
        "the other knows the model is missing",
    )


def test_budgets_are_shared(server: RedisServer, calls: Calls, upstreams: List[FakeUpstream]) -> None:
    """The retries and the money that one client spends are gone for the other."""
    one, other = (calls.client(server.url) for _ in range(2))
    calls.ask()
    budget = one.registry.retry_budget
    spend = lambda pool: [budget.withdraw(one.registry.clock()) for _ in range(60)]  # noqa: E731
    assert all(one.registry.look(spend))
    eventually(lambda: other.registry.retry_budget.tokens < 50.0, "the other has fewer retries")


def test_money_is_shared(server: RedisServer, upstreams: List[FakeUpstream], calls: Calls) -> None:
    """What one client has spent the other cannot spend again."""
    prices = {"gpt-4.1": (1000.0, 1000.0)}
    endpoints = [Endpoint("a", upstreams[0].url, "sk-secret-a", prices=prices)]
    options = {"model": "gpt-4.1", "state": server.url, "budget_usd": 0.05, "probe_interval": INTERVAL_S}
    one, other = (FailoverClient(endpoints, **options) for _ in range(2))
    calls.clients += [one, other]
    other.chat("Hello")
    assert not is_refused(other)
    eventually(lambda: is_refused(one), "the money is spent")
    eventually(lambda: is_refused(other), "the other is refused")
    spent = sum(client.metrics()["total_cost_usd"] for client in (one, other))
    assert spent < 0.5


def is_refused(client: FailoverClient) -> bool:
    """Ask, and tell whether there is no money for it."""
    try:
        client.chat("Hello")
    except BudgetExceeded:
        return True
    return False


def test_a_cold_start_knows(server: RedisServer, calls: Calls, upstreams: List[FakeUpstream]) -> None:
    """A new client sends nothing to an endpoint that another one has found dead, from its first call on."""
    upstreams[0].kill()
    one = calls.client(server.url)
    one.wait_until_ready()
    assert one.registry.wait_for(lambda now: now["a"].status.value == "unhealthy", 10.0)
    one.close()
    calls.clients.remove(one)
    upstreams[0].revive()
    upstreams[0].clear_log()
    other = calls.client(server.url, balancer="round_robin", probe_when="never")
    assert {other.chat("Hello").endpoint for _ in range(6)} == {"b", "c"}
    assert not upstreams[0].calls.requests


def test_no_secret_is_written(server: RedisServer, calls: Calls, upstreams: List[FakeUpstream]) -> None:
    """No key, prompt or answer is in anything that was sent to Redis, and everything that is there expires."""
    upstreams[0].calls.always(Status(401))
    upstreams[1].calls.always(Status(503))
    with server.client().monitor() as monitor:
        calls.client(server.url, balancer="round_robin")
        calls.client(server.url)
        calls.ask(10)
        calls.ask_until(lambda: calls.all_are("shared"), "the store is in use")
        time.sleep(2 * INTERVAL_S)
        server.client().echo("the end")
        seen: List[str] = []
        while not seen or "the end" not in seen[-1]:
            seen.append(str(monitor.next_command()))
    dump = server.dump()
    kinds = Counter(key.decode().rpartition(":")[2] for key in dump)
    assert {"health", "lease", "breaker", "key"} <= set(kinds), kinds
    everything = "\n".join(seen) + repr(dump)
    for secret in ("sk-secret", "secret-a", "Hello", "Bearer"):
        assert secret not in everything
    client = server.client()
    assert all(0 < client.ttl(key) <= 86400 for key in dump)


def test_calls_do_no_input_or_output_with_redis(
    server: RedisServer, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only threads of the package talk to Redis, and creating a client says nothing at all."""
    talkers: List[str] = []
    for name in ("connect", "send_packed_command", "read_response", "can_read", "disconnect"):
        method = getattr(Connection, name)

        def counted(self: Any, *args: Any, _method: Any = method, **options: Any) -> Any:
            talkers.append(threading.current_thread().name)
            return _method(self, *args, **options)

        monkeypatch.setattr(Connection, name, counted)
    calls.client(server.url)
    assert not talkers
    calls.ask(50)
    calls.upstreams[0].calls.always(Status(503))
    calls.ask(20)
    calls.clients[0].status()
    calls.close()
    assert set(talkers) == {"syncfailover-peers", "syncfailover-news"}


def test_a_look_costs_nothing_while_peers_are_heard(server: RedisServer) -> None:
    """A store that listens asks Redis nothing when it is asked for news; one that cannot listen says that it is time to."""
    store = RedisStore(server.url)
    store.open(lambda: None)
    eventually(lambda: not store.has_news(), "it listens")
    before = server.client().info()["total_commands_processed"]
    assert not any(store.has_news() for _ in range(1000))
    assert server.client().info()["total_commands_processed"] - before <= 2
    store.close()
    assert store.has_news()


def test_without_pub_sub_all_know_as_soon(
    server: RedisServer, fleet: Callable[..., Peers], upstreams: List[FakeUpstream], record_property: Any
) -> None:
    """Where a user may not subscribe or publish, everything works by reading more often, and nobody is warned."""
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", "quiet", "reset", "on", ">sesame", "resetchannels", "~*", *RIGHTS)
    url = f"redis://quiet:sesame@127.0.0.1:{server.port}/0"
    peers = [Calls(upstreams) for _ in range(3)]
    clients = [each.client(url) for each in peers]
    for each in peers:
        each.ask()
        assert each.all_are("shared")
    upstreams[0].kill()
    times: List[float] = [0.0] * 3

    def watch(turn: int) -> None:
        assert clients[turn].registry.wait_for(lambda now: now["a"].status.value == "unhealthy", 10.0)
        times[turn] = time.time()

    watchers = [threading.Thread(target=watch, args=(turn,)) for turn in range(3)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    took_ms = spread_ms(times, min(times))
    record_property("all know without pub/sub, ms", took_ms)
    assert took_ms < ALL_KNOW_MS + 100.0
    for each in peers:
        each.close()
    admin.acl_deluser("quiet")


def test_a_lost_listener_is_replaced(
    server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """When the connection on which peers are heard is lost, there is another one a moment later, and no warning."""
    calls.client(server.url)
    calls.ask()
    admin = server.client()
    listeners = lambda: [c["id"] for c in admin.client_list(_type="pubsub")]  # noqa: E731
    (first,) = eventually(listeners, "it listens")
    admin.client_kill_filter(_type="pubsub")
    eventually(lambda: [one for one in listeners() if one != first], "it listens again")
    calls.ask()
    assert not warnings_of(caplog)


def test_what_is_dropped_goes_away(server: RedisServer, upstreams: List[FakeUpstream]) -> None:
    """A client that is dropped without being closed leaves no thread and no connection."""
    before = set(threading.enumerate())
    dropped = Calls(upstreams)
    for _ in range(3):
        dropped.client(server.url)
    dropped.ask()
    admin = server.client()
    assert len(admin.client_list()) >= 1 + 3
    del dropped
    gc.collect()
    eventually(lambda: set(threading.enumerate()) <= before, "no thread is left")
    eventually(lambda: len(admin.client_list()) == 1, "no connection is left")


def test_a_forked_child_has_connections_of_its_own(
    server: RedisServer, calls: Calls, upstreams: List[FakeUpstream]
) -> None:
    """A child that uses the client connects by itself, one that does not leaves no trace; the parent's go on."""
    client = calls.client(server.url)
    calls.ask(3)
    admin = server.client()
    ids = lambda: {c["id"] for c in admin.client_list()}  # noqa: E731
    eventually(lambda: len(ids()) == 3, "it is connected, and listens")
    before, threads = ids(), set(threading.enumerate())
    for uses in (False, True):
        pid = os.fork()
        if pid == 0:  # the child
            code = 1
            try:
                if uses:
                    client.chat("Hello")
                    client.registry.wait_for(lambda now: now.state == "shared", 5.0)
                    code = 0 if client.status().state == "shared" and len(ids_of_child(server)) >= 5 else 2
                    client.close()
                else:
                    gc.collect()
                    code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        eventually(
            lambda: ids() == before, "the child's connections are gone, and the parent's are as they were"
        )
        calls.ask(3)
        assert set(threading.enumerate()) == threads
        assert client.status().state == "shared"


def ids_of_child(server: RedisServer) -> List[Any]:
    """Count connections, over one that the parent does not know."""
    return server.client().client_list()


def test_two_deployments_do_not_meet(server: RedisServer, calls: Calls) -> None:
    """Another prefix is another world."""
    calls.client(server.url + "?prefix=red")
    calls.client(server.url + "?prefix=blue")
    calls.ask()
    calls.ask_until(lambda: calls.all_are("shared"), "both are in use")
    keys = server.client().keys()
    assert {key.partition(b":")[0] for key in keys} == {b"{red}", b"{blue}"}
    assert len({server.client().get(key) for key in server.client().keys("*:lease")}) >= 2


def test_what_it_costs(server: RedisServer, fleet: Callable[..., Peers], record_property: Any) -> None:
    """Ten idle processes with the default interval send fewer than four commands a second each."""
    peers = fleet(10, probe_interval=2.0)
    peers.ask("start")
    peers.ask("wait", "health", "c", "healthy")
    time.sleep(1.0)
    admin = server.client()
    admin.config_resetstat()
    net = admin.info("stats")["total_net_input_bytes"], admin.info("stats")["total_net_output_bytes"]
    began = time.monotonic()
    time.sleep(6.0)
    took = time.monotonic() - began
    stats, info = admin.info("commandstats"), admin.info("stats")
    counts = {name[8:]: round(s["calls"] / took / 10, 2) for name, s in stats.items()}
    usec = sum(s["usec"] for name, s in stats.items() if name in ("cmdstat_evalsha", "cmdstat_publish"))
    record_property("commands per second and process", counts)
    record_property("microseconds of Redis per second and process", usec / took / 10)
    record_property("bytes in and out per second and process", (
        (info["total_net_input_bytes"] - net[0]) / took / 10, (info["total_net_output_bytes"] - net[1]) / took / 10
    ))  # fmt: skip
    assert counts["evalsha"] < 4.0
    assert "keys" not in counts
    assert "scan" not in counts
