"""`affinity=` over real sockets: where a conversation's calls arrive, and what nobody gets to see."""

import logging
import threading
from collections import Counter
from typing import Any, List, Set, Tuple

import pytest
from fleet import endpoints_of

from syncfailover import ConfigurationError
from syncfailover.testing import FakeUpstream, Ok, Status


class Name(str):
    """A text with a type of its own."""

    __slots__ = ()


class Unsteady:
    """Hashable at first; every later look at it raises."""

    def __init__(self, looks: int = 1) -> None:
        self.looks = looks

    def __hash__(self) -> int:
        self.looks -= 1
        if self.looks < 0:
            raise RuntimeError("detached")
        return 7

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("detached")


def served(client: Any, times: int, **options: Any) -> Set[str]:
    """Make calls; name those who answered."""
    return {client.chat("Hi", **options).endpoint for _ in range(times)}


@pytest.mark.parametrize(
    "key", ["user-42", 42, 0, "", -1, 1.5, b"x", ("user", 42), Name("user-42"), frozenset("ab")]
)
def test_a_conversation_arrives_at_one_endpoint(key: Any, make_client: Any) -> None:
    """Anything hashable names a conversation; its calls go to one endpoint, by either way to call."""
    client = make_client()
    first = served(client, 4, affinity=key)
    messages = [{"role": "user", "content": "Hi"}]
    second = {client.chat.completions.create(messages=messages, affinity=key).endpoint for _ in range(4)}
    assert len(first | second) == 1


def test_equal_keys_are_one_conversation(make_client: Any) -> None:
    """A subclass of str equal to a str, and 1 and 1.0, are the same user."""
    client = make_client()
    assert served(client, 2, affinity="user-42") == served(client, 2, affinity=Name("user-42"))
    assert served(client, 2, affinity=1) == served(client, 2, affinity=1.0)


def test_it_moves_on_failover_and_stays(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """The call that failed over takes the conversation along, and it does not return to the recovered one."""
    client = make_client()
    home = client.chat("Hi", affinity="user-42").endpoint
    upstreams["abc".index(home)].script(Status(500))
    reply = client.chat("Hi", affinity="user-42")
    assert [attempt.endpoint for attempt in reply.attempts] == [home, reply.endpoint]
    assert served(client, 6, affinity="user-42") == {reply.endpoint}


@pytest.mark.parametrize("weight", [1, 3])
def test_the_balance_of_others_stays_right(
    weight: int, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Calls without affinity share as the weights say, with a conversation's calls between them."""
    heavy, light = endpoints_of(upstreams[:2])
    client = make_client([heavy.replace(weight=weight), light])
    shares: Counter = Counter()
    for _ in range(40):
        shares[client.chat("Hi").endpoint] += 1
        client.chat("Hi", affinity="user-42")
    assert abs(shares["a"] - 40 * weight / (weight + 1)) <= 1  # the conversation's first call was a turn


def test_a_busy_home_is_kept(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """While its bulkhead is full another endpoint serves; afterwards it is home again."""
    endpoints = [endpoint.replace(max_concurrency=1) for endpoint in endpoints_of(upstreams[:2])]
    client = make_client(endpoints)
    home = client.chat("Hi", affinity="user-42").endpoint
    upstream = upstreams["ab".index(home)]
    upstream.delay_s = 0.3
    slow = threading.Thread(target=client.chat, args=("Hi",), kwargs={"affinity": "user-42"})
    slow.start()
    assert upstream.wait_for(lambda: upstream.in_flight == 1)
    assert "busy (1 in flight)" in str(client.status()[home].reason)
    assert client.chat("Hi", affinity="user-42").endpoint != home
    slow.join()
    upstream.delay_s = 0.0
    assert client.chat("Hi", affinity="user-42").endpoint == home


@pytest.mark.parametrize("key", [["user"], {"user": 1}, {1}, bytearray(b"x"), ("user", [])])
def test_an_unhashable_key_is_told_before_anything_is_sent(
    key: Any, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """The error names field and value, by either way to call."""
    client = make_client()
    with pytest.raises(ConfigurationError, match=r"^affinity: .*something hashable") as caught:
        client.chat("Hi", affinity=key)
    assert repr(key) in str(caught.value)
    assert caught.value.field == "affinity"
    with pytest.raises(ConfigurationError, match=r"^affinity: "):
        client.chat.completions.create(messages=[{"role": "user", "content": "Hi"}], affinity=key)
    assert not any(upstream.requests for upstream in upstreams)


def test_a_key_that_cannot_be_looked_at_is_told(make_client: Any) -> None:
    """Whatever its `__hash__` raises, the error is ours, and names the cause."""
    with pytest.raises(ConfigurationError, match=r"^affinity: ") as caught:
        make_client().chat("Hi", affinity=Unsteady(looks=0))
    assert "detached" in str(caught.value.__cause__)


def test_a_key_is_looked_at_once_a_call_and_not_kept(make_client: Any) -> None:
    """One that breaks afterwards harms neither its own call nor anybody else's."""
    client = make_client()
    assert client.chat("Hi", affinity=Unsteady()).text
    assert client.chat("Hi", affinity=7).text  # the same hash: it is not compared
    assert len(served(client, 4, affinity="user-42")) == 1


def test_nobody_sees_the_key(
    make_client: Any, upstreams: List[FakeUpstream], caplog: pytest.LogCaptureFixture
) -> None:
    """It reaches no provider, no metric, no log record and no status."""
    caplog.set_level(logging.DEBUG)
    client = make_client(failure_threshold=1)
    upstreams[0].script(Status(500))
    for _ in range(4):
        client.chat("Hi", affinity="user-4242")
    seen = [request for upstream in upstreams for request in upstream.requests]
    assert seen
    for request in seen:
        assert "affinity" not in request.json()
        assert b"4242" not in request.body
        assert "4242" not in repr(request.headers)
    assert "4242" not in caplog.text + repr(client.metrics()) + repr(client.status()) + repr(client)


def test_threads_of_many_conversations(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Eight threads, a conversation each, while one endpoint fails now and then: none ever flaps."""
    upstreams[0].script(*[Ok(), Status(500)] * 10)
    client = make_client(failure_threshold=1000)
    ways: List[Tuple[str, ...]] = []

    def talk(conversation: int) -> None:
        ledger = [client.chat("Hi", affinity=conversation).attempts for _ in range(20)]
        ways.append(tuple(attempt.endpoint for attempts in ledger for attempt in attempts))

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ways) == 8
    for way in ways:
        moves = [one for one, other in zip(way, way[1:]) if one != other]
        assert set(moves) <= {"a"}  # only the failing one was ever left
