"""Hedging: where the first endpoint is late, a second one is asked, and the first good answer wins.

The first attempt runs on the caller's own thread, as any other; only when its time is over does a timer start a
second one on a thread of its own. Whoever has a good answer first calls the other off, which closes its connection.

The rules:

1. An attempt is late after `hedge_after` milliseconds, or ("p95") when 19 of 20 recent ones were quicker: at its own
   endpoint or at all, whichever is less.
2. Hedging has a budget of its own: one hedge for twenty attempts, so that it never adds more than 5 % of load.
3. A request whose fate must not be doubted (`ambiguous="raise"`), or whose body can be sent only once, is not hedged.
4. The first answer that is good, or that no other endpoint could better, wins, and the other attempt is called off. If
   one fails, the call waits for the other.
5. An attempt that was called off says nothing about its endpoint. Only the first, without an answer after its endpoint's
   own p95, counts as a failure: a silent endpoint would be asked again and again for as long as others answer for it.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import Callable, List, Optional, Tuple, Union

from ..events import AttemptRecord
from ..policy.node import Attempt
from ..policy.outcome import ANSWERS, OUTPACED, STALLED, SUCCEEDED, Outcome
from ..policy.received import NEVER_SENT, Received
from ..policy.recent import Pace, Paces
from ..policy.retry import FailoverRetry, RetryBudget
from ..validation import number, reject
from . import process
from .attempt import Tried
from .timer import Timer

logger = logging.getLogger(__name__)

#: Seconds; a hedge sooner than that costs more than it saves.
_SOONEST_S = 0.005
#: Share of attempts that may be hedged, and how many at once after a quiet time.
_RATIO, _BURST = 0.05, 50.0
#: Seconds that an answered caller waits for the other attempt to say how it ended; it has been cut off by then.
_GRACE_S = 0.05

HedgeAfter = Union[str, float, None]
#: Makes the second attempt of a race, on another thread; None where nobody else can be asked.
Second = Callable[["Race"], Optional[Tried]]


class Hedging:
    """When a client asks a second endpoint, and what it has learned about lateness.

    Args:
        after: "p95", or milliseconds.

    Raises:
        ConfigurationError: anything else.

    """

    def __init__(self, after: Union[str, float]) -> None:
        #: As it was asked for.
        self.after = after
        if after == "p95":
            self._fixed_s: Optional[float] = None
        elif isinstance(after, bool) or not isinstance(after, (int, float)):
            raise reject("hedge_after", after, "'p95', or milliseconds greater than 0")
        else:
            self._fixed_s = number("hedge_after", after, above=True, maximum=1e8) / 1000.0
        self._timer = Timer()
        self._lore = _Lore()

    @classmethod
    def from_value(
        cls, after: HedgeAfter, retry: FailoverRetry, like: Optional[Hedging] = None
    ) -> Optional[Hedging]:
        """Make one of `hedge_after=`, that goes on with what `like` has learned; None switches it off.

        Raises:
            ConfigurationError: it is neither, or the retry policy forbids to send a request twice.

        """
        if after is None:
            return None
        hedging = cls(after)
        if retry.ambiguous == "raise":
            raise reject(
                "hedge_after", after, "None with ambiguous='raise', for a hedge sends a request twice"
            )
        if like is not None:
            hedging._timer, hedging._lore = like._timer, like._lore
        return hedging

    def race(self, attempt: Attempt, second: Second, final: Callable[[Outcome], bool]) -> Optional[Race]:
        """Enter an attempt that is about to begin; None where nothing can be said about its being late.

        Args:
            attempt: the first.
            second: makes the second attempt of the race, on another thread.
            final: tells whether no other endpoint could better an outcome.

        """
        lore = self._lore
        with lore.lock:
            lore.budget.deposit()
            pace = lore.pace(attempt)
            late_s = pace.late_s if self._fixed_s is None else self._fixed_s
        if late_s is None:
            return None
        race = Race(lore, attempt, second, final, pace)
        if not self._timer.add(monotonic() + max(late_s, _SOONEST_S), race):
            return None
        attempt.race = race
        return race

    def observe(self, tried: Tried) -> None:
        """Learn from how long an attempt took that was in no race."""
        if tried.outcome in ANSWERS:
            with self._lore.lock:
                self._lore.pace(tried.attempt).add(tried.record.latency_ms / 1000.0)

    def close(self) -> None:
        """End the timer's thread."""
        self._timer.close()


class _Lore:
    """What has been learned, and what may be spent. It does not know the timer, whose thread knows it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # All guarded by lock.
        self.paces = Paces()
        self.budget = RetryBudget(ratio=_RATIO, per_second=0.0, capacity=_BURST, tokens=0.0)
        process.register(self)

    def pace(self, attempt: Attempt) -> Pace:
        """Hold the lock when calling this."""
        return self.paces.of(attempt.endpoint.name, attempt.model, streams=attempt.streams)

    def after_fork(self) -> None:
        """Replace the lock in a forked child, and what was half changed."""
        if self.lock.locked():
            self.paces = Paces()
        self.lock = threading.Lock()


class Race:
    """Up to two attempts of one call; the first decisive answer wins."""

    __slots__ = (
        "_ended",
        "_error",
        "_final",
        "_lore",
        "_pace",
        "_second",
        "_tried",
        "first",
        "off",
        "rival",
        "winner",
    )

    def __init__(
        self,
        lore: _Lore,
        first: Attempt,
        second: Second,
        final: Callable[[Outcome], bool],
        pace: Pace,
    ) -> None:
        self._lore = lore
        self._final = final
        self._pace = pace
        self.first = first
        # All guarded by the lore's lock.
        self._second: Optional[Second] = second
        self._tried: Optional[Tried] = None
        self._error: Optional[Exception] = None
        self._ended: Optional[threading.Event] = None
        #: Whether the timer has nothing to do any more.
        self.off = False
        #: The second attempt, while or after it was made.
        self.rival: Optional[Attempt] = None
        self.winner: Optional[Attempt] = None

    def fire(self) -> None:
        """Start the second attempt; the timer calls it when the first is late."""
        with self._lore.lock:
            if self.off or not self._lore.budget.withdraw(0.0):
                return
            self.off, self._ended = True, threading.Event()
        try:
            process.start_thread(self._run_second, "syncfailover-hedge")
        except process.NoThread:  # the first goes on alone
            self._ended.set()

    def _run_second(self) -> None:
        second, ended = self._second, self._ended
        try:
            if second is not None:
                self._tried = second(self)
        except Exception as error:  # told only if this attempt had won; else the first goes on alone
            logger.debug("a hedge ended in an error", exc_info=True)
            with self._lore.lock:
                self._error, self.rival = error, None
        finally:
            if self.rival is not None:  # no cycle is to keep the reply, and with it the pool of connections
                self.rival.race = None
            if ended is not None:
                ended.set()

    def enter(self, rival: Attempt) -> bool:
        """Let the second attempt begin, unless the first has won meanwhile."""
        with self._lore.lock:
            if self.winner is not None:
                return False
            self.rival, rival.race, rival.hedge = rival, self, True
            return True

    def judge(self, attempt: Attempt, outcome: Outcome, latency_ms: float) -> Tuple[Outcome, Outcome]:
        """Return what came of an attempt for its endpoint, and for the call: it may have come too late.

        The first answer that is good, or that no other endpoint could better, wins and calls the other off.
        """
        decisive = outcome is SUCCEEDED or (not attempt.aborted and self._final(outcome))
        with self._lore.lock:
            if self.winner is None and decisive:
                self.winner, self.off = attempt, True
            winner, loser = self.winner, self.rival if attempt is self.first else self.first
            if outcome in ANSWERS or (attempt is self.first and winner not in (None, attempt)):
                pace = self._pace if attempt is self.first else self._lore.pace(attempt)
                pace.add(latency_ms / 1000.0)
        if winner is attempt:
            if loser is not None:
                loser.abort()
            return outcome, outcome
        if winner is None:
            return outcome, outcome
        called_off = self._called_off(attempt, latency_ms, _answered(winner), outcome)
        return (called_off if attempt.aborted else outcome), called_off

    def results(self, first: Tried, now: float) -> List[Tried]:
        """Return the attempts that were made, the one that counts last; waits for the second if the first failed.

        Args:
            first: the first attempt, which has ended.
            now: on the clock that attempts are begun by.

        """
        if self.winner is not first.attempt:  # otherwise nothing changes any more
            with self._lore.lock:
                self.off = True
        first.attempt.race = None  # no cycle here either
        if self._ended is None:
            self._second = None
            return [first]
        if self.winner is first.attempt:
            self._ended.wait(_GRACE_S)
        else:
            self._ended.wait(max(first.attempt.started + first.attempt.call_left_s - now, 0.0))
        return self._in_order(first, now)

    def abandon(self) -> Optional[Tried]:
        """Call everything off: the caller was interrupted. Returns the second attempt where it had answered."""
        with self._lore.lock:
            self.off, self.winner, rival = True, self.first, self.rival
        if rival is not None:
            rival.abort()
        return self._tried

    def _in_order(self, first: Tried, now: float) -> List[Tried]:
        with self._lore.lock:
            second, rival, error = self._tried, self.rival, self._error
            first_won, second_won = self.winner is first.attempt, self.winner not in (None, first.attempt)
            if self.winner is None:
                self.winner = first.attempt  # whatever the other brings comes too late
        if second is not None:
            return [second, first] if first_won else [first, second]
        if error is not None and second_won:
            raise error
        if rival is None:
            return [first]
        rival.abort()
        return [self._unfinished(rival, now, _answered(first.attempt) if first_won else "out of time"), first]

    def _unfinished(self, rival: Attempt, now: float, why: str) -> Tried:
        """Describe the second attempt without waiting for its end."""
        latency_ms = (now - rival.started) * 1000.0
        outcome = self._called_off(rival, latency_ms, why)
        name, detail = rival.endpoint.name, outcome.detail
        record = AttemptRecord(
            name, outcome.rule.name, detail, None, 0.0, latency_ms, None, maybe_billed=True
        )
        return Tried(rival, Received(), outcome, record, None)

    def _called_off(
        self, attempt: Attempt, latency_ms: float, why: str, outcome: Optional[Outcome] = None
    ) -> Outcome:
        """Name what came of an attempt that was not waited for, whose `outcome` may show how far it got."""
        usual_s = self._pace.own.value if attempt is self.first and outcome not in ANSWERS else None
        stalled = usual_s is not None and latency_ms >= usual_s * 1000.0
        rule = STALLED if stalled else OUTPACED
        if outcome is not None and outcome.rule.name == NEVER_SENT:
            rule = rule._replace(maybe_billed=False)
        return Outcome(rule, f"called off after {latency_ms:.0f} ms, {why}")


def _answered(winner: Attempt) -> str:
    return f"{winner.endpoint.name} had answered"
