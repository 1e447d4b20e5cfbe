"""Events: listeners that raise or block hold up nobody, and nothing is lost but what they never read."""

import logging
import threading
from collections import deque
from typing import Any, Deque, List

import pytest

from syncfailover import ConfigurationError
from syncfailover.events import EVENTS, Event
from syncfailover.runtime.dispatch import Dispatcher
from syncfailover.testing import FakeUpstream, Status


def change(number: int) -> Event:
    """A change of state that can be told from others."""
    return Event("breaker_opened", f"endpoint-{number}", "closed", "open", "test")


def dispatcher(queue: Deque[Event], logged: List[Event]) -> Dispatcher:
    """A dispatcher that logs into a list."""
    return Dispatcher(queue, logged.append)


def test_a_quick_listener_has_heard_before_the_cause_goes_on() -> None:
    """When `drain` returns, the listeners know, in the order of the changes."""
    queue, heard = deque(map(change, range(50))), []
    events = dispatcher(queue, [])
    events.on("breaker_opened", heard.append)
    events.drain()
    assert heard == list(map(change, range(50)))


def test_a_listener_that_blocks_holds_up_nobody() -> None:
    """The log has every change and the cause goes on; the listener reads the rest when it can."""
    queue: Deque[Event] = deque([change(0)])
    logged: List[Event] = []
    heard: List[Event] = []
    go_on, done = threading.Event(), threading.Event()
    events = dispatcher(queue, logged)

    def block(event: Event) -> None:
        go_on.wait(20.0)
        heard.append(event)
        if len(heard) == 3:
            done.set()

    events.on("breaker_opened", block)
    events.drain()  # returns although the listener has not
    queue.extend([change(1), change(2)])
    events.drain()
    assert (len(logged), heard) == (3, [])
    go_on.set()
    assert done.wait(20.0)
    assert heard == [change(0), change(1), change(2)]


def test_what_waits_for_a_blocked_listener_is_bounded(caplog: Any) -> None:
    """Of a thousand and more changes the oldest are dropped, and one warning names the listener."""
    queue: Deque[Event] = deque([change(0)])
    heard: List[Event] = []
    go_on, done = threading.Event(), threading.Event()
    events = dispatcher(queue, [])

    def stubborn(event: Event) -> None:
        go_on.wait(20.0)
        heard.append(event)
        if event == change(2999):
            done.set()

    events.on("breaker_opened", stubborn)
    with caplog.at_level(logging.WARNING):
        events.drain()
        queue.extend(map(change, range(1, 3000)))
        events.drain()
    go_on.set()
    assert done.wait(20.0)
    assert heard[0] == change(0)
    assert heard[1:] == list(map(change, range(2000, 3000)))
    assert [r.message.count("stubborn") for r in caplog.records] == [1]


def test_a_listener_that_raises_is_logged_and_the_next_one_hears(caplog: Any) -> None:
    """Neither an error nor SystemExit in a listener reaches anybody but the log."""
    queue, heard = deque([change(0)]), []

    def leave(event: Event) -> None:
        raise SystemExit

    def fail(event: Event) -> None:
        raise ValueError("no")

    events = dispatcher(queue, [])
    for callback in (leave, fail, heard.append):
        events.on("breaker_opened", callback)
    events.drain()
    assert heard == [change(0)]
    assert len([r for r in caplog.records if r.exc_info]) == 2


def test_a_listener_may_cause_a_change_itself() -> None:
    """What a listener's own call changes is told after what it is being told, without waiting for itself."""
    queue, heard = deque([change(0)]), []
    events = dispatcher(queue, [])
    done = threading.Event()

    def cause(event: Event) -> None:
        heard.append(event)
        if event == change(0):
            queue.append(change(1))
            events.drain()
        else:
            done.set()

    events.on("breaker_opened", cause)
    events.drain()
    assert done.wait(20.0)
    assert heard == [change(0), change(1)]


def test_no_call_waits_for_a_listener_that_blocks(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """With a listener stuck on the first change, calls go on, and so do health checks."""
    upstreams[0].calls.always(Status(500))
    client = make_client(probe_when="always", probe_interval=0.05, timeout=5.0)
    go_on = threading.Event()
    for name in ("breaker_opened", "health_changed", "all_down"):
        client.on(name, lambda event: go_on.wait(20.0))
    try:
        assert all(client.chat("Hi").text for _ in range(12))
        upstreams[1].probes.always(Status(500))
        assert client.registry.wait_for(lambda now: now["b"].status.value == "unhealthy", 5.0)
        assert client.chat("Hi").endpoint == "c"
    finally:
        go_on.set()


@pytest.mark.parametrize("name", ["breaker_open", "", None, 1, "Attempt"])
def test_an_unknown_event_is_refused(make_client: Any, name: Any) -> None:
    """`on` says which names there are."""
    with pytest.raises(ConfigurationError, match=r"event: .* is not allowed; expected one of") as caught:
        make_client().on(name, print)
    assert all(repr(known) in str(caught.value) for known in EVENTS)


def test_a_listener_has_to_be_callable(make_client: Any) -> None:
    """`on` refuses what it could not call."""
    with pytest.raises(ConfigurationError, match="callback: 'print' is not allowed"):
        make_client().on("attempt", "print")
