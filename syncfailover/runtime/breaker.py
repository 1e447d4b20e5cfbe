"""The circuit breaker as a thing to use on its own: the machine of `policy/breaker.py` with a lock and a clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Callable, Deque, Optional, Type

from ..errors import CircuitOpen
from ..policy.breaker import BreakerChange, BreakerMachine, BreakerState, Grant
from ..policy.breaker_config import BreakerConfig
from . import process
from .dispatch import Outbox


class CircuitBreaker:
    """Stops calling what fails, and tries again after a while; the rules are in `policy/breaker.py`.

        breaker = CircuitBreaker()
        with breaker.acquire():        # raises CircuitOpen while it is open
            call_something()           # an exception counts as a failure, KeyboardInterrupt as nothing

    Args:
        failure_threshold: consecutive failures that open it.
        recovery_timeout: seconds from opening to the first trial, plus 0 to 10 % jitter.
        recovery_backoff: factor by which each failed trial lengthens that time.
        max_recovery_timeout: seconds; the longest it grows to.
        half_open_permits: trials at a time.
        half_open_lease: seconds after which a trial that was never settled is given to somebody else.
        clock: seconds, monotonic.
        on_change: called with a `BreakerChange` after each change of state, in order, outside the lock; what it
            raises is logged.
        options: `failure_rate` (0 to 1) with `failure_rate_window` (seconds) and `minimum_calls` also opens it on
            a rate of failures.

    Raises:
        ConfigurationError: a number that cannot work.

    """

    def __init__(
        self,
        failure_threshold: int = 3,
        recovery_timeout: float = 30.0,
        *,
        recovery_backoff: float = 1.0,
        max_recovery_timeout: float = 300.0,
        half_open_permits: int = 1,
        half_open_lease: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        on_change: Optional[Callable[[BreakerChange], Any]] = None,
        **options: Any,
    ) -> None:
        config = BreakerConfig(
            failure_threshold,
            recovery_timeout,
            recovery_backoff=recovery_backoff,
            max_recovery_timeout=max_recovery_timeout,
            half_open_permits=half_open_permits,
            half_open_lease=half_open_lease,
            **options,
        )
        self._machine = BreakerMachine(config, process.chance)  # guarded by _lock
        self._lock = threading.Lock()
        self._clock = clock
        self._on_change = on_change
        changes: Deque[BreakerChange] = deque()  # appended under _lock
        self._outbox = Outbox(self._tell, changes)
        process.register(self)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.state.value} failures={self._machine.failures}>"

    @property
    def state(self) -> BreakerState:
        """What it is doing; OPEN until somebody takes the trial that is due."""
        return self._machine.state.name

    def acquire(self) -> Permit:
        """Return the permit for one try.

        Raises:
            CircuitOpen: it may not pass; `.retry_after` is in seconds, None where no time is set.

        """
        process.entered()
        now = self._clock()
        with self._lock:
            grant = self._machine.acquire(now)
            next_try_at = None if grant is not None else self._machine.next_try_at(now)
            self._keep_changes()
        try:
            self._outbox.drain()
        except BaseException:  # the listener was interrupted, and nobody gets the permit
            if grant is not None:
                Permit(self, grant).release()
            raise
        if grant is None:
            wait = None if next_try_at is None else max(0.0, next_try_at - now)
            due = "no time is set" if wait is None else f"next try in {wait:.1f} s"
            raise CircuitOpen(f"circuit breaker is {self.state.value}; {due}", retry_after=wait)
        return Permit(self, grant)

    def force_open(self) -> None:
        """Admit nothing until `reset`."""
        self._order(BreakerMachine.force_open)

    def disable(self) -> None:
        """Admit everything and count nothing until `reset`."""
        self._order(BreakerMachine.disable)

    def reset(self) -> None:
        """Close it and forget all failures."""
        self._order(BreakerMachine.reset)

    def after_fork(self) -> None:
        """Replace the lock in a forked child; permits that the parent gave mean nothing here."""
        self._lock = threading.Lock()
        self._machine.disown()
        self._outbox.after_fork()

    def _order(self, order: Callable[[BreakerMachine], None]) -> None:
        process.entered()
        with self._lock:
            order(self._machine)
            self._keep_changes()
        self._outbox.drain()

    def _settle(self, permit: Permit, verdict: str) -> None:
        process.entered()
        now = self._clock()
        with self._lock:
            if permit.settled:
                return
            permit.settled = True
            if verdict == "success":
                self._machine.success(permit.grant, now)
            elif verdict == "failure":
                self._machine.failure(permit.grant, now)
            else:
                self._machine.release(permit.grant)
            self._keep_changes()
        self._outbox.drain()

    def _keep_changes(self) -> None:
        """Hold the lock when calling this."""
        self._outbox.queue.extend(self._machine.changes)
        self._machine.changes.clear()

    def _tell(self, change: BreakerChange) -> None:
        if self._on_change is not None:
            self._on_change(change)


class Permit:
    """One try: exactly one of `success`, `failure` and `release` counts, the first; release is neutral."""

    __slots__ = ("_breaker", "grant", "settled")

    def __init__(self, breaker: CircuitBreaker, grant: Grant) -> None:
        self._breaker = breaker
        self.grant = grant
        self.settled = False

    def success(self) -> None:
        """Count a success."""
        self._breaker._settle(self, "success")

    def failure(self) -> None:
        """Count a failure."""
        self._breaker._settle(self, "failure")

    def release(self) -> None:
        """Give it back: neither a success nor a failure."""
        self._breaker._settle(self, "release")

    def __enter__(self) -> Permit:
        """Begin the try."""
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Count what happened; an interrupt of the caller says nothing about the callee."""
        if kind is None:
            self.success()
        elif issubclass(kind, Exception):
            self.failure()
        else:
            self.release()
