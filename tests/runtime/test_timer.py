"""The timer: what is due is done in order, what was called off costs neither memory nor wake-ups."""

import gc
import os
import threading
import weakref
from time import monotonic
from typing import Any, Iterator, List

import pytest

from syncfailover.runtime.timer import Timer, _Clockwork


class Entry:
    """Something to do later that says when it was done."""

    def __init__(self, done: List[Any], name: Any = None) -> None:
        self.off = False
        self.fired = threading.Event()
        self._done, self._name = done, name

    def fire(self) -> None:
        """Note it."""
        self._done.append(self._name)
        self.fired.set()


@pytest.fixture
def timer() -> Iterator[Timer]:
    """Make a timer, the only one, closed after the test."""
    for thread in running():
        thread.join(5.0)
    timer = Timer()
    yield timer
    timer.close()


def running() -> List[threading.Thread]:
    """List the live timers' threads."""
    return [thread for thread in threading.enumerate() if thread.name == "syncfailover-timer"]


def test_what_is_due_is_done_in_order(timer: Timer) -> None:
    """Whatever the order in which it was added, on one thread, and not before its time."""
    done: List[Any] = []
    began = monotonic()
    entries = [Entry(done, number) for number in (3, 1, 2)]
    for entry in entries:
        assert timer.add(began + 0.02 * entry._name, entry)
    assert all(entry.fired.wait(5.0) for entry in entries)
    assert done == [1, 2, 3]
    assert monotonic() >= began + 0.06
    assert len(running()) == 1


def test_what_was_called_off_is_not_done(timer: Timer) -> None:
    """Nor does it hold up what comes after it."""
    done: List[Any] = []
    off, on = Entry(done, "off"), Entry(done, "on")
    off.off = True
    timer.add(monotonic() + 0.01, off)
    timer.add(monotonic() + 0.03, on)
    assert on.fired.wait(5.0)
    assert done == ["on"]


def test_something_sooner_is_not_kept_waiting(timer: Timer) -> None:
    """The thread that sleeps for an hour is woken for what is due now."""
    later, sooner = Entry([]), Entry([])
    timer.add(monotonic() + 3600, later)
    timer.add(monotonic(), sooner)
    assert sooner.fired.wait(5.0)
    assert not later.fired.is_set()


def test_what_raises_does_not_end_the_timer(timer: Timer, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next one has its turn."""

    class Broken(Entry):
        def fire(self) -> None:
            raise OSError("broken")

    timer.add(monotonic(), Broken([]))
    after = Entry([])
    timer.add(monotonic() + 0.01, after)
    assert after.fired.wait(5.0)
    assert "could not be done" in caplog.text


def test_a_hundred_thousand_calls_that_were_in_time(timer: Timer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a minute's delay, their entries neither fill the memory nor wake anybody."""
    waits: List[float] = []
    wait = _Clockwork._wait

    def counted(self: _Clockwork, now: float) -> None:
        waits.append(now)
        wait(self, now)

    monkeypatch.setattr(_Clockwork, "_wait", counted)
    most = 0
    for _ in range(100_000):
        entry = Entry.__new__(Entry)  # an event for each would take the time
        entry.off = False
        timer.add(monotonic() + 60, entry)
        entry.off = True
        most = max(most, len(timer._clockwork._entries))
    assert most <= 64
    assert len(waits) <= 1000


def test_many_threads_add(timer: Timer) -> None:
    """Each of their entries is done once."""
    done: List[Any] = []
    barrier = threading.Barrier(8)
    entries: List[Entry] = []

    def work(number: int) -> None:
        mine = [Entry(done, (number, n)) for n in range(100)]
        entries.extend(mine)
        barrier.wait()
        for n, entry in enumerate(mine):
            timer.add(monotonic() + 0.001 * (n % 7), entry)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(entry.fired.wait(5.0) for entry in entries)
    assert sorted(done) == sorted((number, n) for number in range(8) for n in range(100))


def test_closing_ends_the_thread(timer: Timer) -> None:
    """At once, twice if need be, and for good; what was to be done is dropped."""
    assert running() == []
    entry = Entry([])
    dropped = weakref.ref(entry)
    timer.add(monotonic() + 3600, entry)
    (thread,) = running()
    timer.close()
    timer.close()
    thread.join(5.0)
    assert not thread.is_alive()
    assert not timer.add(monotonic(), entry)
    del entry
    assert dropped() is None


def test_a_dropped_timer_ends_its_thread() -> None:
    """Nobody needs to close it."""
    timer = Timer()
    timer.add(monotonic() + 3600, Entry([]))
    (thread,) = running()
    del timer
    gc.collect()
    thread.join(5.0)
    assert not thread.is_alive()


def test_it_may_be_dropped_by_whoever_holds_its_lock() -> None:
    """The garbage collector runs where it likes, in the timer's own thread too."""
    timer = Timer()
    clockwork = timer._clockwork
    with clockwork._changed:
        del timer
        gc.collect()
    assert clockwork._closed


def test_without_threads_nothing_is_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and tries again the next time."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    timer = Timer()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not timer.add(monotonic(), Entry([]))
    entry = Entry([])
    assert timer.add(monotonic(), entry)
    assert entry.fired.wait(5.0)
    timer.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("closed", [False, True])
def test_a_forked_child_has_a_timer_of_its_own(timer: Timer, closed: bool) -> None:
    """It does nothing of what the parent was to do, and one that was closed stays so."""
    parents = Entry([])
    timer.add(monotonic() + 0.05, parents)
    if closed:
        timer.close()
    with timer._clockwork._changed:
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            mine = Entry([])
            added = timer.add(monotonic() + 0.1, mine)
            fine = not added if closed else added and mine.fired.wait(5.0) and not parents.fired.is_set()
            code = 0 if fine else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert closed or parents.fired.wait(5.0)
