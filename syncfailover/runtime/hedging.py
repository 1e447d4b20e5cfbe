"""Hedging: where the first endpoint is late, a second one is asked, and the first good answer wins.

The first attempt runs on the caller's own thread, as any other; only when its time is over does a timer start a
second one on a thread of its own. Whoever has a good answer first calls the other off, which closes its connection.

The rules:

1. An attempt is late after `hedge_after` milliseconds, or ("p95") when 19 of 20 recent ones were quicker: at its own
   endpoint or at all, whichever is less.
2. Hedging has a budget of its own: one hedge for twenty calls, so that it never adds more than 5 % of load.
3. A request whose fate must not be doubted (`ambiguous="raise"`), or whose body can be sent only once, is not hedged.
4. One that was called off says nothing about its endpoint, unless it took longer than that endpoint's own p95: then it
   counts as a failure, or a silent endpoint would be asked again and again for as long as others answer for it.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import Any, Callable, List, Optional, Tuple, Union

from cachetools import LRUCache

from ..events import AttemptRecord
from ..policy.node import Attempt
from ..policy.outcome import CALLED_OFF, NOWHERE, OUTPACED, STALLED, SUCCEEDED, Outcome
from ..policy.received import Received
from ..policy.recent import RecentQuantile
from ..policy.retry import FailoverRetry, RetryBudget
from ..validation import number, reject
from . import process
from .attempt import Tried
from .timer import Timer

logger = logging.getLogger(__name__)

#: Seconds; a hedge sooner than that costs more than it saves.
_SOONEST_S = 0.002
#: Windows kept: one per endpoint and model, one per model.
_WINDOWS = 1024
#: Share of calls that may be hedged, and how many at once after a quiet time.
_RATIO, _BURST = 0.05, 50.0
_P95 = 0.95

HedgeAfter = Union[str, float, None]


class Hedging:
    """When a client asks a second endpoint, and what it has learned about lateness.

    Args:
        after: "p95", or milliseconds.

    Raises:
        ConfigurationError: anything else.

    """

    def __init__(self, after: Union[str, float]) -> None:
        if isinstance(after, str):
            if after != "p95":
                raise reject("hedge_after", after, "'p95', or milliseconds greater than 0")
            self._fixed_s: Optional[float] = None
        else:
            self._fixed_s = number("hedge_after", after, above=True, maximum=1e8) / 1000.0
        self.after = after
        self._timer = Timer()
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._windows: Any = LRUCache(_WINDOWS)
        self._budget = RetryBudget(ratio=_RATIO, per_second=0.0, capacity=_BURST, tokens=0.0)
        process.register(self)

    @classmethod
    def from_value(cls, after: HedgeAfter, retry: FailoverRetry) -> Optional[Hedging]:
        """Make one of `hedge_after=`; None switches it off.

        Raises:
            ConfigurationError: it is neither, or the retry policy forbids to send a request twice.

        """
        if after is None:
            return None
        if retry.ambiguous == "raise":
            raise reject(
                "hedge_after", after, "None with ambiguous='raise', for a hedge sends a request twice"
            )
        return cls(after)

    def race(self, attempt: Attempt, second: Callable[[Race], Optional[Tried]]) -> Optional[Race]:
        """Enter an attempt that is about to begin; None where nothing can be said about its being late.

        Args:
            attempt: the first.
            second: makes the second attempt of the race, on another thread.

        """
        with self._lock:
            self._budget.deposit()
            late_s = self._fixed_s if self._fixed_s is not None else self._late_s(attempt)
            usual_s = self._window(attempt.endpoint.name, attempt.model).value
        if late_s is None:
            return None
        race = Race(self, attempt, second, usual_s)
        attempt.race = race
        return race if self._timer.add(monotonic() + max(late_s, _SOONEST_S), race) else None

    def observe(self, tried: Tried) -> None:
        """Learn from how long an attempt took, or had taken when it was called off."""
        attempt, seconds = tried.attempt, tried.record.latency_ms / 1000.0
        if tried.outcome is not SUCCEEDED and tried.record.outcome not in CALLED_OFF:
            return
        with self._lock:
            self._window(attempt.endpoint.name, attempt.model).add(seconds)
            self._window(None, attempt.model).add(seconds)

    def may_fire(self) -> bool:
        """Take one hedge from the budget, if there is one."""
        with self._lock:
            return self._budget.withdraw(0.0)

    def close(self) -> None:
        """End the timer's thread."""
        self._timer.close()

    def after_fork(self) -> None:
        """Replace the lock in a forked child."""
        self._lock = threading.Lock()

    def _late_s(self, attempt: Attempt) -> Optional[float]:
        """Hold the lock when calling this."""
        known = [
            window.value
            for window in (
                self._window(None, attempt.model),
                self._window(attempt.endpoint.name, attempt.model),
            )
            if window.value is not None
        ]
        return min(known) if known else None

    def _window(self, endpoint: Optional[str], model: Optional[str]) -> RecentQuantile:
        """Hold the lock when calling this."""
        window: Optional[RecentQuantile] = self._windows.get((endpoint, model))
        if window is None:
            window = self._windows[endpoint, model] = RecentQuantile(_P95)
        return window


class Race:
    """Up to two attempts of one call; the first decisive answer wins."""

    __slots__ = (
        "_ended",
        "_hedging",
        "_lock",
        "_second",
        "_tried",
        "_usual_s",
        "first",
        "off",
        "rival",
        "winner",
    )

    def __init__(
        self,
        hedging: Hedging,
        first: Attempt,
        second: Callable[[Race], Optional[Tried]],
        usual_s: Optional[float],
    ) -> None:
        self._hedging = hedging
        self._usual_s = usual_s
        self._lock = hedging._lock
        self.first = first
        # All guarded by _lock.
        self._second: Optional[Callable[[Race], Optional[Tried]]] = second
        self._tried: Optional[Tried] = None
        self._ended: Optional[threading.Event] = None
        #: Whether the timer has nothing to do any more.
        self.off = False
        #: The second attempt, while or after it was made.
        self.rival: Optional[Attempt] = None
        self.winner: Optional[Attempt] = None

    def fire(self) -> None:
        """Start the second attempt; the timer calls it when the first is late."""
        if not self._hedging.may_fire():
            return
        with self._lock:
            if self.off:
                return
            self.off, self._ended = True, threading.Event()
        try:
            threading.Thread(target=self._run_second, name="syncfailover-hedge", daemon=True).start()
        except RuntimeError:  # thread limit: the first goes on alone
            self._ended.set()

    def _run_second(self) -> None:
        second, ended = self._second, self._ended
        try:
            if second is not None:
                self._tried = second(self)
        except Exception:  # what raises here raises in the first attempt too, where somebody hears of it
            logger.debug("a hedge ended in an error", exc_info=True)
        finally:
            if ended is not None:
                ended.set()

    def enter(self, rival: Attempt) -> bool:
        """Let the second attempt begin, unless the first has won meanwhile."""
        with self._lock:
            if self.winner is not None:
                return False
            self.rival, rival.race = rival, self
            return True

    def judge(self, attempt: Attempt, outcome: Outcome, latency_ms: float) -> Tuple[Outcome, Outcome]:
        """Return what came of an attempt for its endpoint, and for the call: it may have come too late.

        The first answer that is good, or that no other endpoint could better, wins and calls the other off.
        """
        decisive = outcome is SUCCEEDED or (outcome.rule.goes == NOWHERE and not attempt.aborted)
        with self._lock:
            if self.winner is None and decisive:
                self.winner = attempt
            winner, loser = self.winner, self.rival if attempt is self.first else self.first
        if winner is attempt:
            if loser is not None:
                loser.abort()
            return outcome, outcome
        if winner is None or not (attempt.aborted or outcome is SUCCEEDED):
            return outcome, outcome
        called_off = self._called_off(attempt, winner, latency_ms)
        return (outcome if outcome is SUCCEEDED else called_off), called_off

    def results(self, first: Tried, now: float) -> List[Tried]:
        """Return the attempts that were made, the one that counts last; waits for the second if the first failed.

        Args:
            first: the first attempt, which has ended.
            now: on the clock that attempts are begun by.

        """
        with self._lock:
            self.off = True
            ended, rival = self._ended, self.rival
            if ended is None:
                self._second = None
        self._hedging.observe(first)
        if ended is None:
            return [first]
        if self.winner is first.attempt:
            return [first] if rival is None else [self._called_off_rival(rival, now), first]
        ended.wait(first.attempt.call_left_s)
        if self._tried is None:
            return [first]
        self._hedging.observe(self._tried)
        return [first, self._tried]

    def abandon(self) -> None:
        """Call everything off: the caller was interrupted."""
        with self._lock:
            self.off, self.winner, rival = True, self.first, self.rival
        if rival is not None:
            rival.abort()

    def _called_off_rival(self, rival: Attempt, now: float) -> Tried:
        """Describe the second attempt without waiting for its end."""
        latency_ms = (now - rival.started) * 1000.0
        outcome = self._called_off(rival, self.first, latency_ms)
        name, detail = rival.endpoint.name, outcome.detail
        record = AttemptRecord(
            name, outcome.rule.name, detail, None, 0.0, latency_ms, None, maybe_billed=True
        )
        return Tried(rival, Received(), outcome, record, None)

    def _called_off(self, attempt: Attempt, winner: Attempt, latency_ms: float) -> Outcome:
        stalled = attempt is self.first and self._usual_s is not None and latency_ms >= self._usual_s * 1000.0
        detail = f"called off after {latency_ms:.0f} ms, {winner.endpoint.name} had answered"
        return Outcome(STALLED if stalled else OUTPACED, detail)
