"""Real forks, Python's and raw ones: a child never touches its parent's locks, threads or sockets.

A raw fork is one that runs no hook of Python, as that of uWSGI: only the pid tells. Python's own lock is not mended
after one, so nobody else may be running Python at that moment: the upstreams are processes of their own, and probes rare.
"""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import types
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple
from urllib.parse import urlsplit

import forked
import pytest
from serving import connections, load

from syncfailover import Endpoint, FailoverClient

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

either_way = pytest.mark.parametrize("fork", forked.FORKS.values(), ids=forked.FORKS.keys())


def begin_child(work: Callable[[], bool], fork: Callable[[], int] = os.fork) -> int:
    """Fork, and do the work in the child, whose exit status is 0 if it went well; return its pid."""
    pid = fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        except BaseException as error:  # noqa: BLE001 - a child must not run the rest of the test session
            os.write(2, f"child: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return pid


def ended_well(pid: int) -> bool:
    """Wait for a child, at most ten seconds."""
    killer = threading.Timer(10.0, os.kill, (pid, 9))
    killer.start()
    _, status = os.waitpid(pid, 0)
    killer.cancel()
    killer.join()
    return status == 0


def in_child(work: Callable[[], bool], fork: Callable[[], int] = os.fork) -> bool:
    """Fork, do the work in the child, and tell whether it went well."""
    return forked.in_child(lambda: bool(work()), fork) == "True"


def locks_of(thing: Any) -> List[Any]:
    """Find all locks that can be reached from a thing without leaving for modules, classes or threads."""
    kinds = type(threading.Lock()), type(threading.RLock())
    found: Dict[int, Any] = {}
    seen = {id(thing)}
    todo = [thing]
    while todo:
        for other in gc.get_referents(todo.pop()):
            if id(other) in seen or isinstance(
                other, (types.ModuleType, type, threading.Thread, types.CodeType)
            ):
                continue
            seen.add(id(other))
            if isinstance(other, kinds):
                found[id(other)] = other
            elif isinstance(other, types.FunctionType):
                todo.extend(other.__closure__ or ())
            else:
                todo.append(other)
    return list(found.values())


@contextmanager
def held_elsewhere(locks: List[Any]) -> Iterator[int]:
    """Have another thread hold all locks; those that somebody waits at, as for a condition, are held already."""
    held, release = threading.Event(), threading.Event()
    count: List[int] = []

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                if lock.acquire(timeout=0.1):
                    stack.callback(lock.release)
            count.append(len(stack._exit_callbacks))
            held.set()
            release.wait(20.0)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20.0)
    try:
        yield count[0]
    finally:
        release.set()
        holder.join()


#: Three that say what they were asked, one that takes half a second for that, and one that streams slowly.
UPSTREAMS = """
from syncfailover.testing import FakeUpstream, Ok, Stream
made = [FakeUpstream(name, text="{prompt}").start() for name in "abcde"]
made[3].calls.always(Ok(delay_s=0.5))
made[4].calls.always(Stream(tokens=40, interval_s=0.01))
print(*(upstream.url for upstream in made), flush=True)
told = 0
while True:  # tell of each call of the slow one when it has arrived
    if made[3].calls.wait_for(told + 1, timeout=60.0):
        print("called", flush=True)
        told += 1
"""


class Upstream(NamedTuple):
    """An upstream in another process."""

    name: str
    url: str
    port: int


class Upstreams:
    """Five upstreams in a process of their own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", UPSTREAMS], stdout=subprocess.PIPE, text=True)
        urls = self._process.stdout.readline().split()
        *self.echoes, self.slow, self.streaming = (
            Upstream(name, url, urlsplit(url).port or 0) for name, url in zip("abcde", urls)
        )

    def wait_for_calls(self, count: int) -> None:
        """Wait until so many calls have arrived at the slow one."""
        for _ in range(count):
            assert self._process.stdout.readline()

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(10.0)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    """Upstreams for all tests here."""
    made = Upstreams()
    yield made
    made.end()


@pytest.fixture
def echoes(upstreams: Upstreams) -> List[Upstream]:
    """Three upstreams that say what they were asked."""
    return upstreams.echoes


@pytest.fixture
def client(echoes: List[Upstream]) -> Iterator[FailoverClient]:
    """A client that has heard of everybody, and has an idle connection to each; its monitor's thread sleeps."""
    with client_of(echoes, balancer="round_robin") as made:
        assert made.wait_until_ready()
        for _ in range(3):
            made.chat("parent")
        assert made.registry.wait_for(
            lambda now: all(s.status.value == "healthy" for s in now.endpoints), 5.0
        )
        yield made


def client_of(upstreams: List[Upstream], **options: Any) -> FailoverClient:
    """Make a client that probes rarely."""
    endpoints = [Endpoint(up.name, up.url, f"sk-{up.name}", max_latency_ms=5000.0) for up in upstreams]
    return FailoverClient(endpoints, model="m", probe_interval=60.0, timeout=5.0, **options)


def answers(client: FailoverClient, who: str, calls: int = 6) -> bool:
    """Ask, streamed and not, and tell whether each answer is that to its question."""
    questions = [f"{who}-{os.getpid()}-{number}" for number in range(calls)]
    texts = [client.chat(question).text for question in questions]
    texts += [client.chat(question, stream=True).collect().text for question in questions]
    return texts == questions * 2


@either_way
def test_a_child_calls_on_its_own(
    fork: Callable[[], int], client: FailoverClient, echoes: List[Upstream]
) -> None:
    """It has a monitor and counters of its own, and closes its copies of the parent's connections."""
    mine = connections(os.getpid(), echoes)
    assert len(mine) >= 3

    def work() -> bool:
        assert client.status().inherited
        assert all(state.status.value == "healthy" for state in client.status().endpoints)
        assert answers(client, "child")
        assert not client.status().inherited
        assert client._monitor.running
        assert client.metrics()["total_requests"] == 12
        assert client.status().mode == "active"
        theirs = connections(os.getpid(), echoes)
        return len(theirs) >= 3 and not theirs & mine

    assert in_child(work, fork)
    assert client.metrics()["total_requests"] == 3
    assert connections(os.getpid(), echoes) == mine
    assert answers(client, "parent")
    assert connections(os.getpid(), echoes) == mine, "all of them still serve"


@either_way
def test_a_fork_while_every_lock_is_held(fork: Callable[[], int], client: FailoverClient) -> None:
    """Whatever another thread of the parent held, every door of the client opens in the child."""

    def work() -> bool:
        assert client.status().inherited
        assert client.metrics()["total_requests"] == 0
        heard: List[Any] = []
        off = client.on("attempt", heard.append)
        assert client.with_options(timeout=3.0).chat("child").text == "child"
        off()
        client.registry.force_open("a")
        client.registry.reset("a")
        with client.session as session:
            assert session.get("/models").ok
        assert client.wait_until_ready()
        assert answers(client, "child")
        client.close()
        return len(heard) == 1

    with held_elsewhere(locks_of(client)) as count:
        assert count >= 10
        assert in_child(work, fork)


@either_way
def test_a_child_that_only_closes(fork: Callable[[], int], client: FailoverClient) -> None:
    """Closing is no matter of the parent's threads or locks, either."""
    with held_elsewhere(locks_of(client)):
        assert in_child(lambda: client.close() is None, fork)
    assert answers(client, "parent")


@either_way
def test_a_fork_with_a_call_under_way_counts_from_nothing(
    fork: Callable[[], int], client: FailoverClient
) -> None:
    """Requests that the parent has in flight are not the child's."""
    attempt = client.registry.acquire()
    assert in_child(lambda: client.status()[attempt.endpoint.name].in_flight == 0, fork)
    client.registry.release(attempt)


@either_way
def test_what_the_parent_knows_is_inherited(fork: Callable[[], int], client: FailoverClient) -> None:
    """The child sends nothing to an endpoint that its parent took out."""
    client.registry.force_open("b")
    assert in_child(lambda: {client.chat("Hi").endpoint for _ in range(6)} == {"a", "c"}, fork)


@either_way
def test_connections_in_use_are_left_to_the_parent(fork: Callable[[], int], upstreams: Upstreams) -> None:
    """Calls that other threads of the parent make at the fork end as they would have; the child keeps no copy of theirs."""
    with client_of([upstreams.slow]) as client:
        texts: List[str] = []
        callers = [
            threading.Thread(target=lambda n=n: texts.append(client.chat(f"parent {n}").text))
            for n in range(4)
        ]
        for caller in callers:
            caller.start()
        upstreams.wait_for_calls(len(callers))
        mine = connections(os.getpid(), [upstreams.slow])
        assert len(mine) >= 4

        def work() -> bool:
            theirs = client.chat("child").text == "child" and connections(os.getpid(), [upstreams.slow])
            return bool(theirs) and not theirs & mine

        assert in_child(work, fork)
        for caller in callers:
            caller.join()
        assert sorted(texts) == [f"parent {n}" for n in range(4)]
        upstreams.wait_for_calls(1)  # that of the child


def _close(stream: Any) -> None:
    stream.close()


def _forget(_stream: Any) -> None:
    gc.collect()


@either_way
@pytest.mark.parametrize("leave", [_close, _forget])
def test_a_stream_half_read_is_left_to_the_parent(
    leave: Callable[[Any], None], fork: Callable[[], int], upstreams: Upstreams
) -> None:
    """The child closes or drops its copy, and goes on by itself; the parent reads on to the end."""
    with client_of([upstreams.streaming]) as client:
        streams = [client.chat("parent", stream=True)]
        reader = iter(streams[0])
        next(reader)

        def work() -> bool:
            nonlocal reader
            reader = iter(())
            leave(streams.pop())
            gc.collect()
            return is_whole(client.chat("child", stream=True).collect())

        assert in_child(work, fork)
        for _ in reader:
            pass
        assert is_whole(streams[0].reply)


def is_whole(reply: Any) -> bool:
    """Tell whether nothing of the slow stream is missing."""
    return reply.text.split() == [f"token{number}" for number in range(40)]


@either_way
def test_a_fork_in_a_fork(fork: Callable[[], int], client: FailoverClient, echoes: List[Upstream]) -> None:
    """Each generation has its own connections, after calls of its parent and without any."""
    mine = connections(os.getpid(), echoes)

    def grandchild(theirs: Any) -> bool:
        return answers(client, "grandchild") and not connections(os.getpid(), echoes) & (mine | theirs)

    def child_that_called() -> bool:
        assert answers(client, "child")
        theirs = connections(os.getpid(), echoes)
        return in_child(lambda: grandchild(theirs), fork) and answers(client, "child")

    def child_that_did_not() -> bool:
        return in_child(lambda: grandchild(set()), fork) and answers(client, "child")

    assert in_child(child_that_called, fork)
    assert in_child(child_that_did_not, fork)
    assert answers(client, "parent")


def test_twenty_forks_under_load(client: FailoverClient, echoes: List[Upstream]) -> None:
    """The parent's threads go on calling while it forks; every answer, in every process, is that to its question."""

    def ask(question: str, stream: bool) -> Dict[str, Any]:
        reply = client.chat(question, stream=True).collect() if stream else client.chat(question)
        return {"text": reply.text, "pid": os.getpid()}

    forking, children = threading.Event(), []
    loading = threading.Thread(target=lambda: (load(ask, 400, 4, {20: forking.set}), finished.append(True)))
    finished: List[bool] = []
    loading.start()
    assert forking.wait(10.0)
    children = [begin_child(lambda: answers(client, "child", 3)) for _ in range(20)]
    assert [ended_well(child) for child in children] == [True] * 20
    loading.join(20.0)
    assert finished
    assert answers(client, "parent")


def test_a_child_leaves_as_programs_do(client: FailoverClient) -> None:
    """`multiprocessing` ends a child by its own rules; a client that nobody closed does not keep it."""
    child = multiprocessing.get_context("fork").Process(
        target=lambda: sys.exit(0 if answers(client, "child") else 1)
    )
    child.start()
    child.join(10.0)
    assert child.exitcode == 0
