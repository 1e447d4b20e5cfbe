"""The circuit breaker as a machine: everything about its states is here, and nothing about locks or clocks.

The rules:

- CLOSED admits all. The third (`failure_threshold`) *consecutive* failure opens it; so does, if asked for, a failure
  rate over a sliding window. A success resets the count; a neutral result touches nothing.
- OPEN admits none until `recovery_timeout` seconds (plus 0 to 10 % jitter, times `recovery_backoff` for every trial
  that failed since it was last closed, at most `max_recovery_timeout`) have passed; the next acquire then makes it
  HALF_OPEN. Word that the endpoint answers probes again may make it HALF_OPEN early, never CLOSED.
  A call that finds nobody else may try it early, too: that is its trial, or counts for nothing where its trials are
  all out.
- HALF_OPEN admits `half_open_permits` trials at a time. One success closes, one failure reopens. A trial that is
  never settled is given to somebody else after `half_open_lease` seconds.
- FORCED_OPEN admits none and DISABLED admits all, whatever happens, until reset.
- A peer's word may open it while it is CLOSED, or lengthen what a peer's word opened, and close that again: it is
  *hearsay*. What it found out itself a peer's word makes HALF_OPEN early, unless a trial has failed here since.
- Each change of state begins a new generation. A permit carries the generation that issued it; a result from an older
  one changes nothing, nor does a second result of the same permit.
"""

from enum import Enum
from typing import Callable, Dict, List, NamedTuple, Optional

from .breaker_config import BreakerConfig
from .rate_window import RateWindow


class BreakerState(str, Enum):
    """What a breaker is doing."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


class BreakerChange(NamedTuple):
    """One change of state, as listeners receive it."""

    old: BreakerState
    new: BreakerState
    reason: str
    #: Seconds until a trial may pass; None where no time is set.
    retry_after_s: Optional[float] = None


class Grant(NamedTuple):
    """The right to try once, tied to the generation that gave it."""

    generation: int
    #: 0 where nobody counts (closed, disabled, fail-open); the trial's number in HALF_OPEN.
    trial: int = 0


class BreakerMachine:
    """One breaker. Its owner brings the time and the lock, and drains `changes` after releasing it."""

    __slots__ = (
        "_chance",
        "_window",
        "changes",
        "config",
        "failed_trials",
        "failing_since",
        "failures",
        "found_at",
        "generation",
        "last_failure",
        "state",
    )

    def __init__(self, config: BreakerConfig, chance: Callable[[], float]) -> None:
        self.config = config
        self._chance = chance
        #: Trials that failed since it was closed.
        self.failed_trials = 0
        #: When the failures in a row began that opened it, or may.
        self.failing_since: Optional[float] = None
        #: When it found out itself what it is; None where a peer's word or an operator's order made it so.
        self.found_at: Optional[float] = None
        self._window = None if config.failure_rate is None else RateWindow(config.failure_rate_window)
        self.changes: List[BreakerChange] = []
        self.failures = 0
        self.generation = 0
        self.last_failure = ""
        self.state: State = CLOSED

    def admits(self, now: float) -> bool:
        """Tell whether `acquire` would grant, without changing anything."""
        return self.state.admits(self, now)

    def acquire(self, now: float) -> Optional[Grant]:
        """Grant a try, or None; OPEN becomes HALF_OPEN when its time has come."""
        return self.state.acquire(self, now)

    def acquire_early(self, now: float) -> Grant:
        """Grant a try although OPEN: it counts as the half-open trial, or as nothing if one is under way."""
        if isinstance(self.state, Open):
            self._become(HalfOpen(), "tried early, nothing else is left")
        grant = self.state.acquire(self, now)
        return Grant(-1) if grant is None else grant

    def success(self, grant: Grant, now: float) -> None:
        """Count a success; of an older generation it means nothing."""
        if grant.generation == self.generation:
            self.state.success(self, grant, now)

    def failure(self, grant: Grant, now: float, reason: str = "") -> None:
        """Count a failure; of an older generation it means nothing."""
        if grant.generation == self.generation:
            self.last_failure = reason
            self.state.failure(self, grant, now)

    def release(self, grant: Grant) -> None:
        """Give the permit back without a verdict."""
        if grant.generation == self.generation:
            self.state.release(grant)

    def probes_recovered(self) -> None:
        """Hear that probes which had failed succeed again: a trial may pass now."""
        if isinstance(self.state, Open):
            self._become(HalfOpen(), "probes succeed again")

    # What peers tell

    @property
    def hearsay(self) -> bool:
        """Whether it is OPEN on a peer's word alone."""
        return self.found_at is None and isinstance(self.state, Open)

    def hear_open(self, until: float, since: float, trials: int, reason: str, now: float) -> None:
        """Hear that a peer's is open until then, for failures that began at `since`."""
        state = self.state
        idle = isinstance(state, HalfOpen) and state.next_try_at() is None
        if state is CLOSED or idle or (self.hearsay and isinstance(state, Open) and until > state.until):
            self._become(Open(until), f"a peer found: {reason}", max(until - now, 0.0))
            self.failing_since, self.failed_trials, self.last_failure = since, trials, reason

    def hear_closed(self) -> bool:
        """Hear that a peer's trial succeeded; tell whether this one is closed for that reason."""
        if not isinstance(self.state, Open):
            return False
        if self.hearsay:
            self._become(CLOSED, "a peer's trial succeeded")
            return True
        if not self.failed_trials:
            self._become(HalfOpen(), "a peer's trial succeeded")
        return False

    def hear_strikes(self, failures: int, since: float) -> None:
        """Hear of failures that were too few to open a peer's; one more is needed here, at least."""
        if self.state is CLOSED:
            self.failures = min(failures, self.config.failure_threshold - 1)
            self.failing_since = since

    def contradict(self, started: float, now: float) -> None:
        """Hear of an answer to a call that began at `started`: it ends what was believed on a peer's word from before."""
        if self.hearsay and self.failing_since is not None and started > self.failing_since:
            self._become(CLOSED, "it answers here")
            self.found_at = now

    def disown(self) -> None:
        """Take all permits so far for somebody else's: their results mean nothing, and their trials are free."""
        self.generation += 1
        if isinstance(self.state, HalfOpen):
            self.state = HalfOpen()

    def force_open(self) -> None:
        """Admit nothing until reset."""
        self._become(FORCED_OPEN, "forced open")

    def disable(self) -> None:
        """Admit everything and count nothing until reset."""
        self._become(DISABLED, "disabled")

    def reset(self) -> None:
        """Start anew, closed; a closed one forgets its failures."""
        self._become(CLOSED, "reset")
        self.failures = 0
        if self._window is not None:
            self._window.clear()

    def next_try_at(self, now: float) -> Optional[float]:
        """Return when a trial may pass (now, if it already may); None where no time is set."""
        return now if self.admits(now) else self.state.next_try_at()

    def _become(self, state: "State", reason: str, retry_after_s: Optional[float] = None) -> None:
        if state is self.state:
            return
        self.changes.append(BreakerChange(self.state.name, state.name, reason, retry_after_s))
        self.state = state
        self.generation += 1
        self.failures = 0
        self.found_at = None
        if state is CLOSED:
            self.failed_trials = 0
            self.failing_since = None
            self.last_failure = ""
        if self._window is not None:
            self._window.clear()

    def _open(self, now: float, reason: str) -> None:
        timeout = self.config.open_for(self.failed_trials, self._chance())
        self._become(Open(now + timeout), reason, timeout)
        self.found_at = now

    # What the states below tell the machine; each is one sentence of the rules above.

    def count_success(self, now: float) -> None:
        self.failures = 0
        if self._window is not None:
            self._window.add(now, failed=False)

    def count_failure(self, now: float) -> None:
        if not self.failures:
            self.failing_since = now
        self.failures += 1
        if self.failures >= self.config.failure_threshold:
            self._open(now, f"{self.failures} consecutive failures")
        elif self._window is not None:
            self._window.add(now, failed=True)
            rate = self._window.rate(now, self.config.minimum_calls)
            if rate is not None and rate >= (self.config.failure_rate or 1.0):
                self._open(now, f"{rate:.0%} of calls failed")

    def trial_due(self) -> None:
        self._become(HalfOpen(), "recovery timeout over")

    def trial_succeeded(self, now: float) -> None:
        self._become(CLOSED, "trial succeeded")
        self.found_at = now

    def trial_failed(self, now: float) -> None:
        self.failed_trials += 1
        self.failing_since = now
        self._open(now, "trial failed")


class State:
    """A state of the machine; those without data of their own are shared."""

    name: BreakerState

    def admits(self, machine: BreakerMachine, now: float) -> bool:
        """Tell whether a try may pass."""
        raise NotImplementedError

    def acquire(self, machine: BreakerMachine, now: float) -> Optional[Grant]:
        """Grant a try if one may pass."""
        return Grant(machine.generation) if self.admits(machine, now) else None

    def next_try_at(self) -> Optional[float]:
        """Return when it may admit, where that is known."""
        return None

    def success(self, machine: BreakerMachine, grant: Grant, now: float) -> None:
        """Take a success of this generation."""

    def failure(self, machine: BreakerMachine, grant: Grant, now: float) -> None:
        """Take a failure of this generation."""

    def release(self, grant: Grant) -> None:
        """Take back a permit without a verdict."""


class Closed(State):
    """All pass, failures are counted."""

    name = BreakerState.CLOSED

    def admits(self, machine: BreakerMachine, now: float) -> bool:
        return True

    def success(self, machine: BreakerMachine, grant: Grant, now: float) -> None:
        machine.count_success(now)

    def failure(self, machine: BreakerMachine, grant: Grant, now: float) -> None:
        machine.count_failure(now)


class Open(State):
    """None pass before `until`."""

    name = BreakerState.OPEN

    def __init__(self, until: float) -> None:
        self.until = until

    def admits(self, machine: BreakerMachine, now: float) -> bool:
        return now >= self.until

    def acquire(self, machine: BreakerMachine, now: float) -> Optional[Grant]:
        if now < self.until:
            return None
        machine.trial_due()
        return machine.state.acquire(machine, now)

    def next_try_at(self) -> Optional[float]:
        return self.until


class HalfOpen(State):
    """A few pass at a time, on a lease."""

    name = BreakerState.HALF_OPEN

    def __init__(self) -> None:
        self._leases: Dict[int, float] = {}
        self._issued = 0

    def admits(self, machine: BreakerMachine, now: float) -> bool:
        if len(self._leases) < machine.config.half_open_permits:
            return True
        return any(until <= now for until in self._leases.values())

    def acquire(self, machine: BreakerMachine, now: float) -> Optional[Grant]:
        if not self.admits(machine, now):
            return None
        self._leases = {trial: until for trial, until in self._leases.items() if until > now}
        self._issued += 1
        self._leases[self._issued] = now + machine.config.half_open_lease
        return Grant(machine.generation, self._issued)

    def next_try_at(self) -> Optional[float]:
        return min(self._leases.values(), default=None)

    def success(self, machine: BreakerMachine, grant: Grant, now: float) -> None:
        if self._leases.pop(grant.trial, None) is not None:
            machine.trial_succeeded(now)

    def failure(self, machine: BreakerMachine, grant: Grant, now: float) -> None:
        if self._leases.pop(grant.trial, None) is not None:
            machine.trial_failed(now)

    def release(self, grant: Grant) -> None:
        self._leases.pop(grant.trial, None)


class ForcedOpen(State):
    """None pass."""

    name = BreakerState.FORCED_OPEN

    def admits(self, machine: BreakerMachine, now: float) -> bool:
        return False


class Disabled(State):
    """All pass, nothing counts."""

    name = BreakerState.DISABLED

    def admits(self, machine: BreakerMachine, now: float) -> bool:
        return True


CLOSED, FORCED_OPEN, DISABLED = Closed(), ForcedOpen(), Disabled()
