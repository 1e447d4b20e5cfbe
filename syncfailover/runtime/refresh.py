"""Probes where no thread can run: a call that finds an endpoint not heard of for too long asks it, on its own thread.

The rules:

- One endpoint per call, and one call at a time: the others go on without waiting.
- A process's first call never waits for a probe. Who was never heard of counts from then on; where probes are not wanted
  (`probe_when="never"`), only what a probe once told is kept fresh.
- A probe is part of the call's time, and at most a quarter of it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Optional

from .crew import Probe, made
from .registry import Registry

if TYPE_CHECKING:
    from .peers import Peers

#: Of the time that a call may take: what a probe may.
_SHARE = 0.25


class Refresh:
    """Keeps fresh what is known of a registry's endpoints, within calls.

    Args:
        registry: whom to tell.
        probe: makes one probe.
        interval_s: seconds between two talks with peers.
        timeout_s: seconds for one probe.
        of_all: whether those count, too, that were never probed.

    """

    def __init__(
        self, registry: Registry, probe: Probe, interval_s: float, timeout_s: float, *, of_all: bool
    ) -> None:
        self._registry = registry
        self._probe = probe
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._of_all = of_all
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._lock = threading.Lock()  # whoever probes holds it, nobody waits for it
        # Both written under _lock.
        self._first_call_at: Optional[float] = None
        self._look_at = float("-inf")

    def __call__(self, total_s: float, peers: Optional[Peers]) -> None:
        """Probe the endpoint that was not heard of for the longest, if that is too long, unless another call does.

        Args:
            total_s: seconds that the call may take.
            peers: whom to talk to before, where no thread does; None for nobody.

        """
        now = self._registry.clock()
        hurried = peers is not None and peers.hurried
        if (now < self._look_at and not hurried) or not self._lock.acquire(blocking=False):
            return
        try:
            if peers is not None:
                peers.talk_inline()
            name = self._unheard(now, total_s)
            if peers is not None:
                self._look_at = min(self._look_at, now + self._interval_s)
            if name is not None:
                self._registry.probed(made(self._probe, self._registry[name], self._timeout_s))
        finally:
            self._lock.release()

    def _unheard(self, now: float, total_s: float) -> Optional[str]:
        """Return whom to probe; hold the lock when calling this."""
        is_first = self._first_call_at is None
        if self._first_call_at is None:
            self._first_call_at = now
        since = self._first_call_at if self._of_all else None
        name, self._look_at = self._registry.longest_unheard(now, since)
        return None if is_first or self._timeout_s > _SHARE * total_s else name
