"""The health monitor: one daemon thread that decides what is due, and helpers that wait for the answers.

The thread holds its monitor weakly: a client that is dropped takes the monitor, the thread and the helpers with it.
A probe that is not back in time counts as failed there and then, whatever it is stuck in; its late result has an older
turn and is ignored.

Where no thread can run the monitor is *passive*: what is known is left to age, and the call that finds an endpoint of
which nothing was heard for too long probes it itself, one at a time, while the others go on.

A thread that wakes far too late was frozen with its process or its machine. What was under way by then proves nothing,
and whoever was at the other end of an idle connection has gone: both are dropped, and everybody is probed anew.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
import weakref
from typing import Callable, Dict, List, Optional, Tuple

from ..endpoint import Endpoint
from ..policy.health import ProbeResult
from ..validation import one_of, positive
from . import process
from .crew import Crew, Job, Probe, made
from .probe import HttpProbe
from .registry import Registry
from .transport import Transports

logger = logging.getLogger(__name__)

PROBE_WHEN = ("always", "idle", "never")

#: Each interval is this much longer or shorter by chance, so that probes of many processes drift apart.
_JITTER = 0.05
#: Seconds that a probe may be late before it counts as hung: its own deadline should have ended it.
_GRACE_S = 0.1
#: Seconds that `close` waits for the threads; a probe that takes longer ends by itself, unheard.
_CLOSE_S = 1.0
#: Seconds between looks where nothing is due.
_LOOK_S = 0.5
#: Seconds by which a look is late, at least, that cannot be explained by a busy machine.
_FROZEN_S = 1.0
#: Of the time that a call may take: how long the first one waits to hear what peers know.
_PATIENCE = 0.1
_PASSIVE = "endpoints are probed by the calls that find them not heard of"
#: Seconds until a thread is asked for again where none could be had.
_NO_THREAD_S = 30.0


def _awake_or_not() -> float:
    """Return seconds of a clock that goes on while the machine sleeps, which the monotonic one may not."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.time() if boot is None else time.clock_gettime(boot)


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
            probes when asked to, and what was learned so when it is too old.
        chance: random numbers from 0 to 1.
        sleepless_clock: seconds on a clock that also counts while the machine sleeps.

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
        sleepless_clock: Callable[[], float] = _awake_or_not,
    ) -> None:
        self.interval = registry.probe_interval if interval is None else positive("probe_interval", interval)
        self.timeout = registry.probe_timeout if timeout is None else positive("probe_timeout", timeout)
        self.probe_when = one_of("probe_when", probe_when, PROBE_WHEN)
        self._registry = registry
        self._transports = Transports(registry.endpoints if probe is None else ())
        self._probe: Probe = HttpProbe(self._transports) if probe is None else probe
        self._chance = chance
        self._sleepless_clock = sleepless_clock
        self._closed = False
        self._users: weakref.WeakSet[object] = weakref.WeakSet()  # guarded by _lock
        self._reset()
        process.register(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._crew: Optional[Crew] = None
        self._began_at = 0.0
        self._due: Dict[str, float] = {}
        self._turns: Dict[str, int] = {}
        self._pending: Dict[str, Tuple[int, float]] = {}  # turn and time at which it counts as hung
        self._look_by: Optional[float] = None  # on the sleepless clock
        # Of passive mode: whoever probes holds the lock, nobody waits for it.
        self._refreshing = threading.Lock()
        self._refresh_at = 0.0  # written under _refreshing
        self._thread_at = 0.0  # when a thread may be asked for; a race asks twice
        self._registry.passive = self.probe_when == "never"
        self._introduced = self._registry.peers is None  # set by whoever waited; a race waits twice
        self._talks_inline = False
        self._talk_at = 0.0  # when a thread may be asked for that talks to peers

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
        process.entered()
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
        return crew is not None and crew.running

    def start(self, total_s: float = 30.0) -> None:
        """Start the thread if it should and does not run. Every call begins with this.

        Where no thread can be had, probe whoever was not heard of for too long.

        Args:
            total_s: seconds that the call may take; a small part of them, once, to hear what peers know.

        """
        process.entered()
        if self._crew is not None and self._introduced:
            return
        if self._closed:
            return
        probes = self.probe_when != "never"
        if probes and self._crew is None and self._registry.clock() >= self._thread_at:
            self._start()
        if not self._introduced and self._registry.clock() >= self._talk_at:
            self._introduce(total_s)
        if self._crew is None or self._talks_inline:
            self._refresh()

    def _introduce(self, total_s: float) -> None:
        """Have the registry and its peers talk, and give them a moment for that."""
        peers = self._registry.peers
        try:
            if peers is not None:
                peers.start(total_s * _PATIENCE, self)
        except process.NoThread as error:
            self._talks_inline, self._talk_at = True, self._registry.clock() + _NO_THREAD_S
            process.warn_of_no_threads(str(error), _PASSIVE)
        else:
            self._talks_inline, self._introduced = False, True

    def _start(self) -> None:
        with self._lock:
            if self._crew is not None or self._closed:
                return
            now = self._began_at = self._registry.clock()
            self._due = {e.name: now + self._chance() * self.interval for e in self._registry.endpoints}
            crew = self._crew = Crew()
            self._look_by = None
            try:
                crew.start(weakref.ref(self, lambda _ref, wake=crew.wake: wake.set()))  # type: ignore[misc]
            except process.NoThread as error:
                self._crew, self._thread_at, why = None, now + _NO_THREAD_S, str(error)
            passive = self._registry.passive = self._crew is None
        if passive:
            process.warn_of_no_threads(why, _PASSIVE)

    def probe_soon(self) -> None:
        """Probe every endpoint now instead of at its time; start if need be."""
        self.start()
        with self._lock:
            self._due = dict.fromkeys(self._due, self._registry.clock())
            crew = self._crew
            if crew is not None:
                crew.wake.set()
        if crew is None and not self._closed:
            self.probe_all()

    def hurry(self) -> None:
        """Probe now whoever was not probed for an interval: nobody else does any more."""
        now = self._registry.clock()
        with self._lock:
            for name in self._due:
                probed_at = self._registry.probed_at(name)
                if probed_at is None or now - probed_at >= self.interval:
                    self._due[name] = now
            if self._crew is not None:
                self._crew.wake.set()

    def probe_all(self) -> List[ProbeResult]:
        """Probe every endpoint once, in parallel where threads can be had; return the results in the registry's order."""
        process.entered()
        results: queue.SimpleQueue[ProbeResult] = queue.SimpleQueue()
        endpoints = self._registry.endpoints
        for endpoint in endpoints:
            job = Job(self._probe, endpoint, self.timeout, results.put)
            try:
                process.start_thread(job, f"syncfailover-probe-{endpoint.name}")
            except process.NoThread:
                job()
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
        process.entered()
        crew = self._crew
        self.end_threads()
        if crew is not None:
            crew.join(min(self.timeout, _CLOSE_S))
        if self._registry.peers is not None:
            self._registry.peers.leave(self)
        self._transports.close()

    def end_threads(self) -> None:
        """Have the threads end after what they are doing; probe no more."""
        with self._lock:
            self._closed = True
            crew, self._crew = self._crew, None
        if crew is not None:
            crew.dismiss()

    def after_fork(self) -> None:
        """Forget the parent's threads; the child starts its own on first use."""
        self._reset()

    # Without a thread

    def _refresh(self) -> None:
        """Probe the endpoint that was not heard of for the longest, if that is too long, unless another call does."""
        registry = self._registry
        now, peers = registry.clock(), registry.peers if self._talks_inline else None
        hurried = peers is not None and peers.hurried
        if (now < self._refresh_at and not hurried) or not self._refreshing.acquire(blocking=False):
            return
        try:
            if peers is not None:
                peers.talk_inline()
            name, look_at = registry.longest_unheard(now, known_only=self.probe_when == "never")
            self._refresh_at = min(look_at, now + self.interval) if self._talks_inline else look_at
            if name is not None:
                registry.probed(made(self._probe, registry[name], self.timeout))
        finally:
            self._refreshing.release()

    # The thread

    def employs(self, crew: Crew) -> bool:
        """Tell whether this crew is still the one."""
        return self._crew is crew

    def tick(self) -> float:
        """Start what is due, give up on what hangs; return the seconds until the next look. The thread calls it."""
        late_s = 0.0 if self._look_by is None else self._sleepless_clock() - self._look_by
        if late_s > max(_FROZEN_S, self.interval):
            self._thaw(late_s)
        now = self._registry.clock()
        hung: List[str] = []
        jobs: List[Job] = []
        with self._lock:
            crew = self._crew
            for name, (_turn, late_at) in list(self._pending.items()):
                if now >= late_at:
                    del self._pending[name]
                    self._hasten(name, late_at)
                    hung.append(name)
            for endpoint in self._registry.endpoints:
                name = endpoint.name
                if now < self._due.get(name, now) or name in self._pending:
                    continue
                self._due[name] = now + self.interval * (1.0 + _JITTER * (2.0 * self._chance() - 1.0))
                if self._is_ours(name, now):
                    jobs.append(self._job(endpoint, now))
            next_at = min([*self._due.values(), *(late for _turn, late in self._pending.values())])
        for name in hung:
            self._registry.probed(_hung(name, self.timeout))
        if crew is not None:
            for job in jobs:
                crew.do(job)
        wait_s = max(0.0, min(next_at - self._registry.clock(), _LOOK_S))
        self._look_by = self._sleepless_clock() + wait_s
        return wait_s

    def _thaw(self, late_s: float) -> None:
        """Forget what was under way, and begin anew."""
        with self._lock:
            self._pending.clear()
            self._due = dict.fromkeys(self._due, self._registry.clock())
        drop_idle = getattr(self._probe, "drop_idle", None)
        if drop_idle is not None:
            drop_idle()
        logger.info("woke %.1f s late, as after a sleep of the machine; probing everybody anew", late_s)

    def _is_ours(self, name: str, now: float) -> bool:
        """Tell whether an endpoint is to be probed, and by this process."""
        peers = self._registry.peers
        if peers is not None and not (peers.may_probe(name) or self._is_neglected(name, now)):
            return False
        served = self._registry.last_success(name) if self.probe_when == "idle" else None
        return served is None or now - served >= self.interval

    def _is_neglected(self, name: str, now: float) -> bool:
        """Tell whether a peer who has the right to probe an endpoint has told nothing for so long that it is too old."""
        if self.probe_when == "idle":  # as the peer's does: it leaves out those that serve it
            return False
        probed_at = self._registry.probed_at(name)
        since = self._began_at if probed_at is None else max(probed_at, self._began_at)
        return now - since > 3 * self.interval + self.timeout

    def _job(self, endpoint: Endpoint, now: float) -> Job:
        """Hold the lock when calling this."""
        turn = self._turns[endpoint.name] = self._turns.get(endpoint.name, 0) + 1
        self._pending[endpoint.name] = turn, now + self.timeout + _GRACE_S
        ref = weakref.ref(self)

        def done(result: ProbeResult) -> None:
            monitor = ref()
            if monitor is not None:
                monitor._finished(turn, result)

        return Job(self._probe, endpoint, self.timeout, done)

    def _hasten(self, name: str, late_at: float) -> None:
        """Have the next probe come early after one that failed: three of them are to tell within 3 intervals + timeout.

        Hold the lock when calling this.
        """
        began = late_at - self.timeout - _GRACE_S
        self._due[name] = min(self._due.get(name, late_at), began + self.interval * (1.0 - _JITTER))

    def _finished(self, turn: int, result: ProbeResult) -> None:
        """Take in a result, unless it was given up on.

        A failure that comes when it should have counted as hung already is left to the next look, which knows whether
        all this was frozen.
        """
        with self._lock:
            pending = self._pending.get(result.endpoint)
            if pending is None or pending[0] != turn or self._closed:
                return
            if not result.alive and self._registry.clock() >= pending[1]:
                return
            del self._pending[result.endpoint]
            if not result.alive:
                self._hasten(result.endpoint, pending[1])
        self._registry.probed(result)


def _hung(name: str, timeout_s: float) -> ProbeResult:
    return ProbeResult(name, alive=False, detail=f"probe not back within {timeout_s:.1f} s")
