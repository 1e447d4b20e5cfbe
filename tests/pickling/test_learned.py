"""Two pickles of one original are one thing again in a process: what one task learns, the next one knows."""

import copy
import os
import pickle
import threading
from decimal import Decimal
from typing import Any, List

import pytest
from fleet import endpoints_of
from pickled_work import ask, ask_in, post
from pickles import loaded, made

from syncfailover import BudgetExceeded, EndpointRegistry, FailoverClient
from syncfailover.policy.breaker import BreakerState
from syncfailover.runtime import registry as registry_module
from syncfailover.testing import FakeUpstream, Status

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_what_one_task_learns_the_next_one_knows(worker: Any, from_file: Any, upstreams: Any) -> None:
    """A process that unpickles a client for each task has one registry for all of them: a breaker opens once."""
    upstreams[0].calls.always(Status(500))
    told = list(worker.map(ask_in, [(from_file, f"prompt {number}") for number in range(24)]))
    assert {text for _pid, _registry, text in told} == {"Hello from upstream."}
    assert len({(pid, registry) for pid, registry, _text in told}) == 1
    assert len(upstreams[0].calls.requests) == 3


def test_two_pickles_of_one_client_share_registry_and_counters(from_variable: FailoverClient) -> None:
    """Two loads have one registry, which is not the original's, and count together; a client has connections of its own."""
    first, second, third = loaded(from_variable), loaded(from_variable), loaded(from_variable.with_options())
    assert first.registry is second.registry is third.registry
    assert first.registry is not from_variable.registry
    first.chat("Hi")
    first.registry.force_open("a")
    assert second.status()["a"].breaker is BreakerState.FORCED_OPEN
    assert from_variable.status()["a"].breaker is BreakerState.CLOSED
    assert second.metrics()["total_requests"] == third.metrics()["total_requests"] == 1
    assert from_variable.metrics()["total_requests"] == 0
    first.close()
    assert second.chat("Still there?").text


def test_tasks_that_bring_their_own_client_share_connections(
    worker: Any, from_file: Any, upstreams: Any
) -> None:
    """A process that unpickles a client, or a session, for each task opens one connection for all of them."""
    alone = FailoverClient([from_file.registry["a"]], model="m", probe_when="never")
    before = upstreams[0].connections
    for _ in range(5):
        assert worker.submit(ask, alone, "Hi").result(60)
        assert worker.submit(ask, alone.with_options(timeout=4), "Hi").result(60)
        assert worker.submit(post, alone.session, "Hi").result(60)
    assert upstreams[0].connections - before == 1


def test_closing_leaves_the_connections_of_others_open(from_file: Any, upstreams: Any) -> None:
    """They are closed with the last one that is there; the next one opens its own."""
    before = upstreams[0].connections
    alone = FailoverClient([from_file.registry["a"]], model="m", probe_when="never")
    first, second = loaded(alone), loaded(alone)
    shared = first._caller.transports
    assert second._caller.transports is shared
    assert alone._caller.transports is not shared
    first.chat("Hi")
    first.close()
    assert second.chat("Hi").text
    assert upstreams[0].connections - before == 1
    second.close()
    third = loaded(alone)
    assert third._caller.transports is not shared
    assert third.chat("Hi").text
    assert upstreams[0].connections - before == 2
    third.close()


def test_a_pickle_of_a_pickle_is_of_the_same_original(from_variable: FailoverClient) -> None:
    """What travels on from process to process stays one thing in each of them; one that is alike is another."""
    first = loaded(from_variable)
    assert loaded(first).registry is first.registry
    assert loaded(first._caller).registry is first.registry
    assert loaded(copy.deepcopy(from_variable)).registry is not first.registry


def test_a_budget_is_spent_together(upstreams: List[FakeUpstream]) -> None:
    """A process that unpickles a client for each task spends its budget once, not once for each task."""
    endpoint = endpoints_of(upstreams[:1], prices={"m": 1e6})[0].replace(api_key=None)
    original = FailoverClient([endpoint], model="m", budget_usd=Decimal("0.5"), probe_when="never")
    loaded(original).chat("Hi")
    with pytest.raises(BudgetExceeded):
        loaded(original).chat("Hi")
    assert original.metrics()["total_cost_usd"] == 0


@pytest.mark.usefixtures("forgetful")
def test_no_more_than_32_originals_are_kept() -> None:
    """The one that was not asked for the longest is forgotten first."""
    originals = [EndpointRegistry([made()]) for _ in range(33)]
    kept = loaded(originals[0])
    rest = [loaded(original) for original in originals[1:32]]
    assert loaded(originals[0]) is kept
    loaded(originals[32])
    assert loaded(originals[0]) is kept
    assert loaded(originals[2]) is rest[1]
    assert loaded(originals[1]) is not rest[0]


def test_threads_that_pickle_first_agree_on_an_identity() -> None:
    """However many pickle a client for the first time at once, it is one original."""
    registry = EndpointRegistry([made()])
    barrier, tokens = threading.Barrier(8), []

    def work() -> None:
        barrier.wait(10)
        tokens.append(registry.identity.token())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(tokens) == 8
    assert len(set(tokens)) == 1
    assert tokens[0] != EndpointRegistry([made()]).identity.token()


@pytest.mark.parametrize("changing", [False, True])
def test_a_child_forked_while_the_lock_is_held_unpickles(changing: bool) -> None:
    """It waits for no lock of the parent's, and keeps what was unpickled before unless that was just being changed."""
    original = EndpointRegistry([made()])
    pickled = pickle.dumps(original)
    before = pickle.loads(pickled)  # noqa: S301 - our own
    held, release = threading.Event(), threading.Event()
    rebuilt = registry_module._rebuilt

    def hold() -> None:
        with rebuilt._lock:
            rebuilt._changing = changing
            held.set()
            release.wait(20.0)
            rebuilt._changing = False

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20.0)
    pid = os.fork()
    if pid == 0:
        killer = threading.Timer(10.0, os._exit, (3,))
        killer.daemon = True
        killer.start()
        same = pickle.loads(pickled) is before  # noqa: S301 - our own
        os._exit(0 if same is not changing else 2)
    _, status = os.waitpid(pid, 0)
    release.set()
    holder.join(10.0)
    assert status == 0


def test_a_child_forked_while_connections_change_hands_calls(from_variable: FailoverClient) -> None:
    """It waits for no lock of the parent's, neither to take part in what is shared nor to leave it."""
    twin = loaded(from_variable)
    pickled = pickle.dumps(from_variable)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with twin._caller.transports._lock:
            held.set()
            release.wait(20.0)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20.0)
    pid = os.fork()
    if pid == 0:
        killer = threading.Timer(10.0, os._exit, (3,))
        killer.daemon = True
        killer.start()
        again = pickle.loads(pickled)  # noqa: S301 - our own
        texts = [client.chat("Hi").text for client in (twin, again)]
        again.close()
        twin.close()
        os._exit(0 if texts == ["Hello from upstream."] * 2 else 2)
    _, status = os.waitpid(pid, 0)
    release.set()
    holder.join(10.0)
    assert status == 0
    twin.close()


def test_a_thousand_pickles_leave_nothing_behind(from_variable: FailoverClient) -> None:
    """Clients that are unpickled, used and dropped take their threads along, and share one connection per endpoint."""
    original = FailoverClient(from_variable.registry.endpoints, model="m", probe_interval=0.05)
    pickled = pickle.dumps(original)
    before = set(threading.enumerate())
    for number in range(1000):
        twin = pickle.loads(pickled)  # noqa: S301 - our own
        if number % 100 == 0:
            twin.chat("Hi")
    registry = twin.registry
    del twin
    left = set(threading.enumerate()) - before
    for thread in left:
        if "syncfailover" in thread.name:
            thread._started.wait(10.0)  # it is listed before it begins
            thread.join(10.0)
            assert not thread.is_alive()
    assert (
        len(left) < 20
    )  # the upstreams' own, one for each connection, and what a monitor left in the last moment
    assert len(registry.transports._users) == 0


def test_calls_go_on_while_a_client_is_pickled(from_variable: FailoverClient) -> None:
    """Pickling takes no lock that a call needs, and finds nothing half changed."""
    stop, failed = threading.Event(), []

    def call() -> None:
        while not stop.is_set():
            try:
                from_variable.chat("Hi")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
                failed.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    sizes = {len(pickle.dumps(from_variable)) for _ in range(200)}
    stop.set()
    for thread in threads:
        thread.join(20)
    assert failed == []
    assert len(sizes) == 1
