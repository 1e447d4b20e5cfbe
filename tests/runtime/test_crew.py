"""The crew: as many helpers as there are probes at once, and what happens where there can be no more."""

import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from syncfailover import Endpoint, ProbeResult
from syncfailover.runtime import crew as crew_module
from syncfailover.runtime import process
from syncfailover.runtime.crew import Crew, Job, made

ENDPOINT = Endpoint("a", "http://127.0.0.1:1/v1")


class Work:
    """Probes that wait until they are let go."""

    def __init__(self) -> None:
        self.at_work = threading.Semaphore(0)
        self.done = threading.Semaphore(0)
        self.go = threading.Event()

    def job(self) -> Job:
        """Make one."""
        return Job(self._probe, ENDPOINT, 1.0, lambda _result: self.done.release())

    def _probe(self, endpoint: Endpoint, _timeout_s: float) -> ProbeResult:
        self.at_work.release()
        self.go.wait(5.0)
        return ProbeResult(endpoint.name, alive=True, detail="HTTP 200")


def times(semaphore: threading.Semaphore, count: int) -> bool:
    """Wait until something has happened so often."""
    return all(semaphore.acquire(timeout=5.0) for _ in range(count))


def settled(crew: Crew) -> None:
    """Wait until all helpers have found nothing more to do."""
    deadline = time.monotonic() + 5.0
    while crew._idle._value < len(crew._helpers) and time.monotonic() < deadline:
        threading.Event().wait(0.001)
    assert crew._idle._value == len(crew._helpers)


@pytest.fixture
def crew() -> Iterator[Crew]:
    """A crew whose helpers are gone after the test."""
    made = Crew()
    yield made
    made.dismiss()
    made.join(5.0)
    assert not any(helper.is_alive() for helper in made._helpers)


@pytest.fixture
def limit(monkeypatch: Any) -> Callable[[int], None]:
    """A function that limits how many threads can be had from now on."""

    def to(count: int) -> None:
        left = [None] * count

        def start(*args: Any) -> threading.Thread:
            if not left:
                raise process.NoThread("can't start new thread")
            left.pop()
            return real(*args)

        monkeypatch.setattr(process, "start_thread", start)

    real = process.start_thread
    return to


def test_there_are_as_many_helpers_as_probes_at_once(crew: Crew) -> None:
    """Ten that wait at once have ten helpers; one after the other they have one."""
    for _ in range(3):
        work = Work()
        work.go.set()
        crew.do(work.job())
        assert times(work.done, 1)
        settled(crew)
    assert len(crew._helpers) == 1
    work = Work()
    for _ in range(10):
        crew.do(work.job())
    assert times(work.at_work, 10)
    work.go.set()
    assert times(work.done, 10)
    assert len(crew._helpers) == 10


def test_beyond_the_limit_of_helpers_probes_take_turns(crew: Crew, monkeypatch: Any) -> None:
    """Whoever is free takes the next one, and what waited makes nobody count as free."""
    monkeypatch.setattr(crew_module, "_HELPERS", 2)
    work = Work()
    for _ in range(5):
        crew.do(work.job())
    assert times(work.at_work, 2)
    assert not work.at_work.acquire(blocking=False)
    work.go.set()
    assert times(work.done, 5)
    settled(crew)


def test_where_no_more_threads_can_be_had_those_who_are_there_do_it(
    crew: Crew, limit: Callable[[int], None]
) -> None:
    """And once they can, there are as many as it takes again."""
    limit(1)
    work = Work()
    for _ in range(4):
        crew.do(work.job())
    assert times(work.at_work, 1)
    work.go.set()
    assert times(work.done, 4)
    settled(crew)
    limit(5)
    work = Work()
    for _ in range(4):
        crew.do(work.job())
    assert times(work.at_work, 4)
    work.go.set()
    assert times(work.done, 4)


def test_where_no_thread_can_be_had_at_all_it_is_done_at_once(
    crew: Crew, limit: Callable[[int], None]
) -> None:
    """On the thread that asks; nothing is left over for a helper that comes later."""
    limit(0)
    work = Work()
    work.go.set()
    crew.do(work.job())
    assert work.done.acquire(blocking=False)
    limit(1)
    crew.do(work.job())
    assert times(work.done, 1)
    settled(crew)
    assert not work.done.acquire(blocking=False)


def _raises(_endpoint: Endpoint, _timeout_s: float) -> ProbeResult:
    raise ValueError("sk-secret")


@pytest.mark.parametrize(
    ("probe", "detail"),
    [(_raises, "probe raised ValueError"), (lambda _e, _t: None, "probe raised AttributeError")],
)
def test_a_probe_that_fails_in_its_own_way_has_failed(probe: Any, detail: str) -> None:
    """One that raises, or returns no result; what it said may be a secret and is not repeated."""
    assert made(probe, ENDPOINT, 1.0) == ProbeResult("a", alive=False, detail=detail)


def test_a_result_is_that_of_the_endpoint_that_was_probed() -> None:
    """Whatever name a custom probe has put on it."""
    found: List[ProbeResult] = [
        made(lambda _e, _t: ProbeResult("other", alive=True, detail="fine"), ENDPOINT, 1.0)
    ]
    assert found == [ProbeResult("a", alive=True, detail="fine")]
