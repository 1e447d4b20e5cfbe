"""The queue over real sockets: who waits through an outage is served, in order, and nobody is trampled."""

import os
import pickle
import signal
import sys
import threading
import time

import pytest
from fleet import endpoints_of

from syncfailover import EndpointRegistry, FailoverClient, FailoverSession
from syncfailover.errors import (
    ConfigurationError,
    DeadlineExceeded,
    NoEndpointAvailable,
    QueueFull,
    QueueTimeout,
    QuotaExhausted,
)
from syncfailover.policy.line import Ticket
from syncfailover.testing import Status

OUTAGE_S = 3.0


class Crowd:
    """Threads that each make one call."""

    def __init__(self, client, size=0, **how):
        self.client, self.how = client, how
        self.replies, self.errors, self.numbers = {}, {}, {}
        self.threads = []
        wait_turn = client.registry.wait_turn

        def noted(ticket, until):
            served = wait_turn(ticket, until)
            self.numbers.setdefault(threading.current_thread().name, ticket.number)
            return served

        client.registry.wait_turn = noted
        for _ in range(size):
            self.call()

    def call(self, client=None, **how):
        """Begin a call."""
        name = f"caller-{len(self.threads)}"
        thread = threading.Thread(target=self._run, args=(client or self.client, name, how), name=name)
        self.threads.append(thread)
        thread.start()
        return name

    def _run(self, client, name, how):
        try:
            self.replies[name] = client.chat(name, **{**self.how, **how})
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.errors[name] = error

    def stands(self, count):
        """Wait until so many stand in line."""
        waited_until = time.monotonic() + 5.0
        while self.client.registry.waiting() != count:
            assert time.monotonic() < waited_until, self.client.registry.waiting()
            time.sleep(0.002)

    def join(self):
        """Wait for all of them."""
        for thread in self.threads:
            thread.join(20.0)
        assert not any(thread.is_alive() for thread in self.threads)


def calls_seen(upstreams):
    """Return who called, in the order in which upstreams saw them, with what they were answered."""
    seen = [
        (r.at, r.json()["messages"][0]["content"], r.status) for up in upstreams for r in up.calls.requests
    ]
    return sorted(seen)


@pytest.fixture
def patient(upstreams, make_client):
    """A function that makes a client whose calls wait, and lets nobody listen."""

    def make(**options):
        fields = options.pop("fields", {})
        options = {"queue_timeout": 5.0, "timeout": 10.0, **options}
        client = make_client(endpoints_of(upstreams, **fields), **options)
        for up in upstreams:
            up.kill()
        return client

    return make


def revive(upstreams):
    """End the outage."""
    for up in upstreams:
        up.revive()


# The proof


@pytest.mark.parametrize(
    ("how", "slots", "options"),
    [
        ("refused", 2, {"probe_when": "always"}),
        ("503", 1, {}),
    ],
)
def test_an_outage_of_three_seconds(upstreams, make_client, how, slots, options):
    """200 callers are all served, in order of arrival; one comes first, and then no more than there is room for."""
    client = make_client(
        endpoints_of(upstreams, max_concurrency=slots),
        timeout=30.0,
        queue_timeout=10.0,
        queue_size=200,
        **options,
    )
    for up in upstreams:
        up.kill() if how == "refused" else up.always(Status(503))
    began = time.monotonic()
    crowd = Crowd(client, 200)
    time.sleep(max(0.0, began + OUTAGE_S - time.monotonic()))
    assert client.registry.waiting() >= 198
    in_vain = sum(len(up.calls.requests) for up in upstreams)
    for up in upstreams:
        up.delay_s = 0.005
        up.revive() if how == "refused" else up.heal()
    crowd.join()
    took_s = time.monotonic() - began - OUTAGE_S

    assert not crowd.errors
    assert len(crowd.replies) == 200
    assert took_s < 10.0 - OUTAGE_S
    seen = [(at, who) for at, who, status in calls_seen(upstreams) if status == 200]
    assert len(seen) == 200
    assert seen[1][0] >= seen[0][0] + 0.005  # one first, the rest when it was answered
    in_order = sorted(crowd.numbers, key=crowd.numbers.__getitem__)
    arrival = {name: rank for rank, name in enumerate(in_order)}
    moved = [abs(arrival[who] - rank) for rank, (_, who) in enumerate(seen)]
    assert max(moved) <= len(upstreams), sorted(moved)[-5:]
    probes = 0 if client._monitor.probe_when == "never" else 1
    assert max(up.max_in_flight for up in upstreams) <= slots + probes
    assert in_vain <= 40  # three for each breaker and its retries, then one in a second


def test_a_crowd_wakes_one_by_one(upstreams, make_client):
    """Nobody looks whether it is their turn while it cannot be: a few times each, however many wait."""
    registry = EndpointRegistry(endpoints_of(upstreams[:1], max_concurrency=1), queue_size=1000)
    registry.force_open("a")
    looks, serve = [], registry._pool.serve
    registry._pool.serve = lambda model, now: looks.append(model) or serve(model, now)

    def stand():
        attempt = registry.wait_turn(Ticket("m"), time.monotonic() + 20.0)
        registry.release(attempt)
        done.append(attempt)

    done, threads = [], [threading.Thread(target=stand) for _ in range(1000)]
    for thread in threads:
        thread.start()
    while registry.waiting() < 1000:
        time.sleep(0.01)
    came = len(looks)
    registry.reset("a")
    for thread in threads:
        thread.join(20.0)
    assert len(done) == 1000
    assert None not in done
    assert came <= 1000 + 100  # each on arrival, the first four times in a second
    assert len(looks) - came <= 4 * 1000


# The ends of waiting


def test_the_queue_is_full(upstreams, patient):
    """One more than may wait hears so at once, with numbers, and when to come again; no key in it."""
    client = patient(queue_size=1, queue_timeout=1.0)
    crowd = Crowd(client, 1)
    crowd.stands(1)
    began = time.monotonic()
    with pytest.raises(
        QueueFull, match=r"no endpoint available and the queue is full \(queue_size=1\): a open for"
    ) as caught:
        client.chat("one too many")
    assert time.monotonic() - began < 0.5
    error = caught.value
    assert 0 < error.retry_after <= 33.0
    assert {state.name for state in error.snapshot.endpoints} == {"a", "b", "c"}
    assert isinstance(error, NoEndpointAvailable)
    assert "sk-secret" not in f"{error!s}{error!r}{error.__dict__}"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (str(copy), copy.retry_after, copy.attempts) == (str(error), error.retry_after, error.attempts)
    crowd.join()


def test_waiting_in_vain(patient):
    """The error says how long the caller waited, what was tried meanwhile, and why each endpoint is not there."""
    client = patient(queue_timeout=1.2)
    began = time.monotonic()
    with pytest.raises(QueueTimeout, match=r"after 1\.\d s in the queue: a open .*refused") as caught:
        client.chat("Hi")
    assert 1.1 < time.monotonic() - began < 5.0
    error = caught.value
    assert 25.0 < error.retry_after <= 33.0
    assert len(error.attempts) >= 3
    assert {attempt.outcome for attempt in error.attempts} == {"never_sent"}
    assert {state.name for state in error.snapshot.endpoints} == {"a", "b", "c"}
    assert "sk-secret" not in f"{error!s}{error!r}{error.__dict__}{error.attempts}"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (str(copy), copy.attempts, copy.retry_after) == (str(error), error.attempts, error.retry_after)


def test_the_whole_call_ends_first(patient):
    """A queue time longer than the call's total ends at the deadline, as a deadline."""
    client = patient(queue_timeout=60.0, timeout=0.8)
    client.registry.force_open("a")
    client.registry.force_open("b")
    client.registry.force_open("c")
    began = time.monotonic()
    with pytest.raises(
        DeadlineExceeded, match=r"out of time after 0\.8 s: no endpoint available: a forced_open"
    ):
        client.chat("Hi")
    assert 0.7 < time.monotonic() - began < 1.5


def test_a_caller_that_is_interrupted_leaves_the_line(upstreams, patient):
    """Ctrl-C ends the wait at once, and the next one is served."""
    client = patient()
    for name in "abc":
        client.registry.force_open(name)
    crowd = Crowd(client)

    def ring(*_):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        threading.Timer(0.1, crowd.call).start()
        with pytest.raises(KeyboardInterrupt):
            client.chat("main")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, old)
    crowd.stands(1)
    revive(upstreams)
    client.registry.reset("a")
    crowd.join()
    assert not crowd.errors
    assert client.registry.waiting() == 0
    assert all(state.in_flight == 0 for state in client.status().values())


def test_a_turn_that_comes_as_its_caller_is_interrupted_is_given_back(upstreams):
    """However late the interrupt: no slot of the bulkhead is lost."""
    registry = EndpointRegistry(endpoints_of(upstreams[:1], max_concurrency=1))
    held = registry.acquire()
    ticket = Ticket(None)
    wait = registry._queue._wait

    def wait_and_be_interrupted(ticket, until):
        wait(ticket, time.monotonic() + 0.01)
        registry.release(held)
        registry._pool.serve(None, registry.clock())
        raise KeyboardInterrupt

    registry._queue._wait = wait_and_be_interrupted
    with pytest.raises(KeyboardInterrupt):
        registry.wait_turn(ticket, time.monotonic() + 5.0)
    assert ticket.attempt is not None
    assert ticket.attempt.settled
    assert registry.snapshot().endpoints[0].in_flight == 0
    registry.acquire()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_no_callers_waiting(upstreams, patient):
    """The parent's line stays in the parent; the child's own calls wait in a line of their own."""
    client = patient(queue_size=3)
    crowd = Crowd(client, 3)
    crowd.stands(3)
    revived = threading.Timer(0.3, revive, (upstreams,))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if client.chat("child").text and client.registry.waiting() == 0 else 2
        except BaseException as error:  # noqa: BLE001 - a child must not run the rest of the test session
            sys.stderr.write(f"child: {error!r}\n")
        finally:
            os._exit(code)
    revived.start()
    assert os.waitpid(pid, 0)[1] == 0
    crowd.join()
    assert len(crowd.replies) == 3


def test_closing_a_client_leaves_its_waiting_calls_their_time(patient):
    """They end as they would have: at the end of their patience, not later."""
    client = patient(queue_timeout=1.0)
    crowd = Crowd(client, 2)
    crowd.stands(2)
    client.close()
    crowd.join()
    assert {type(error) for error in crowd.errors.values()} == {QueueTimeout}


# Who shares what


def test_clients_of_one_registry_stand_in_one_line(upstreams, make_client):
    """First come first served holds across them; who may not wait does not."""
    registry = EndpointRegistry(endpoints_of(upstreams, max_concurrency=1))
    first, second = make_client(registry, queue_timeout=5.0), make_client(registry, queue_timeout=5.0)
    hasty = make_client(registry)
    for name in "abc":
        registry.force_open(name)
    crowd = Crowd(first)
    for number, client in enumerate((first, second, first, second)):
        crowd.call(client)
        crowd.stands(number + 1)
    with pytest.raises(NoEndpointAvailable):
        hasty.chat("Hi")
    registry.reset("a")
    crowd.join()
    assert [who for _, who, _ in calls_seen(upstreams)] == [f"caller-{n}" for n in range(4)]


def test_a_session_waits_as_well(upstreams):
    """`FailoverSession(queue_timeout=...)` stands in the same line."""
    for up in upstreams:
        up.kill()
    with FailoverSession(endpoints_of(upstreams), queue_timeout=10.0, probe_when="never") as session:
        threading.Timer(0.3, revive, (upstreams,)).start()
        assert session.post("/chat/completions", json={"model": "m", "messages": []}).status_code == 200
    with FailoverSession(endpoints_of(upstreams), queue_timeout=0.2, probe_when="never") as session:
        for name in "abc":
            session.registry.force_open(name)
        with pytest.raises(QueueTimeout):
            session.post("/chat/completions", json={"model": "m", "messages": []})


def test_a_recovery_that_nobody_tells_of_is_found(upstreams, patient):
    """Without probes and other calls, who is first tries by itself, long before its patience and the breaker end."""
    client = patient(queue_timeout=9.0)
    crowd = Crowd(client, 1)
    crowd.stands(1)
    began = time.monotonic()
    revive(upstreams)
    crowd.join()
    assert time.monotonic() - began < 5.0
    assert not crowd.errors


def test_the_rest_follow_at_once(upstreams, patient):
    """Where there is room for all, each calls the next as it goes: the line is empty long before all are answered."""
    client = patient(timeout=30.0, queue_timeout=20.0)
    crowd = Crowd(client, 40)
    crowd.stands(40)
    for up in upstreams:
        up.delay_s = 0.3
    began = time.monotonic()
    revive(upstreams)
    crowd.join()
    assert not crowd.errors
    assert time.monotonic() - began < 5.0  # one in a quarter of a second would take ten
    assert max(up.max_in_flight for up in upstreams) >= 10


def test_who_waits_for_a_slot_is_served_in_order(upstreams, make_client):
    """A full bulkhead is no outage: one follows for each that is done, without a trial."""
    upstreams[0].delay_s = 0.02
    client = make_client(endpoints_of(upstreams[:1], max_concurrency=2), queue_timeout=5.0)
    crowd = Crowd(client, 60)
    crowd.join()
    assert not crowd.errors
    assert upstreams[0].max_in_flight == 2
    in_order = sorted(crowd.numbers, key=crowd.numbers.__getitem__)
    waited = [who for _, who, _ in calls_seen(upstreams) if who in crowd.numbers]
    assert max(abs(in_order.index(who) - rank) for rank, who in enumerate(waited)) <= 2
    assert all(len(reply.attempts) == 1 for reply in crowd.replies.values())


def test_a_listener_may_call_and_wait(upstreams, patient):
    """A callback that calls the client waits in line like anybody, and holds up no caller."""
    client = patient()
    heard = []
    client.on("all_down", lambda event: heard.append(client.chat("from the listener").text))
    crowd = Crowd(client, 3)
    crowd.stands(3)
    revive(upstreams)
    crowd.join()
    assert not crowd.errors
    assert len(heard) == 1


def test_no_credit_anywhere_is_said_at_once(upstreams, make_client):
    """Nobody waits in line for a key to be paid for."""
    body = {"error": {"message": "no credit", "code": "insufficient_quota"}}
    for up in upstreams:
        up.calls.always(Status(429, body=body))
    client = make_client(queue_timeout=5.0)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(QuotaExhausted):
            client.chat("Hi")
        assert time.monotonic() - began < 1.0


# Bad input


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf"), True, "5", None])
def test_a_queue_time_that_cannot_work(upstreams, value):
    """The error names field and value, before any call."""
    for door in (FailoverClient, FailoverSession):
        with pytest.raises(
            ConfigurationError, match=r"queue_timeout: .* finite number of at least 0"
        ) as caught:
            door(endpoints_of(upstreams), queue_timeout=value)
        assert caught.value.field == "queue_timeout"


@pytest.mark.parametrize("value", [-1, True, 1.5, "5", None])
def test_a_queue_size_that_cannot_work(upstreams, value):
    """The error names field and value, before any call."""
    for door in (FailoverClient, FailoverSession, EndpointRegistry):
        with pytest.raises(ConfigurationError, match=r"queue_size: .* whole number of at least 0") as caught:
            door(endpoints_of(upstreams), queue_size=value)
        assert caught.value.field == "queue_size"
