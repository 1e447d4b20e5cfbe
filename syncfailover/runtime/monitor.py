"""The health monitor: one daemon thread that decides what is due, and helpers that wait for the answers.

The thread holds its monitor weakly: a client that is dropped takes the monitor, the thread and the helpers with it.
What is due, and what hangs, is told by `policy/rounds.py`.

Where no thread can run the monitor is *passive*: calls probe, see `refresh.py`.

A thread that wakes far too late was frozen with its process or its machine. What was under way by then proves nothing,
and whoever was at the other end of an idle connection has gone: both are dropped, and everybody is probed anew.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from typing import Callable, Dict, Iterable, List, Optional

from ..policy.health import ProbeResult
from ..policy.rounds import GRACE_S, Rounds
from ..policy.snapshot import ACTIVE, PASSIVE
from ..validation import one_of, positive
from . import process
from .crew import Crew, Job, Probe
from .probe import HttpProbe
from .refresh import Refresh
from .registry import Registry
from .transport import Transports

logger = logging.getLogger(__name__)

PROBE_WHEN = ("always", "idle", "never")

#: Seconds that `close` waits for the threads; a probe that takes longer ends by itself, unheard.
_CLOSE_S = 1.0
#: Seconds between looks where nothing is due.
_LOOK_S = 0.5
#: Seconds by which a look is late that cannot be explained by a busy machine.
_FROZEN_S = 2.0
#: Of the time that a call may take: how long the first one waits to hear what peers know.
_PATIENCE = 0.1
_PASSIVE = "endpoints are probed by the calls that find them not heard of"
#: Seconds until a thread is asked for again where none could be had.
_NO_THREAD_S = 30.0
_FOREVER = float("inf")


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
        chance: Callable[[], float] = process.chance,
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
        self._refresh = Refresh(
            registry, self._probe, self.interval, self.timeout, of_all=self.probe_when != "never"
        )
        self._closed = False
        # Both guarded by _lock.
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        self._ways: weakref.WeakSet[Transports] = weakref.WeakSet([self._transports])
        if self.probe_when == "never" and registry.monitor is None:
            registry.set_mode(PASSIVE)
        self._reset()
        process.register(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._crew: Optional[Crew] = None
        self._began_at = 0.0
        names = [endpoint.name for endpoint in self._registry.endpoints]
        self._rounds = Rounds(names, self.interval, self.timeout, self._chance)
        self._look_by: Optional[float] = None  # on the sleepless clock; None while looking
        self._thread_at = float("-inf")  # when a thread may be asked for; a race asks twice
        if self.probe_when != "never":
            self._registry.set_mode(ACTIVE)
        self._introduced = self._registry.peers is None  # set by whoever waited; a race waits twice
        self._talks_inline = False
        self._talk_at = 0.0  # when a thread may be asked for that talks to peers

    @classmethod
    def shared(
        cls, registry: Registry, transports: Transports, probe_when: str, user: object
    ) -> HealthMonitor:
        """Return the registry's monitor: whoever shares a registry shares its probes, until all have left."""
        known = None if registry.monitor is None else registry.monitor()
        if isinstance(known, cls) and known.probe_when == probe_when and known._take_part(user, transports):
            return known
        monitor = cls(registry, HttpProbe(transports), probe_when=probe_when)
        monitor._take_part(user, transports)
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

    def _take_part(self, user: object, transports: Transports) -> bool:
        process.entered()
        with self._lock:
            if not self._closed:
                self._users.add(user)
                self._ways.add(transports)
            return not self._closed

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self.running else "not started"
        return f"<HealthMonitor {state} every {self.interval:g} s>"

    @property
    def running(self) -> bool:
        """Whether its thread is there."""
        crew = self._crew
        return crew is not None and crew.running

    def start(self, total_s: float = 30.0) -> float:
        """Start the thread if it should and does not run. Every call begins with this.

        Where no thread can be had, probe whoever was not heard of for too long.

        Args:
            total_s: seconds that the call may take; a small part of them, once, to hear what peers know.

        Returns:
            The seconds that this took of them.

        """
        process.entered()
        if (self._crew is not None and self._introduced) or self._closed:
            return 0.0
        clock = self._registry.clock
        began = clock()
        if self.probe_when != "never" and self._crew is None and began >= self._thread_at:
            self._start()
        if not self._introduced and began >= self._talk_at:
            self._introduce(total_s)
        if self._crew is None or self._talks_inline:
            self._refresh(total_s, self._registry.peers if self._talks_inline else None)
        return clock() - began

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
            self._rounds.begin(now)
            crew = self._crew = Crew()
            self._look_by = None
            try:
                crew.start(weakref.ref(self, lambda _ref, wake=crew.wake: wake.set()))  # type: ignore[misc]
            except process.NoThread as error:
                self._crew, self._thread_at, why = None, now + _NO_THREAD_S, str(error)
            is_passive = self._crew is None
        self._registry.set_mode(PASSIVE if is_passive else ACTIVE)
        if is_passive:
            process.warn_of_no_threads(why, _PASSIVE)

    def probe_soon(self, within_s: float = _FOREVER) -> None:
        """Probe every endpoint now instead of at its time; start if need be.

        Args:
            within_s: seconds that this may take where no thread probes, and so this does.

        """
        self.start(0.0)
        with self._lock:
            self._rounds.hurry(self._registry.clock(), [e.name for e in self._registry.endpoints])
            crew = self._crew
            if crew is not None:
                crew.wake.set()
        if crew is None and not self._closed:
            self.probe_all(within_s)

    def hurry(self) -> None:
        """Probe now whoever was not probed for an interval: nobody else does any more."""
        now = self._registry.clock()
        with self._lock:
            if self._crew is not None:
                known = [(e.name, self._registry.probed_at(e.name)) for e in self._registry.endpoints]
                self._rounds.hurry(now, [n for n, at in known if at is None or now - at >= self.interval])
                self._crew.wake.set()

    def probe_all(self, within_s: float = _FOREVER) -> List[ProbeResult]:
        """Probe every endpoint once, in parallel where threads can be had; return the results in the registry's order.

        Args:
            within_s: seconds after which nothing more is begun or waited for; what is not back by then is no result.

        """
        process.entered()
        results: queue.SimpleQueue[ProbeResult] = queue.SimpleQueue()
        endpoints, clock = self._registry.endpoints, self._registry.clock
        until = clock() + within_s
        for endpoint in endpoints:
            job = Job(self._probe, endpoint, self.timeout, results.put)
            try:
                process.start_thread(job, f"syncfailover-probe-{endpoint.name}")
            except process.NoThread:
                if clock() < until:
                    job()
        found: Dict[str, ProbeResult] = {}
        late_at = clock() + self.timeout + GRACE_S
        while len(found) < len(endpoints):
            try:
                result = results.get(timeout=max(0.001, min(late_at, until) - clock()))
            except queue.Empty:
                break
            found[result.endpoint] = result
        if late_at <= until:
            found.update({e.name: _hung(e.name, self.timeout) for e in endpoints if e.name not in found})
        everyone = [found[e.name] for e in endpoints if e.name in found]
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
        self._refresh.after_fork()

    # The thread

    def employs(self, crew: Crew) -> bool:
        """Tell whether this crew is still the one."""
        return self._crew is crew

    def tick(self) -> float:
        """Start what is due, give up on what hangs; return the seconds until the next look. The thread calls it."""
        late_s, self._look_by = self._late_s(), None
        if late_s > _FROZEN_S:
            self._thaw(late_s)
        now = self._registry.clock()
        with self._lock:
            crew = self._crew
            hung = self._rounds.give_up(now)
            jobs = [self._job(name, now) for name in self._rounds.due(now) if self._is_ours(name, now)]
            next_at = self._rounds.next_at(now)
        self._tell_hung(hung)
        if crew is not None:
            for job in jobs:
                crew.do(job)
        wait_s = max(0.0, min(next_at - self._registry.clock(), _LOOK_S))
        self._look_by = self._sleepless_clock() + wait_s
        return wait_s

    def _late_s(self) -> float:
        """Return for how many seconds the thread should have been looking already."""
        look_by = self._look_by
        return 0.0 if look_by is None else self._sleepless_clock() - look_by

    def _thaw(self, late_s: float) -> None:
        """Learn nothing from what was under way, and begin anew."""
        with self._lock:
            hung = self._rounds.thaw(self._registry.clock())
            ways = list(self._ways)
        self._registry.decide(lambda pool: pool.disown())  # what becomes of calls proves nothing, either
        for way in ways:
            way.drop_idle()
        logger.info("woke %.1f s late, as after a sleep of the machine; probing everybody anew", late_s)
        self._tell_hung(hung)

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

    def _job(self, name: str, now: float) -> Job:
        """Hold the lock when calling this."""
        turn = self._rounds.take_turn(name, now)
        ref = weakref.ref(self)

        def sent() -> None:
            monitor = ref()
            if monitor is not None:
                monitor._sent(name, turn)

        def done(result: ProbeResult) -> None:
            monitor = ref()
            if monitor is not None:
                monitor._finished(name, turn, result)

        return Job(self._probe, self._registry[name], self.timeout, done, sent)

    def _sent(self, name: str, turn: int) -> None:
        with self._lock:
            self._rounds.sent(name, turn, self._registry.clock())

    def _finished(self, name: str, turn: int, result: ProbeResult) -> None:
        """Take in a result, unless it was given up on, or all this was frozen, which the next look finds out."""
        if self._late_s() > _FROZEN_S:
            return
        with self._lock:
            now = self._registry.clock()
            counts = not self._closed and self._rounds.take_in(name, turn, now, alive=result.alive)
            if (
                self._crew is not None and self._rounds.next_at(now) <= now
            ):  # it was waited for, or others are to be
                self._crew.wake.set()
        if counts:
            self._registry.probed(result)

    def _tell_hung(self, names: Iterable[str]) -> None:
        """Let it be known whose probes are not back."""
        for name in names:
            self._registry.probed(_hung(name, self.timeout))


def _hung(name: str, timeout_s: float) -> ProbeResult:
    return ProbeResult(name, alive=False, detail=f"probe not back within {timeout_s:.1f} s")
