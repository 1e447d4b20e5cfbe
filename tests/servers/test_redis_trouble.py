"""A Redis that is dead, paused, full, slow, refused, moved or failing over costs no call: one warning, and it heals."""

import datetime as dt
import ipaddress
import socket
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.cluster import RedisCluster
from redis.sentinel import Sentinel
from redis_servers import INTERVAL_S, QUICK_S, RIGHTS, Calls, RedisServer, SlowWay, warnings_of
from serving import eventually, free_port

from syncfailover.state.redis import RedisStore
from syncfailover.state.store import StoreError
from syncfailover.testing import FakeUpstream, Status

pytestmark = pytest.mark.server

#: Seconds that the first call of a client gives the store.
FIRST_S = 0.3


@pytest.fixture
def upstreams() -> Iterator[List[FakeUpstream]]:
    """Two upstreams."""
    made = [FakeUpstream(name).start() for name in "ab"]
    yield made
    for upstream in made:
        upstream.stop()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """A function that makes servers; they are not started."""
    made: List[RedisServer] = []

    def make(*options: str, **more: Any) -> RedisServer:
        made.append(RedisServer(tmp_path, *options, **more))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def server(make_server: Callable[..., RedisServer]) -> RedisServer:
    """A server that runs."""
    return make_server().start()


def share(calls: Calls) -> None:
    """Ask until all clients have found one another, and show that they have: one's failures open the other's breaker."""
    calls.ask_until(lambda: calls.all_are("shared"), "the store is in use")
    first, second = calls.clients[:2]
    upstream = calls.upstreams[0]
    upstream.calls.always(Status(503))
    eventually(lambda: first.chat("Hello") and first.status()["a"].breaker.value == "open", "it is open here")
    eventually(lambda: second.status()["a"].breaker.value == "open", "it is open there")
    upstream.heal()
    for client in calls.clients:
        client.registry.reset("a")


def prove(
    calls: Calls, caplog: pytest.LogCaptureFixture, trouble: Callable[[], Any], cure: Callable[[], Any]
) -> List[str]:
    """Bring trouble over two clients that share, and end it; no call fails or waits, and each warns once.

    Returns:
        The warnings.

    """
    share(calls)
    calls.slowest_s = 0.0
    assert not warnings_of(caplog)
    trouble()
    calls.ask_until(lambda: calls.all_are("alone"), "all have noticed")
    calls.ask(20)
    assert probed(calls), "each probes for itself"
    calls.ask(20)
    cure()
    share(calls)
    assert calls.slowest_s < QUICK_S
    warnings = warnings_of(caplog)
    assert len(warnings) == len(calls.clients), warnings
    assert all(" going on without it" in warning for warning in warnings)
    return warnings


def probed(calls: Calls) -> bool:
    """Wait until an endpoint is probed by all clients, and not by one alone."""
    upstream = calls.upstreams[1]
    seen = len(upstream.probes.requests)
    began = time.monotonic()
    more = 3 * len(calls.clients)
    return upstream.probes.wait_for(lambda: len(upstream.probes.requests) >= seen + more, 10.0) and (
        time.monotonic() - began < 8 * INTERVAL_S
    )


def two(calls: Calls, state: Any) -> Calls:
    """Make two clients that share."""
    for _ in range(2):
        calls.client(state, recovery_timeout=0.5)
    return calls


# The server


def test_killed_and_restarted_empty(
    server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is killed and comes back with nothing in it."""
    prove(two(calls, server.url), caplog, server.kill, server.start)
    assert {key.rpartition(b":")[2] for key in server.dump()} >= {b"health", b"lease"}


def test_killed_and_restarted_filled(
    server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is killed and comes back with what it had some time ago."""

    def save_and_kill() -> None:
        server.client().save()
        server.kill()

    prove(two(calls, server.url), caplog, save_and_kill, server.start)


def test_killed_for_a_moment(server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is back before anybody probes for itself."""
    two(calls, server.url)
    share(calls)
    server.kill()
    server.start()
    share(calls)
    assert calls.slowest_s < QUICK_S
    assert len(warnings_of(caplog)) <= 2


def test_paused(server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    """A server that stands still while its connections stay open, and goes on where it stood."""
    (first, *_) = prove(two(calls, server.url), caplog, server.pause, server.resume)
    assert "Timeout" in first


def test_a_first_call_while_it_is_paused(
    server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """The first call of a client gives a silent server 0.3 s, all others nothing; then it heals."""
    server.pause()
    two(calls, server.url)
    calls.ask()
    assert calls.slowest_s < FIRST_S + QUICK_S
    calls.slowest_s = 0.0
    calls.ask_until(lambda: len(warnings_of(caplog)) == 2, "all have noticed")
    assert calls.slowest_s < QUICK_S
    server.resume()
    share(calls)
    assert len(warnings_of(caplog)) == 2


def test_full(server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    """A server that takes no more."""
    admin = server.client()
    (first, *_) = prove(
        two(calls, server.url),
        caplog,
        lambda: admin.config_set("maxmemory", "1"),
        lambda: admin.config_set("maxmemory", "0"),
    )
    assert "maxmemory" in first


def test_read_only(server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    """A server that has become a replica, and a master again."""
    admin = server.client()
    (first, *_) = prove(
        two(calls, server.url),
        caplog,
        lambda: admin.replicaof("127.0.0.1", free_port()),
        lambda: admin.replicaof("NO", "ONE"),
    )
    assert "read only" in first or "slave" in first


def test_busy_with_a_script(server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    """A server that runs somebody's endless script, until somebody kills that."""
    admin, killer = server.client(socket_timeout=0.1), server.client()
    admin.config_set("busy-reply-threshold", "50")

    def occupy() -> None:
        with pytest.raises(redis.RedisError):
            admin.eval("while true do end", 0)

    prove(two(calls, server.url), caplog, occupy, killer.script_kill)


# The way to it


@pytest.mark.parametrize("delay_s", [0.15, 0.8])
def test_slow(server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture, delay_s: float) -> None:
    """A slow answer is waited for by nobody but the package's thread; one that takes too long is none."""
    way = SlowWay(server.port)
    two(calls, way.url)
    share(calls)
    calls.slowest_s = 0.0
    way.delay_s = delay_s
    if delay_s < 0.5:
        calls.ask(100)
        time.sleep(2 * INTERVAL_S)
        assert not warnings_of(caplog)
    else:
        calls.ask_until(lambda: calls.all_are("alone"), "all have noticed")
        calls.ask(50)
        way.delay_s = 0.0
        assert len(warnings_of(caplog)) == 2
    share(calls)
    assert calls.slowest_s < QUICK_S
    way.close()


def silent_port() -> Tuple[socket.socket, str]:
    """Open a port where connections are accepted and nothing is ever said."""
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"redis://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("where", ["nobody", "silence", "no such host", "another program"])
def test_no_redis_at_all(
    calls: Calls, upstreams: List[FakeUpstream], caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """Where no Redis is, each client warns once, everything goes on as without it, and each probes for itself."""
    listener, silence = silent_port()
    urls = {
        "nobody": f"redis://127.0.0.1:{free_port()}",
        "silence": silence,
        "no such host": "redis://no-such-host.invalid",
        "another program": f"redis://127.0.0.1:{upstreams[1].port}",
    }
    two(calls, urls[where])
    calls.ask()
    assert calls.slowest_s < FIRST_S + QUICK_S
    calls.slowest_s = 0.0
    calls.ask(50)
    assert probed(calls)
    assert calls.slowest_s < QUICK_S
    assert calls.all_are("alone")
    assert len(warnings_of(caplog)) == 2
    listener.close()


def test_a_connection_that_was_idle_for_too_long(server: RedisServer) -> None:
    """A server or a firewall may close what is idle: it is opened again without a word, and what was in use is not."""
    store = RedisStore(server.url)
    store.open(lambda: None)
    admin = server.client()
    for idle_s in (1.1, 0.0):
        assert store.read(["ab" * 12]) == []
        time.sleep(idle_s)
        admin.client_kill_filter(_type="normal", skipme=True)
        if idle_s:
            assert store.read(["ab" * 12]) == []
    with pytest.raises(StoreError, match=r"^redis 127\.0\.0\.1:"):
        store.read(["ab" * 12])
    store.close()


# Who may


def test_a_wrong_password(
    server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A refused login is warned of without the password, and used as soon as it is right."""
    secret = "hush-hush-1234"
    two(calls, f"redis://:{secret}@127.0.0.1:{server.port}/0")
    server.client().config_set("requirepass", "another")
    calls.ask(20)
    assert calls.all_are("alone")
    warnings = warnings_of(caplog)
    assert len(warnings) == 2
    admin = server.client(password="another")
    admin.config_set("requirepass", secret)
    share(calls)
    assert len(warnings_of(caplog)) == 2
    everything = caplog.text + repr(calls.clients) + repr([c.registry.peers for c in calls.clients])
    everything += repr([c.registry.peers.store for c in calls.clients])
    assert secret not in everything
    assert "127.0.0.1" in warnings[0]


def test_a_user_who_may_too_little(
    server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that is not permitted is a trouble like any other."""
    server.client().acl_setuser("reader", enabled=True, passwords=["+sesame"], keys=["*"], commands=["+time"])
    two(calls, f"redis://reader:sesame@127.0.0.1:{server.port}/0")
    calls.ask(20)
    assert calls.all_are("alone")
    (first, _second) = warnings_of(caplog)
    assert "evalsha" in first
    assert "sesame" not in caplog.text


def test_the_documented_user(server: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    """The rights that docs/sharing.md lists are enough for everything."""
    server.client().execute_command(
        "ACL", "SETUSER", "syncfailover", "on", ">sesame", "resetchannels", "~{syncfailover}:*",
        "&{syncfailover}:*", "-@all", *RIGHTS,
    )  # fmt: skip
    two(calls, f"redis://syncfailover:sesame@127.0.0.1:{server.port}/1")
    share(calls)
    eventually(lambda: not any(c.registry.peers.store.has_news() for c in calls.clients), "all listen")
    assert not warnings_of(caplog)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this host, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "here.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return path


@pytest.fixture
def secure(make_server: Callable[..., RedisServer], certificate: Path) -> RedisServer:
    """A server that speaks TLS alone."""
    port, path = str(free_port()), str(certificate)
    files = ["--tls-cert-file", path, "--tls-key-file", path, "--tls-ca-cert-file", path]
    server = make_server(
        "--port", "0", "--tls-port", port, "--tls-auth-clients", "no", *files, port=int(port)
    )
    return server.start(ssl=True, ssl_ca_certs=path)


def test_tls(secure: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture, certificate: Path) -> None:
    """TLS works with a certificate of one's own, by URL and by client, and through a restart."""
    url = f"rediss://127.0.0.1:{secure.port}/0?ssl_ca_certs={certificate}"
    calls.client(url, recovery_timeout=0.5)
    calls.client(secure.client(), recovery_timeout=0.5)
    prove(calls, caplog, secure.kill, secure.start)


def test_tls_that_is_not_trusted(secure: RedisServer, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    """A certificate that nobody vouches for is refused, unless the URL says otherwise."""
    calls.client(f"rediss://127.0.0.1:{secure.port}")
    calls.ask(20)
    assert calls.all_are("alone")
    (only,) = warnings_of(caplog)
    assert "certificate" in only.lower()
    calls.client(f"rediss://127.0.0.1:{secure.port}?ssl_cert_reqs=none&ssl_check_hostname=false")
    calls.ask_until(lambda: calls.clients[1].status().state == "shared", "the other trusts it")


# More than one server


def cluster_of(make_server: Callable[..., RedisServer], count: int) -> List[RedisServer]:
    """Start a cluster; every node has its part of the slots."""
    nodes = []
    for _ in range(count):
        port, bus = free_port(), free_port()
        options = ["--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{port}.conf"]
        nodes.append(make_server(*options, "--cluster-port", str(bus), port=port).start())
        nodes[-1].bus = bus
    each = 16384 // count
    for turn, node in enumerate(nodes):
        last = 16383 if turn == count - 1 else (turn + 1) * each - 1
        node.client().execute_command("CLUSTER ADDSLOTSRANGE", turn * each, last)
        if turn:
            node.client().execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port, nodes[0].bus)
    for node in nodes:
        eventually(lambda node=node: is_whole(node, count), "the cluster is whole")
    return nodes


def is_whole(node: RedisServer, count: int) -> bool:
    """Tell whether a node knows the whole cluster."""
    lines = node.client().execute_command("CLUSTER INFO")
    text = str(lines)
    return ("ok" in text.partition("cluster_state")[2][:8]) and f"{count}" in text.partition("known_nodes")[
        2
    ][:8]


def slot_of(node: RedisServer) -> int:
    """Return the slot of our keys."""
    return node.client().execute_command("CLUSTER KEYSLOT", "{syncfailover}")


def test_a_cluster_of_one_node(
    make_server: Callable[..., RedisServer], calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """A cluster is used through its own client and through a URL alike, and heals."""
    (node,) = cluster_of(make_server, 1)
    cluster = RedisCluster(host="127.0.0.1", port=node.port)
    calls.client(cluster, recovery_timeout=0.5)
    calls.client(node.url, recovery_timeout=0.5)
    prove(calls, caplog, node.pause, node.resume)
    cluster.close()


def test_a_cluster_of_two_nodes(
    make_server: Callable[..., RedisServer], calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever node is named, the one that has the keys is found, also when they move: without a warning."""
    one, other = cluster_of(make_server, 2)
    cluster = RedisCluster(host="127.0.0.1", port=other.port)
    for state in (cluster, one.url, other.url):
        calls.client(state, recovery_timeout=0.5)
    share(calls)
    slot = slot_of(one)
    holder, taker = (one, other) if slot < 8192 else (other, one)
    assert holder.dump()
    assert not taker.dump()
    taker_id = taker.client().execute_command("CLUSTER MYID")
    taker.client().execute_command("CLUSTER SETSLOT", slot, "NODE", taker_id)
    eventually(lambda: has_given(holder, slot, taker_id), "the slot was empty for a moment, and given away")
    eventually(taker.dump, "the keys are on the other node")
    share(calls)
    assert calls.slowest_s < FIRST_S + QUICK_S
    assert not warnings_of(caplog)
    cluster.close()


def has_given(node: RedisServer, slot: int, taker: bytes) -> bool:
    """Let a node lose its keys, and give their slot away if nobody has written since."""
    node.client().flushall()
    try:
        return bool(node.client().execute_command("CLUSTER SETSLOT", slot, "NODE", taker))
    except redis.ResponseError:
        return False


def test_a_failover_by_sentinels(
    make_server: Callable[..., RedisServer], calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """When the master dies, sentinels name another one, and peers meet there; the old one comes back as its replica."""
    master = make_server().start()
    replica = make_server(
        "--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0"
    ).start()
    master.client().config_set("repl-diskless-sync-delay", "0")
    eventually(lambda: replica.client().info("replication")["master_link_status"] == "up", "it replicates")
    sentinel = make_server().start_as_sentinel(
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1",
        "sentinel down-after-milliseconds mymaster 500",
        "sentinel failover-timeout mymaster 3000",
    )
    watch = sentinel.client()
    eventually(lambda: named(watch)["num-slaves"] == 1, "the sentinel knows the replica")
    calls.client(
        Sentinel([("127.0.0.1", free_port()), ("127.0.0.1", sentinel.port)]).master_for("mymaster"),
        recovery_timeout=0.5,
    )
    calls.client(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster/0", recovery_timeout=0.5)
    share(calls)
    calls.slowest_s = 0.0
    began = time.monotonic()
    master.kill()
    eventually(lambda: calls.ask() or named(watch)["port"] == replica.port, "there is another master")
    share(calls)
    assert time.monotonic() - began < 20.0
    assert calls.slowest_s < QUICK_S
    assert len(warnings_of(caplog)) == 2
    master.start()
    eventually(
        lambda: calls.ask() or master.client().info("replication")["role"] == "slave", "it is a replica"
    )
    share(calls)
    assert replica.dump()
    assert len(warnings_of(caplog)) == 2


def named(sentinel: redis.Redis) -> Dict[str, Any]:
    """Return what a sentinel says of the master."""
    return sentinel.sentinel_master("mymaster")
