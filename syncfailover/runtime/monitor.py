"""The health monitor: one daemon thread that decides what is due, and helpers that wait for the answers.

The thread holds its monitor weakly: a client that is dropped takes the monitor, the thread and the helpers with it.
A probe that is not back in time counts as failed there and then, whatever it is stuck in; its late result has an older
turn and is ignored.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import weakref
from time import monotonic
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..endpoint import Endpoint
from ..policy.health import ProbeResult
from ..validation import one_of, positive
from . import process
from .probe import HttpProbe
from .registry import Registry
from .transport import Transports

logger = logging.getLogger(__name__)

Probe = Callable[[Endpoint, float], ProbeResult]

PROBE_WHEN = ("always", "idle", "never")

#: Each interval is this much longer or shorter by chance, so that probes of many processes drift apart.
_JITTER = 0.05
#: Seconds that a probe may be late before it counts as hung: its own deadline should have ended it.
_GRACE_S = 0.1
#: Helpers at most; beyond, endpoints take turns.
_HELPERS = 64
#: Seconds that `close` waits for the threads; a probe that takes longer ends by itself, unheard.
_CLOSE_S = 1.0
#: Seconds between looks where nothing is due.
_LOOK_S = 0.5


class HealthMonitor:
    """Probes every endpoint of a registry, in parallel, and lets the registry know.

        monitor = HealthMonitor(registry)
        monitor.start()

    Args:
        registry: whom to tell.
        probe: makes one probe, `probe(endpoint, timeout_s) -> ProbeResult`; None asks the endpoint's health path.
        interval: seconds between probes of one endpoint, jittered by 5 %, the first at a random time in it; None
            takes the registry's.
        timeout: seconds for one probe in all; None takes the registry's.
        probe_when: "always"; "idle" leaves out an endpoint that served a call within the interval; "never" only
            probes when asked to.
        chance: random numbers from 0 to 1.

    """

    def __init__(
        self,
        registry: Registry,
        probe: Optional[Probe] = None,
        *,
        interval: Optional[float] = None,
        timeout: Optional[float] = None,
        probe_when: str = "always",
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.interval = registry.probe_interval if interval is None else positive("probe_interval", interval)
        self.timeout = registry.probe_timeout if timeout is None else positive("probe_timeout", timeout)
        self.probe_when = one_of("probe_when", probe_when, PROBE_WHEN)
        self._registry = registry
        self._transports = Transports(registry.endpoints if probe is None else ())
        self._probe: Probe = HttpProbe(self._transports) if probe is None else probe
        self._chance = chance
        self._closed = False
        self._users: weakref.WeakSet[object] = weakref.WeakSet()  # guarded by _lock
        self._reset()
        process.register(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._crew: Optional[_Crew] = None
        self._due: Dict[str, float] = {}
        self._turns: Dict[str, int] = {}
        self._pending: Dict[str, Tuple[int, float]] = {}  # turn and time at which it counts as hung
        self._failed_to_start = False

    @classmethod
    def shared(
        cls, registry: Registry, transports: Transports, probe_when: str, user: object
    ) -> HealthMonitor:
        """Return the registry's monitor: whoever shares a registry shares its probes, until all have left."""
        known = None if registry.monitor is None else registry.monitor()
        if isinstance(known, cls) and known.probe_when == probe_when and known._take_part(user):
            return known
        monitor = cls(registry, HttpProbe(transports), probe_when=probe_when)
        monitor._take_part(user)
        registry.monitor = weakref.ref(monitor)
        return monitor

    def leave(self, user: object) -> None:
        """End the threads if nobody else uses them; one that was dropped does not count."""
        with self._lock:
            self._users.discard(user)
            if self._users:
                return
        self.close()

    def _take_part(self, user: object) -> bool:
        with self._lock:
            if not self._closed:
                self._users.add(user)
            return not self._closed

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self.running else "not started"
        return f"<HealthMonitor {state} every {self.interval:g} s>"

    @property
    def running(self) -> bool:
        """Whether its thread is there."""
        crew = self._crew
        return crew is not None and crew.monitor.is_alive()

    def start(self) -> None:
        """Start the thread if it should and does not run; where no thread can be had, go on without."""
        if self._crew is not None or self._closed or self.probe_when == "never" or self._failed_to_start:
            return
        with self._lock:
            if self._crew is not None or self._closed:
                return
            now = self._registry.clock()
            self._due = {e.name: now + self._chance() * self.interval for e in self._registry.endpoints}
            self._crew = _Crew(self)
            try:
                self._crew.monitor.start()
            except RuntimeError as error:  # thread limit, interpreter shutdown
                self._crew, self._failed_to_start, reason = None, True, str(error)
        if self._failed_to_start:
            logger.warning("no thread for health checks (%s); only live calls will tell what is down", reason)

    def probe_soon(self) -> None:
        """Probe every endpoint now instead of at its time; start if need be."""
        self.start()
        with self._lock:
            self._due = dict.fromkeys(self._due, self._registry.clock())
            if self._crew is not None:
                self._crew.wake.set()

    def probe_all(self) -> List[ProbeResult]:
        """Probe every endpoint once, in parallel, and return the results in the registry's order."""
        results: queue.SimpleQueue[ProbeResult] = queue.SimpleQueue()
        endpoints = self._registry.endpoints
        for endpoint in endpoints:
            job = _Job(self._probe, endpoint, self.timeout, results.put)
            threading.Thread(target=job, name=f"syncfailover-probe-{endpoint.name}", daemon=True).start()
        found: Dict[str, ProbeResult] = {}
        deadline = self._registry.clock() + self.timeout + _GRACE_S
        while len(found) < len(endpoints):
            try:
                result = results.get(timeout=max(0.001, deadline - self._registry.clock()))
            except queue.Empty:
                break
            found[result.endpoint] = result
        everyone = [found.get(e.name) or _hung(e.name, self.timeout) for e in endpoints]
        for result in everyone:
            self._registry.probed(result)
        return everyone

    def close(self) -> None:
        """End the threads, within a second; calling it again does nothing."""
        with self._lock:
            self._closed = True
            crew, self._crew = self._crew, None
        if crew is not None:
            crew.dismiss()
            crew.join(min(self.timeout, _CLOSE_S))
        self._transports.close()

    def after_fork(self) -> None:
        """Forget the parent's threads; the child starts its own on first use."""
        self._reset()

    def tick(self) -> float:
        """Start what is due, give up on what hangs; return the seconds until the next look. The thread calls it."""
        now = self._registry.clock()
        hung: List[str] = []
        jobs: List[_Job] = []
        with self._lock:
            crew = self._crew
            for name, (_turn, late_at) in list(self._pending.items()):
                if now >= late_at:
                    del self._pending[name]
                    hung.append(name)
            for endpoint in self._registry.endpoints:
                name = endpoint.name
                if now < self._due.get(name, now) or name in self._pending:
                    continue
                self._due[name] = now + self.interval * (1.0 + _JITTER * (2.0 * self._chance() - 1.0))
                if not self._is_busy(name, now):
                    jobs.append(self._job(endpoint, now))
            next_at = min([*self._due.values(), *(late for _turn, late in self._pending.values())])
        for name in hung:
            self._registry.probed(_hung(name, self.timeout))
        if crew is not None:
            for job in jobs:
                crew.do(job)
        return max(0.0, min(next_at - self._registry.clock(), _LOOK_S))

    def _is_busy(self, name: str, now: float) -> bool:
        if self.probe_when != "idle":
            return False
        served = self._registry.last_success(name)
        return served is not None and now - served < self.interval

    def _job(self, endpoint: Endpoint, now: float) -> _Job:
        """Hold the lock when calling this."""
        turn = self._turns[endpoint.name] = self._turns.get(endpoint.name, 0) + 1
        self._pending[endpoint.name] = turn, now + self.timeout + _GRACE_S
        ref = weakref.ref(self)

        def done(result: ProbeResult) -> None:
            monitor = ref()
            if monitor is not None:
                monitor._finished(turn, result)

        return _Job(self._probe, endpoint, self.timeout, done)

    def _finished(self, turn: int, result: ProbeResult) -> None:
        """Take in a result, unless it was given up on."""
        with self._lock:
            pending = self._pending.get(result.endpoint)
            if pending is None or pending[0] != turn or self._closed:
                return
            del self._pending[result.endpoint]
        self._registry.probed(result)


class _Job:
    """One probe to make; it knows the monitor only by what `done` holds."""

    __slots__ = ("_done", "_endpoint", "_probe", "_timeout_s")

    def __init__(
        self, probe: Probe, endpoint: Endpoint, timeout_s: float, done: Callable[[ProbeResult], Any]
    ) -> None:
        self._probe = probe
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._done = done

    def __call__(self) -> None:
        try:
            result = self._probe(self._endpoint, self._timeout_s)
        except Exception as error:  # noqa: BLE001 - a custom probe; its message may hold anything, so only its type is told
            detail = f"probe raised {type(error).__name__}"
            result = ProbeResult(self._endpoint.name, alive=False, detail=detail)
        self._done(result)


class _Crew:
    """The monitor's thread and its helpers; none of them holds the monitor."""

    def __init__(self, monitor: HealthMonitor) -> None:
        self.wake = threading.Event()
        self._jobs: queue.SimpleQueue[Optional[_Job]] = queue.SimpleQueue()
        self._helpers: List[threading.Thread] = []  # only the monitor's thread appends
        self._idle = threading.Semaphore(0)  # helpers that wait for a job
        ref = weakref.ref(monitor, lambda _ref, wake=self.wake: wake.set())  # type: ignore[misc]
        self.monitor = threading.Thread(
            target=_watch, args=(ref, self), name="syncfailover-monitor", daemon=True
        )

    def do(self, job: _Job) -> None:
        """Have a helper make the probe; a new one if all are at work."""
        if not self._idle.acquire(blocking=False) and len(self._helpers) < _HELPERS:
            try:
                name = f"syncfailover-probe-{len(self._helpers) + 1}"
                helper = threading.Thread(target=_help, args=(self._jobs, self._idle), name=name, daemon=True)
                helper.start()
                self._helpers.append(helper)
            except RuntimeError:  # thread limit: those who are there take it when they can
                logger.debug("no more threads for probes; %d at work", len(self._helpers))
        self._jobs.put(job)

    def dismiss(self) -> None:
        """Have all threads end after what they are doing."""
        self.wake.set()
        for _ in self._helpers:
            self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the threads, at most that long in all; a thread does not wait for itself."""
        deadline = monotonic() + timeout_s
        for thread in (self.monitor, *self._helpers):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))


def _watch(ref: weakref.ref[HealthMonitor], crew: _Crew) -> None:
    """Run the monitor's thread until the monitor is closed or gone."""
    while True:
        monitor = ref()
        if monitor is None or monitor._crew is not crew:
            crew.dismiss()
            return
        wait_s = monitor.tick()
        del monitor  # or it could not be collected while this waits
        crew.wake.wait(wait_s)
        crew.wake.clear()


def _help(jobs: queue.SimpleQueue[Optional[_Job]], idle: threading.Semaphore) -> None:
    """Run a helper until it is dismissed."""
    while True:
        job = jobs.get()
        if job is None:
            return
        job()
        del job
        idle.release()


def _hung(name: str, timeout_s: float) -> ProbeResult:
    return ProbeResult(name, alive=False, detail=f"probe not back within {timeout_s:.1f} s")
