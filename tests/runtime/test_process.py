"""Forks seen from close by: every door of the package in a child that no hook of Python has told what it is."""

import builtins
import gc
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import httpx
import pytest
import requests
from fleet import endpoints_of
from forked import FORKS, held_elsewhere, in_child, no_more_threads
from runtime.test_wire import certificate

import syncfailover
from syncfailover import ClientClosed, Endpoint, EndpointRegistry, FailoverClient, FailoverSession, default
from syncfailover.contrib.httpx import FailoverTransport
from syncfailover.policy.outcome import SUCCEEDED
from syncfailover.runtime import process
from syncfailover.runtime.breaker import CircuitBreaker
from syncfailover.runtime.once import Once
from syncfailover.testing import FakeUpstream, Stream

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

either_way = pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS.keys())


class World:
    """One of everything that has locks, used once, so that threads run and connections are open."""

    def __init__(self, upstreams: List[FakeUpstream]) -> None:
        self.client = FailoverClient(
            endpoints_of(upstreams),
            model="m",
            balancer="round_robin",
            timeout=5.0,
            hedge_after=4000.0,
            probe_interval=1e6,
        )
        self.registry = self.client.registry
        self.client.chat("parent")
        self.session = FailoverSession(endpoints_of(upstreams), timeout=5.0, probe_when="never")
        self.session.cookies.set("parent", "1")
        self.session.get("/models")
        self.url = upstreams[0].url + "/models"  # no business of the failover loop
        self.session.get(self.url)
        self.plain = requests.Session()
        self.registry.mount(self.plain, "https://api.openai.com/v1")
        self.httpx = httpx.Client(transport=FailoverTransport(self.client, "https://api.openai.com/v1"))
        self.breaker = CircuitBreaker()
        self.permit = self.breaker.acquire()
        self.attempt = self.registry.acquire()
        self.heard: List[Any] = []
        self.off = self.client.on("attempt", self.heard.append)
        self.once: Once[List[int]] = Once(lambda: [os.getpid()], lambda _made: False)
        for upstream in upstreams:
            upstream.calls.script(Stream(tokens=4, interval_s=0.5))
        self.stream = self.client.with_options(hedge_after=None).chat("parent", stream=True)
        next(self.stream)
        for upstream in upstreams:
            upstream.heal()

    def locks(self) -> List[Any]:
        """Every lock that a door may come to, which another thread can hold."""
        client, session = self.client, self.session
        owners = [client, session._door]
        callers = [client._caller, session._door]
        found = [self.breaker._lock, self.once._lock, session.cookies._cookies_lock]
        for owner, caller in zip(owners, callers):
            registry, dispatcher = owner.registry, owner.registry._dispatcher
            found += [registry._lock, dispatcher._lock, dispatcher._changes._lock, dispatcher._pending._lock]
            found.append(caller.terms.metrics._lock)
            for monitor in (client._monitor, session._door.monitor):
                found += [monitor._lock, monitor._refresh._lock]
            for transport in [*caller.transports, session.get_adapter(self.url)]:
                pools = transport.poolmanager.pools
                found += [pools.lock, *(pool.pool.mutex for pool in pools._container.values())]
        hedging = client._caller.terms.hedging
        found += [hedging._lore.lock, hedging._timer._clockwork._changed]
        return list({id(lock): lock for lock in found}.values())

    def close(self) -> None:
        """End everything."""
        self.registry.release(self.attempt)
        self.stream.close()
        for thing in (self.httpx, self.plain, self.session, self.client):
            thing.close()


@pytest.fixture
def world(fake_upstreams: Callable[..., List[FakeUpstream]]) -> Iterator[World]:
    """One of everything, over three upstreams that repeat what they are asked."""
    made = World(fake_upstreams(3, text="{prompt}"))
    yield made
    made.close()


CHAT = {"model": "m", "messages": [{"role": "user", "content": "child"}]}
URL = "https://api.openai.com/v1/chat/completions"


def _reads_the_stream(world: World) -> bool:
    pieces: List[Any] = []
    try:
        pieces.extend(world.stream)  # a few were there before the fork
    except ClientClosed as error:
        return "the process that this one was forked from" in str(error)
    return False


def _forgets_the_stream(world: World) -> bool:
    del world.stream
    return gc.collect() >= 0


def _hears_of_a_stream_of_its_own(world: World) -> bool:
    return "child" in world.client.chat("child", stream=True).collect().text


DOORS: Dict[str, Callable[[World], Any]] = {
    "chat": lambda world: world.client.chat("child").text == "child",
    "chat, streamed": _hears_of_a_stream_of_its_own,
    "with_options": lambda world: world.client.with_options(timeout=3.0).chat("child").text == "child",
    "map": lambda world: [reply.text for reply in world.client.map(["child"] * 3)] == ["child"] * 3,
    "models.list": lambda world: world.client.models.list(),
    "client.session": lambda world: world.client.session.post("/chat/completions", json=CHAT).ok,
    "session.post": lambda world: world.session.post("/chat/completions", json=CHAT).ok,
    "session.get, elsewhere": lambda world: world.session.get(world.url).ok,
    "session.close": lambda world: world.session.close() is None,
    "session.metrics": lambda world: world.session.metrics()["total_requests"] == 0,
    "mounted": lambda world: world.plain.post(URL, json=CHAT).ok,
    "httpx": lambda world: world.httpx.post(URL, json=CHAT).is_success,
    "status": lambda world: world.client.status().inherited,
    "repr": lambda world: repr(world.client),
    "metrics": lambda world: world.client.metrics()["total_requests"] == 0,
    "close": lambda world: world.client.close() is None,
    "on": lambda world: world.client.on("attempt", world.heard.append),
    "off": lambda world: world.off() is None,
    "wait_until_ready": lambda world: world.client.wait_until_ready(),
    "probe_all": lambda world: len(world.client._monitor.probe_all()) == 3,
    "a client more": lambda world: FailoverClient(world.registry, model="m").chat("child").text == "child",
    "registry.snapshot": lambda world: world.registry.snapshot(),
    "registry.acquire": lambda world: world.registry.acquire(),
    "registry.report": lambda world: world.registry.report(world.attempt, SUCCEEDED) is None,
    "registry.release": lambda world: world.registry.release(world.attempt) is None,
    "registry.wait_for": lambda world: world.registry.wait_for(lambda _now: True, 1.0),
    "registry.force_open": lambda world: world.registry.force_open("a") is None,
    "registry.uptimes_s": lambda world: world.registry.uptimes_s(),
    "breaker.acquire": lambda world: world.breaker.acquire(),
    "breaker.reset": lambda world: world.breaker.reset() is None,
    "permit.success": lambda world: world.permit.success() is None,
    "once": lambda world: world.once.get() == [os.getpid()],
    "stream, read": _reads_the_stream,
    "stream, closed": lambda world: world.stream.close() is None,
    "stream, dropped": _forgets_the_stream,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_opens_in_a_child(door: str, world: World) -> None:
    """Whatever locks another thread of the parent held, and though no hook ran: the pid tells."""
    locks = world.locks()
    assert len(locks) >= 20
    with held_elsewhere(locks):
        assert in_child(lambda: bool(DOORS[door](world))) == "True"
    assert world.client.chat("parent").text == "parent"


def test_the_parents_stream_goes_on(world: World) -> None:
    """A child that closes its copy, reads it or drops it takes nothing of it away."""
    for door in ("stream, read", "stream, closed", "stream, dropped"):
        assert in_child(lambda door=door: bool(DOORS[door](world))) == "True"
    for _ in world.stream:
        pass
    assert world.stream.reply.text.split()[-1] == "token3"


def test_the_default_client_in_a_child(upstreams: List[FakeUpstream], monkeypatch: Any) -> None:
    """A child asks over the default client that its parent has made, and makes one where the parent was just at it."""
    monkeypatch.setenv("HOLYSHEEP_API_KEYS", "key-1")
    monkeypatch.setenv("HOLYSHEEP_BASE_URL", upstreams[0].url)
    monkeypatch.setenv("SYNCFAILOVER_MODEL", "gpt-4.1")
    if default._default._thing is not None:
        default._default._thing.close()
    with held_elsewhere([default._default._lock]):
        assert in_child(lambda: syncfailover.chat("child").endpoint) == "holysheep-1"
    with syncfailover.default_client():
        assert in_child(lambda: syncfailover.chat("child").endpoint) == "holysheep-1"
        assert in_child(lambda: syncfailover.default_client().metrics()["total_requests"]) == "0"


def locks_in(thing: Any) -> Dict[int, Tuple[Any, str]]:
    """Find the locks that can be reached from a thing without leaving for modules, classes, code or threads."""
    kinds = type(threading.Lock()), type(threading.RLock())
    elsewhere = types.ModuleType, type, types.CodeType, types.FrameType, threading.Thread, logging.Logger
    found: Dict[int, Tuple[Any, str]] = {}
    seen, todo = {id(thing)}, [(thing, type(thing).__name__)]
    while todo:
        one, path = todo.pop()
        for other in gc.get_referents(one):
            if id(other) in seen or isinstance(other, elsewhere):
                continue
            seen.add(id(other))
            if isinstance(other, kinds):
                found[id(other)] = other, path
            elif isinstance(other, types.FunctionType):
                todo += [(cell, path) for cell in other.__closure__ or ()]
            else:
                todo.append((other, f"{path} > {type(other).__name__}"))
    return found


@either_way
def test_no_lock_of_the_parent_is_left(fork: Callable[[], int], world: World) -> None:
    """Not one of the locks that can be reached from what the package has made outlives a fork."""
    things = [world.client, world.session, world.breaker, world.once]
    before = {key: found for thing in things for key, found in locks_in(thing).items()}
    assert len(before) >= 20

    def work() -> str:
        for _ in range(3):
            assert world.client.chat("child").text == "child"
        assert world.session.get("/models").ok
        assert world.session.get(world.url).ok
        left = {key: path for thing in things for key, (_lock, path) in locks_in(thing).items()}
        return "\n".join(sorted(path for key, path in left.items() if key in before))

    assert in_child(work, fork) == ""


def test_a_session_has_connections_of_its_own_to_everybody(world: World) -> None:
    """Also to URLs that do not fail over; the parent's stay with the parent, which goes on over them."""

    def idle() -> Any:
        (pool,) = world.session.get_adapter(world.url).poolmanager.pools._container.values()
        return pool.pool.queue[-1].sock

    mine, name = idle(), idle().getsockname()

    def work() -> Any:
        assert world.session.get(world.url).ok
        return idle().getsockname() == name, mine.fileno()

    assert in_child(work) == "(False, -1)"
    assert world.session.get(world.url).ok
    assert idle() is mine


def test_over_tls_the_parent_goes_on_over_its_connections(tmp_path: Path) -> None:
    """A child that closes its copy ends no TLS session, and each gets the answers to its own questions."""
    context, bundle = certificate(tmp_path, "localhost")
    with FakeUpstream("tls", tls=context, text="{prompt}") as upstream:
        endpoint = Endpoint("tls", f"https://localhost:{upstream.port}/v1", "k", verify=bundle)
        with FailoverClient([endpoint], model="m", timeout=5.0, probe_when="never") as client:
            assert client.chat("parent").text == "parent"
            for number in (1, 2):
                assert in_child(lambda: [client.chat(f"child {n}").text for n in (1, 2)]) == str(
                    ["child 1", "child 2"]
                )
                assert client.chat(f"parent {number}").text == f"parent {number}"
            assert upstream.connections == 1 + 2


PROGRAM = """
    import ctypes, gc, os, sys, threading
    from syncfailover import Endpoint, FailoverClient, FailoverSession

    def calls():
        assert client.chat("Hi").text and session.get("/models").ok and session.get(sys.argv[2] + "/models").ok
        with client.chat("Hi", stream=True) as stream:
            next(stream)

    endpoints = [Endpoint(f"e{n}", url, "key") for n, url in enumerate(sys.argv[2:])]
    client = FailoverClient(endpoints, model="m", hedge_after=1000.0, probe_interval=1e6)
    session = FailoverSession(endpoints, probe_when="never")
    for _ in endpoints:
        calls()
    pid = os.fork() if sys.argv[1] == "hooked" else ctypes.PyDLL(None).fork()
    calls()
    session.close()  # its absolute URLs are requests' own, which under old versions of urllib3 warns of what is left open
    del client, session
    gc.collect()
    if pid:
        os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("fork", FORKS)
def test_not_a_word_is_said_of_what_was_left_to_the_parent(fork: str, upstreams: List[FakeUpstream]) -> None:
    """Parent and child end at once and silently, with every warning an error: no socket was forgotten."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        textwrap.dedent(PROGRAM),
    ]
    done = subprocess.run(
        [*command, fork, *(upstream.url for upstream in upstreams)],
        capture_output=True,
        text=True,
        timeout=30.0,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The hook


class Forkable:
    """Something that is told of forks, and does as it is told."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self.after_fork = do
        process.register(self)


def test_the_hook_only_assigns(world: World, monkeypatch: Any) -> None:
    """In the child it writes no log, imports nothing and starts no thread, whatever there is to replace."""
    parent, broken = os.getpid(), []

    def not_in_a_hook(what: Any, name: str) -> None:
        real = getattr(what, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            assert os.getpid() == parent, f"{name} in a hook"
            return real(*args, **kwargs)

        monkeypatch.setattr(what, name, guarded)

    not_in_a_hook(builtins, "__import__")
    not_in_a_hook(logging.Logger, "handle")
    not_in_a_hook(logging.Logger, "isEnabledFor")
    not_in_a_hook(threading.Thread, "__init__")
    not_in_a_hook(threading.Thread, "start")
    monkeypatch.setattr(sys, "unraisablehook", broken.append)
    logging.getLogger("syncfailover").setLevel(logging.DEBUG)
    with held_elsewhere(world.locks()):
        in_hook = in_child(lambda: (process._pid == os.getpid(), broken), os.fork)
    assert in_hook == "(True, [])"


def test_a_hook_that_failed_is_made_good() -> None:
    """What could not be replaced in the hook is replaced by whoever enters first."""
    tries: List[int] = []

    def fail_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError

    thing = Forkable(fail_once)

    def work() -> Any:
        assert process._pid != os.getpid()
        process.entered()
        return process._pid == os.getpid(), len(tries)

    unraisable, sys.unraisablehook = sys.unraisablehook, lambda _error: None
    try:
        assert in_child(work, os.fork) == "(True, 2)"
    finally:
        sys.unraisablehook = unraisable
    del thing


def test_threads_that_enter_at_once_wait_for_one_another() -> None:
    """Everything is replaced once, and nobody goes on before all of it is, nor adds to it meanwhile."""
    log: List[str] = []
    other_is_at_it = threading.Event()

    def replace() -> None:
        log.append("begins")
        other_is_at_it.wait(5.0)
        threading.Event().wait(0.05)  # time enough for the other, if it did not wait
        log.append("ends")

    thing = Forkable(replace)

    def other() -> None:
        other_is_at_it.set()
        Forkable(int)
        log.append("goes on")

    def work() -> List[str]:
        threads = [threading.Thread(target=process.entered), threading.Thread(target=other)]
        threads[0].start()
        while not log:
            threading.Event().wait(0.001)
        threads[1].start()
        for thread in threads:
            thread.join(5.0)
        return log

    assert in_child(work) == "['begins', 'ends', 'goes on']"
    assert not log
    del thing


def test_a_fork_while_a_child_is_finding_out(world: World) -> None:
    """A grandchild does not wait for the lock under which its parent was just replacing things."""
    parent, child = os.getpid(), threading.Event()

    def replace() -> None:
        if os.getppid() == parent:
            child.set()
            threading.Event().wait(5.0)

    thing = Forkable(replace)

    def work() -> str:
        threading.Thread(target=process.entered, daemon=True).start()
        assert child.wait(5.0)
        return in_child(lambda: world.client.chat("grandchild").text)

    assert in_child(work) == "grandchild"
    del thing


def test_what_a_fork_finds_half_changed_is_made_anew(world: World) -> None:
    """Caches that another thread of the parent was just changing are of no use; what was known of health is kept."""
    pool = world.registry._pool
    world.registry.probed(syncfailover.ProbeResult("a", alive=False, detail="down"))
    pool.roster.homes.settle(1, "m", "b", 0.0)
    rests, homes = pool.roster.rests, pool.roster.homes

    def work() -> Any:
        snapshot = world.client.status()
        return pool.roster.rests is rests, pool.roster.homes is homes, snapshot["a"].status.value

    assert in_child(work) == "(True, True, 'unhealthy')"
    with held_elsewhere([world.registry._lock]):
        assert in_child(work) == "(False, False, 'unhealthy')"


def test_a_fork_in_the_middle_of_a_choice(upstreams: List[FakeUpstream]) -> None:
    """A child works whatever line of the parent's choice, or of its report, the fork came after."""
    registry = EndpointRegistry(endpoints_of(upstreams))
    lines: List[str] = []

    def forks(frame: Any, event: str, _arg: Any) -> Any:
        if "/policy/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            where = f"{frame.f_code.co_filename.rsplit('/', 1)[1]}:{frame.f_lineno}"
            if where not in lines:
                lines.append(where)
                assert in_child(serves, os.fork) == "3"
        return forks

    def serves() -> int:
        sys.settrace(None)
        names = []
        for _ in range(6):
            attempt = registry.begin(registry.clock(), "m", affinity=len(names))
            names.append(attempt.endpoint.name)
            registry.report(attempt, SUCCEEDED)
        assert all(state.in_flight == 0 for state in registry.snapshot().endpoints)
        return len(set(names))

    registry.report(registry.begin(registry.clock(), "m", affinity=0), SUCCEEDED)
    registry._pool.roster.changed()
    before = sys.gettrace()
    sys.settrace(forks)
    try:
        registry.report(registry.begin(registry.clock(), "m", affinity=1), SUCCEEDED)
    finally:
        sys.settrace(before)
    assert len(lines) > 50


def test_permits_of_the_parent_mean_nothing_in_a_child(upstreams: List[FakeUpstream]) -> None:
    """What the parent tries is not tried here: the trial of an open breaker is free, and its result counts nowhere."""
    registry = EndpointRegistry(endpoints_of(upstreams[:1]), failure_threshold=1, recovery_timeout=60.0)
    breaker = CircuitBreaker(failure_threshold=1, recovery_timeout=1e-9)
    breaker.acquire().failure()
    trial = breaker.acquire()
    attempt = registry.acquire()

    def work() -> Any:
        trial.failure()
        breaker.acquire().success()
        registry.release(attempt)
        registry.acquire()
        return breaker.state.value, registry.snapshot()["a"].in_flight

    assert in_child(work) == "('closed', 1)"
    assert breaker.state.value == "half_open"


@either_way
def test_children_do_not_go_in_step(fork: Callable[[], int], world: World) -> None:
    """What they leave to chance differs, though no hook ran, and though their program seeds its own random numbers."""

    def work() -> float:
        random.seed(0)
        world.client.status()
        return world.registry.chance()

    drawn = [in_child(work, fork) for _ in range(3)]
    assert len(set(drawn)) == 3


def test_news_of_the_parent_are_told_by_the_parent(world: World) -> None:
    """A change that its listeners were just hearing of at the fork is told once, not in the child as well."""
    entered, leave, heard = threading.Event(), threading.Event(), []

    def slow(event: Any) -> None:
        heard.append(event.endpoint)
        if len(heard) == 1:
            entered.set()
            leave.wait(5.0)

    world.client.on("breaker_opened", slow)
    world.registry.force_open("b")
    world.registry.force_open("c")
    assert entered.wait(5.0)
    child = in_child(lambda: (world.registry.force_open("a"), heard[1:])[1])
    leave.set()
    assert child == "['a']"
    world.registry.reset("a")


# Whether threads run here


def test_a_thread_beyond_the_limit_is_refused_with_a_remedy() -> None:
    """Whoever asks is told what to do about it."""

    def work() -> str:
        no_more_threads()
        try:
            process.start_thread(print, "syncfailover-test")
        except process.NoThread as why:
            return str(why)
        return "it started"

    assert (
        in_child(work) == "can't start new thread: raise the limit: ulimit -u, or pids.max of the container"
    )


@pytest.mark.parametrize(("has_threads", "starts"), [(0, False), (1, True), (None, True)])
def test_uwsgi_says_whether_threads_run(has_threads: Any, starts: bool, monkeypatch: Any) -> None:
    """A thread that would stand still between requests is not begun; versions that do not say are believed to run it."""
    uwsgi: Any = types.ModuleType("uwsgi")
    if has_threads is not None:
        uwsgi.has_threads = has_threads
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    ran = threading.Event()
    if starts:
        process.start_thread(ran.set, "syncfailover-test").join(5.0)
    else:
        with pytest.raises(process.NoThread, match="--enable-threads"):
            process.start_thread(ran.set, "syncfailover-test")
    assert ran.is_set() is starts


def test_a_process_is_warned_once(monkeypatch: Any, caplog: Any) -> None:
    """However many threads find out at once that there are no more; a child is warned again, for it is another one."""
    monkeypatch.setattr(process, "_to_be_told", [True])
    process.warn_of_no_threads("can't create new thread at interpreter shutdown", "so what")
    assert not caplog.records, "a program that ends need not know"
    barrier = threading.Barrier(20)

    def warn() -> None:
        barrier.wait()
        process.warn_of_no_threads("none left", "calls do it")

    threads = [threading.Thread(target=warn) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caplog.messages == ["no background thread can run (none left); calls do it"]

    def work() -> int:
        process.entered()
        caplog.clear()
        process.warn_of_no_threads("none left", "calls do it")
        process.warn_of_no_threads("none left", "calls do it")
        return len(caplog.records)

    assert in_child(work) == "1"
