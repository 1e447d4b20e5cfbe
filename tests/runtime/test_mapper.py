"""The mapper: things in order, by as many threads as there can be."""

import os
import signal
import threading
import time
from typing import Any, Iterator, List

import pytest

from syncfailover.runtime import process
from syncfailover.runtime.mapper import Mapper


def nothing() -> None:
    """Hear of what is done, and do nothing."""


def doubled(number: int) -> int:
    """Do something that may fail."""
    if number == 3:
        raise ValueError("three")
    return 2 * number


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that sets how many threads there can be more."""
    start = process.start_thread
    left = [0]

    def limited(*args: Any) -> threading.Thread:
        if not left[0]:
            raise process.NoThread("can't start new thread")
        left[0] -= 1
        return start(*args)

    def set_limit(count: int) -> None:
        left[0] = count
        monkeypatch.setattr(process, "start_thread", limited)

    return set_limit


@pytest.mark.parametrize("threads", [0, 1, 2, 100])
def test_it_does_with_the_threads_that_it_can_have(limit: Any, threads: int) -> None:
    """Without any, the asking thread does it all: the results are the same."""
    limit(threads)
    told: List[int] = []
    results = Mapper(doubled, 4, lambda: told.append(threading.get_ident())).run(range(20))
    assert [result for number, result in enumerate(results) if number != 3] == [
        2 * number for number in range(20) if number != 3
    ]
    assert str(results[3]) == "three"
    assert told == [threading.get_ident()] * 20


def test_no_more_threads_than_there_is_work(limit: Any) -> None:
    """Three things are done by three threads, however many are allowed; and nothing by none."""
    limit(3)
    barrier = threading.Barrier(3)
    assert Mapper(lambda _thing: barrier.wait(10.0), 1000, nothing).run("") == []
    assert sorted(Mapper(lambda _thing: barrier.wait(10.0), 1000, nothing).run("abc")) == [0, 1, 2]


def test_what_is_done_is_told_while_the_next_thing_is_long_in_coming() -> None:
    """A bar moves on also where reading the things takes longer than doing them."""
    told: List[int] = []
    mapper = Mapper(doubled, 8, lambda: told.append(1))

    def things() -> Iterator[int]:
        for number in (0, 1, 2, 4, 5):
            assert len(told) >= len(mapper._results) - 1
            yield number
            deadline = time.monotonic() + 10.0
            while mapper._done.empty():
                assert time.monotonic() < deadline

    assert mapper.run(things()) == [0, 2, 4, 8, 10]


@pytest.mark.parametrize("fatal", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_error_ends_the_whole(fatal: BaseException) -> None:
    """It is raised by the asking thread, and nothing more is begun."""
    begun: List[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 2:
            raise fatal

    with pytest.raises(type(fatal)):
        Mapper(work, 1, nothing).run(range(1000))
    assert len(begun) < 10


@pytest.fixture
def held() -> Any:
    """Work that goes on when it is let, and what became of it."""

    class Held:
        def __init__(self) -> None:
            self.begun = threading.Semaphore(0)
            self.go_on = threading.Event()
            self.done: List[str] = []

        def work(self, name: str) -> None:
            self.begun.release()
            assert self.go_on.wait(10.0)
            self.done.append(name)

        def things(self, error: BaseException) -> Iterator[str]:
            yield from "abc"
            assert all(self.begun.acquire(timeout=10.0) for _ in "ab")
            if isinstance(error, Exception):
                threading.Timer(0.05, self.go_on.set).start()
            raise error

    return Held()


def test_an_error_of_the_things_waits_for_what_is_under_way(held: Any) -> None:
    """What was begun is done before it is raised; what was only read is not begun."""
    with pytest.raises(LookupError):
        Mapper(held.work, 2, nothing).run(held.things(LookupError("no more")))
    assert sorted(held.done) == ["a", "b"]


def test_an_interrupt_does_not_wait_for_what_is_under_way(held: Any) -> None:
    """More than a moment; what was only read is not begun, then or later."""
    mapper = Mapper(held.work, 2, nothing)
    with pytest.raises(KeyboardInterrupt):
        mapper.run(held.things(KeyboardInterrupt()))
    assert held.done == []
    held.go_on.set()
    for thread in mapper._threads:
        thread.join(10.0)
    assert sorted(held.done) == ["a", "b"]


class TimeLimit(Exception):
    """What a task queue raises in the middle of a task, by a signal."""


def test_what_a_signal_handler_raises_is_an_interrupt(held: Any) -> None:
    """Although it is an `Exception`, it does not wait for what is under way."""

    def handle(*_: Any) -> None:
        raise TimeLimit

    def send() -> None:
        assert all(held.begun.acquire(timeout=10.0) for _ in "ab")
        os.kill(os.getpid(), signal.SIGALRM)

    old = signal.signal(signal.SIGALRM, handle)
    mapper = Mapper(held.work, 2, nothing)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(TimeLimit):
            mapper.run("abc")
    finally:
        sender.join(10.0)
        signal.signal(signal.SIGALRM, old)
    assert held.done == []
    held.go_on.set()
    for thread in mapper._threads:
        thread.join(10.0)
    assert len(held.done) == 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_in_the_middle_does_not_wait_for_its_parents_threads() -> None:
    """It is told that they are not there."""
    parent = os.getpid()
    pids: List[int] = []
    started, forked = threading.Event(), threading.Event()

    def work(_number: int) -> None:
        started.set()
        if os.getpid() == parent:
            assert forked.wait(10.0)

    def things() -> Iterator[int]:
        yield 1
        assert started.wait(10.0)
        pids.append(os.fork())
        forked.set()
        yield 2

    code = 1
    try:
        results = Mapper(work, 1, nothing).run(things())
        code = 2
    except RuntimeError as error:
        code = 0 if "forked" in str(error) else 3
    finally:
        if os.getpid() != parent:
            os._exit(code)
    assert results == [None, None]
    _, status = os.waitpid(pids[0], 0)
    assert status == 0
