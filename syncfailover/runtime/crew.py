"""The monitor's threads: one that looks what is due, and helpers that wait for the answers.

None of them holds the monitor, so that one that is dropped goes away.
"""

from __future__ import annotations

import logging
import queue
import threading
from time import monotonic
from typing import Any, Callable, List, Optional, Protocol

from ..endpoint import Endpoint
from ..policy.health import ProbeResult
from . import process

logger = logging.getLogger(__name__)

Probe = Callable[[Endpoint, float], ProbeResult]

#: Helpers at most; beyond, endpoints take turns.
_HELPERS = 64


class Watchful(Protocol):
    """What the crew needs of a monitor."""

    def tick(self) -> float:
        """Do what is due; return the seconds until the next look."""

    def employs(self, crew: Crew) -> bool:
        """Tell whether this crew is still the one."""


class Job:
    """One probe to make; it knows the monitor only by what `sent` and `done` hold."""

    __slots__ = ("_done", "_endpoint", "_probe", "_sent", "_timeout_s")

    def __init__(
        self,
        probe: Probe,
        endpoint: Endpoint,
        timeout_s: float,
        done: Callable[[ProbeResult], Any],
        sent: Callable[[], Any] = lambda: None,
    ) -> None:
        self._probe = probe
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._done = done
        self._sent = sent

    def __call__(self) -> None:
        """Make it, and tell what it found."""
        self._sent()
        self._done(made(self._probe, self._endpoint, self._timeout_s))


def made(probe: Probe, endpoint: Endpoint, timeout_s: float) -> ProbeResult:
    """Make a probe; one that raises has failed."""
    try:
        return probe(endpoint, timeout_s)._replace(endpoint=endpoint.name)
    except Exception as error:  # noqa: BLE001 - a custom probe; its message may hold anything, so only its type is told
        return ProbeResult(endpoint.name, alive=False, detail=f"probe raised {type(error).__name__}")


class Crew:
    """The monitor's thread and its helpers."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self._watch: Optional[threading.Thread] = None
        self._jobs: queue.SimpleQueue[Optional[Job]] = queue.SimpleQueue()
        self._helpers: List[threading.Thread] = []  # only the monitor's thread appends
        self._idle = threading.Semaphore(0)  # helpers that found nothing to do

    def start(self, monitor: Callable[[], Optional[Watchful]]) -> None:
        """Start the monitor's thread.

        Args:
            monitor: returns the monitor, None once it is gone.

        Raises:
            NoThread: none can be had.

        """
        self._watch = process.start_thread(_watch, "syncfailover-monitor", monitor, self)

    @property
    def running(self) -> bool:
        """Whether the monitor's thread is there."""
        return self._watch is not None and self._watch.is_alive()

    def do(self, job: Job) -> None:
        """Have a helper make the probe; a new one if all are at work."""
        self._jobs.put(job)
        if self._idle.acquire(blocking=False) or len(self._helpers) >= _HELPERS:
            return
        try:
            name = f"syncfailover-probe-{len(self._helpers) + 1}"
            self._helpers.append(process.start_thread(_help, name, self._jobs, self._idle))
        except process.NoThread:  # those who are there take it when they can
            logger.debug("no more threads for probes; %d at work", len(self._helpers))
            if not self._helpers:
                self._jobs.get_nowait()
                job()

    def dismiss(self) -> None:
        """Have all threads end after what they are doing."""
        self.wake.set()
        for _ in self._helpers:
            self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the threads, at most that long in all; a thread does not wait for itself."""
        deadline = monotonic() + timeout_s
        for thread in (self._watch, *self._helpers):
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))


def _watch(ref: Callable[[], Optional[Watchful]], crew: Crew) -> None:
    """Run the monitor's thread until the monitor is closed or gone."""
    while True:
        monitor = ref()
        if monitor is None or not monitor.employs(crew):
            crew.dismiss()
            return
        wait_s = monitor.tick()
        del monitor  # or it could not be collected while this waits
        crew.wake.wait(wait_s)
        crew.wake.clear()


def _help(jobs: queue.SimpleQueue[Optional[Job]], idle: threading.Semaphore) -> None:
    """Run a helper until it is dismissed."""
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            idle.release()
            job = jobs.get()
        if job is None:
            return
        job()
        del job
