"""Real forks: a child never touches its parent's locks, threads or sockets."""

import os
import sys
import threading
from typing import Any, Callable, List

import pytest
from fleet import endpoints_of

from syncfailover import FailoverClient
from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def in_child(work: Callable[[], bool]) -> bool:
    """Fork, do the work in the child, and tell whether it went well within ten seconds."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        except BaseException as error:  # noqa: BLE001 - a child must not run the rest of the test session
            sys.stderr.write(f"child: {error!r}\n")
        finally:
            os._exit(code)
    killer = threading.Timer(10.0, os.kill, (pid, 9))
    killer.start()
    _, status = os.waitpid(pid, 0)
    killer.cancel()
    killer.join()
    return status == 0


def test_a_child_calls_on_its_own(upstreams: List[FakeUpstream]) -> None:
    """A client used before the fork works after it, over sockets of its own, with a monitor of its own."""
    with FailoverClient(endpoints_of(upstreams), model="gpt-4.1", probe_interval=0.1) as client:
        for _ in range(3):
            client.chat("parent")
        before = upstreams[0].connections

        def work() -> bool:
            texts = [client.chat("child").text for _ in range(6)]
            return all(texts) and client._monitor.running and client.metrics()["total_requests"] == 6

        assert in_child(work)
        assert upstreams[0].connections > before
        assert client.metrics()["total_requests"] == 3
        assert client.chat("parent again").text


def test_a_fork_while_every_lock_is_held(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """The child gets new locks, whatever another thread of the parent held."""
    client = make_client()
    client.chat("Hi")
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with client.registry._lock, client._monitor._lock, client._caller.terms.metrics._lock:
            held.set()
            release.wait(20.0)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20.0)
    try:
        assert in_child(lambda: bool(client.chat("child").text))
    finally:
        release.set()
        holder.join()


def test_a_fork_with_a_call_under_way_counts_from_nothing(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """Requests that the parent has in flight are not the child's."""
    client = make_client()
    attempt = client.registry.acquire()
    assert in_child(lambda: client.status()[attempt.endpoint.name].in_flight == 0)
    client.registry.release(attempt)
