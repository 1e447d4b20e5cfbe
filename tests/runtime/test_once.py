"""What a process makes once: by one thread, for all of them, and again when it is spent."""

import os
import threading
from typing import Any, List

import pytest

from syncfailover.runtime.once import Once

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Thing:
    """Something that can be used up."""

    spent = False


def once(make: Any = Thing) -> "Once[Thing]":
    """What is tested, with a thing that says itself whether it is spent."""
    return Once(make, lambda thing: thing.spent)


def test_all_threads_get_what_the_first_one_makes() -> None:
    """While one thread is making, the others wait for it and make nothing."""
    making, others_came, made = threading.Semaphore(0), threading.Event(), []

    def make() -> Thing:
        making.release()
        assert others_came.wait(10.0)
        made.append(Thing())
        return made[-1]

    holder, got = once(make), []
    threads = [threading.Thread(target=lambda: got.append(holder.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert making.acquire(timeout=10.0)
    assert not making.acquire(timeout=0.05), "a second thread makes"
    others_came.set()
    for thread in threads:
        thread.join(10.0)
    assert got == made * 8
    assert len(made) == 1


def test_a_spent_thing_is_made_anew() -> None:
    """What is of no use any more is replaced, once."""
    holder = once()
    first = holder.get()
    assert holder.get() is first
    first.spent = True
    second = holder.get()
    assert second is not first
    assert holder.get() is second


def test_what_raises_is_not_kept() -> None:
    """The next caller tries again, and the lock is free for it."""
    answers: List[Any] = [ValueError("no"), Thing()]

    def make() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    holder = once(make)
    with pytest.raises(ValueError, match="no"):
        holder.get()
    thread = threading.Thread(target=holder.get)
    thread.start()
    thread.join(10.0)
    assert answers == []


def test_a_signal_handler_may_ask_while_its_thread_makes() -> None:
    """Whoever comes in from within does not wait for itself."""
    inner: List[Thing] = []

    def make() -> Thing:
        if not inner:
            inner.append(Thing())
            inner.append(holder.get())
        return Thing()

    holder = once(make)
    assert isinstance(holder.get(), Thing)
    assert len(inner) == 2


def test_a_child_forked_while_a_thread_makes_makes_its_own() -> None:
    """The child waits for no lock of the parent's, and a later call of the parent gets the parent's."""
    making, forked = threading.Event(), threading.Event()
    parent = os.getpid()

    made: List[Thing] = []

    def make() -> Thing:
        if os.getpid() == parent:
            making.set()
            assert forked.wait(10.0)
        made.append(Thing())
        return made[-1]

    holder = once(make)
    maker = threading.Thread(target=holder.get)
    maker.start()
    assert making.wait(10.0)
    pid = os.fork()
    if pid == 0:
        killer = threading.Timer(10.0, os._exit, (3,))
        killer.daemon = True
        killer.start()
        os._exit(0 if isinstance(holder.get(), Thing) else 2)
    _, status = os.waitpid(pid, 0)
    forked.set()
    maker.join(10.0)
    assert status == 0
    assert holder.get() is made[0]
