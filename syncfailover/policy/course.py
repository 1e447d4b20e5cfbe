"""The course of one call: after each result, who is asked next, what is waited for, or why it ends.

The rules, in the order in which they are asked:

1. An outcome that no other endpoint could cure goes to the caller. A request that may have been processed (reset,
   timeout) is sent to one other endpoint at most, or to none if the caller says so.
2. A peer of the same priority is asked at once.
3. Before a priority is left for a lower one, a transient fault earns one more try on the same endpoint: the emergency
   exit is dearer than half a second.
4. The next lower priority is asked at once.
5. With nobody new left, those who may be asked again are, after a backoff or the time they asked for.
6. What another call has just found out is not found out again (`outage.py`): while attempt after attempt fails, nobody
   who did is asked for want of another. Where all did, and somebody has just asked in vain, a pause follows a pause. A
   call that may wait in line asks all the same, for a line forms when breakers have opened.
7. With nobody up, a call that may wait does so in line, for all its waits together at most its queue time. Within
   that time it does not end for want of retries either.

Each step by rules 2 to 5 spends the retry policy, and the budget that all calls share unless the attempt before it was
never sent; waiting by rule 7 spends neither. No step begins beyond the deadline.
"""

from typing import AbstractSet, Any, Callable, Optional, Protocol

from .line import Ticket
from .node import Attempt
from .outcome import ANYWHERE, LARGER_WINDOW, NOWHERE, ONE_OTHER, REJECTED, Outcome, Rule
from .received import LATE, NEVER_SENT, SILENT
from .retry import FailoverRetry
from .steps import (
    ANSWERED,
    EXHAUSTED,
    OUT_OF_TIME,
    TURNED_AWAY,
    UNAVAILABLE,
    WAITED_IN_VAIN,
    Pause,
    Step,
    Stop,
    Wait,
)

#: Seconds; an attempt that begins at the last moment is given so long.
_LEAST_S = 0.001
_NONE: AbstractSet[str] = frozenset()
#: What comes of an attempt that had no end of its own: so few are made in a second that they are no storm.
_TOOK_ITS_TIME = frozenset((SILENT, LATE))


class Pool(Protocol):
    """What a course asks of the pool, with or without a lock around it."""

    def begin(
        self, now: float, model: Optional[str], affinity: Any = ..., *, wait_until: Optional[float] = ...
    ) -> Optional[Attempt]:
        """Choose for a fresh call."""

    def may_recover(self, now: float, model: Optional[str], exclude: AbstractSet[str], until: float) -> bool:
        """Tell whether waiting until then could help."""

    def choose(
        self,
        now: float,
        model: Optional[str],
        exclude: AbstractSet[str] = ...,
        within: Optional[int] = ...,
    ) -> Optional[Attempt]:
        """Choose among those not excluded."""

    def choose_same(self, now: float, model: Optional[str], name: str) -> Optional[Attempt]:
        """Choose this one once more."""

    def is_usable(self, name: str, now: float) -> bool:
        """Tell whether this one may be asked at all: not if its breaker has just opened."""

    def release(self, attempt: Attempt) -> None:
        """Give back an attempt that was not made."""

    def failing(self, now: float) -> AbstractSet[str]:
        """Name those who have failed a moment ago, while nobody answered."""

    def was_just_out(self, now: float, model: Optional[str], since: float) -> bool:
        """Tell whether another call has just found out, and after `since`, that everybody fails."""

    def withdraw_retry(self, now: float) -> bool:
        """Take a retry from the shared budget."""

    def smaller_windows(self, attempt: Attempt) -> AbstractSet[str]:
        """Name those whose context window is no larger."""

    def ready_at(self, now: float, model: Optional[str], exclude: AbstractSet[str]) -> Optional[float]:
        """Return when the first that is up may be asked."""


class Course:
    """One call's way; single-threaded, told the time, dealt the chance.

    Args:
        pool: where attempts come from.
        retry: the policy to spend.
        model: the caller's name for the model, None where there is none.
        deadline: end of the whole call, on the clock that `now` is read from.
        read_s: seconds that one attempt may take; None gives it half of what is left while another could be tried.
        first_token_s: seconds until a stream's first content; None gives it the same half.
        chance: random numbers from 0 to 1.
        repeatable: whether a request that may have been received may be sent again.
        queue_s: seconds that it may wait in line; 0 where it may not.
        affinity: the conversation that it belongs to; None for none.
        streams: whether the reply will be taken as a stream.

    """

    __slots__ = (
        "_affinity",
        "_chance",
        "_deadline",
        "_excluded",
        "_failed",
        "_first_token_s",
        "_gambled",
        "_looked_at",
        "_model",
        "_never",
        "_pool",
        "_queue_s",
        "_queue_until",
        "_quickened",
        "_read_s",
        "_repeatable",
        "_retry",
        "_round",
        "_streams",
        "_ticket",
        "_waiting_for",
    )

    def __init__(
        self,
        pool: Pool,
        retry: FailoverRetry,
        model: Optional[str],
        deadline: float,
        *,
        read_s: Optional[float],
        first_token_s: Optional[float] = None,
        chance: Callable[[], float],
        repeatable: bool = True,
        queue_s: float = 0.0,
        affinity: Any = None,
        streams: bool = False,
    ) -> None:
        self._pool = pool
        self._streams = streams
        self._retry = retry
        self._model = model
        self._deadline = deadline
        self._read_s = read_s
        self._first_token_s = first_token_s
        self._chance = chance
        self._repeatable = repeatable
        self._looked_at = 0.0  # when it last knew for itself how things are
        self._gambled = False  # sent once more although it may have been processed
        self._round = 0
        self._excluded: AbstractSet[str] = _NONE  # have had their try in this round
        self._never: AbstractSet[str] = _NONE  # not to be asked again in this call
        self._quickened: AbstractSet[str] = _NONE  # have had their quick retry
        self._waiting_for: Optional[str] = None  # the endpoint whose quick retry is waited for
        self._failed: Rule = REJECTED  # what came of the attempt before
        self._affinity = affinity
        self._queue_s = queue_s
        self._queue_until: Optional[float] = None  # set when it first has to wait
        self._ticket: Optional[Ticket] = None

    def begin(self, now: float) -> Step:
        """Take the first step."""
        wait_until = min(now + self._queue_s, self._deadline) if self._queue_s > 0 else None
        attempt = self._pool.begin(now, self._model, self._affinity, wait_until=wait_until)
        if attempt is not None:
            return attempt
        return self._wait(now) or UNAVAILABLE

    def limit(self, attempt: Attempt, now: float) -> None:
        """Tell an attempt what it may take, so that one silent host never eats the whole deadline."""
        left = max(self._deadline - now, _LEAST_S)
        attempt.call_left_s = left
        attempt.streams = self._streams
        attempt.repeatable = self._retry.ambiguous != "raise" and self._repeatable
        another = attempt.alternatives > 0 and attempt.repeatable and not self._gambled
        share = left / 2 if another and self._retry.total not in (0, False) else left
        attempt.timeout_s = share if self._read_s is None else min(self._read_s, left)
        attempt.content_s = share if self._first_token_s is None else min(self._first_token_s, left)

    def hedge(self, first: Attempt, now: float) -> Optional[Attempt]:
        """Choose whom to ask beside the first, which is late; None where nobody may be."""
        if self._gambled:
            return None
        attempt = self._pool.choose(now, self._model, self._excluded | {first.endpoint.name})
        if attempt is not None:
            self.limit(attempt, now)
        return attempt

    def is_final(self, outcome: Outcome) -> bool:
        """Tell whether no other endpoint could better it."""
        return self._rule(outcome).goes == NOWHERE

    def note(self, attempt: Attempt, outcome: Outcome) -> None:
        """Learn what came of an attempt beside the one that decides the next step."""
        rule = self._rule(outcome)
        self._gambled = self._gambled or rule.goes == ONE_OTHER
        self._exclude(attempt, rule, outcome)

    def after(self, attempt: Attempt, outcome: Outcome, now: float) -> Step:
        """Take the step that follows from a result."""
        self._looked_at = now
        rule = self._rule(outcome)
        end = self._end(rule, now)
        if end is not None:
            return end
        name = attempt.endpoint.name
        self._failed = rule
        self._exclude(attempt, rule, outcome)
        quick_s = self._quick_pause_s(name, rule, outcome)
        if quick_s is not None:
            peer = self._elsewhere(now, within=attempt.endpoint.priority)
            if peer is not None:
                return peer
            in_time = now + quick_s < self._deadline
            if in_time and self._pool.is_usable(name, now) and self._spend(now, elsewhere=False):
                self._quickened |= {name}
                self._waiting_for = name
                if self._asked_s(outcome) is None:
                    self._round = self._round or 1  # this is the first backoff, and the next is longer
                return Pause(now + quick_s)
        return self._elsewhere(now) or self._another_round(now)

    def resume(self, now: float) -> Step:
        """Take the step that follows a pause."""
        if now >= self._deadline:
            return OUT_OF_TIME
        if self._queue_s <= 0 and self._pool.was_just_out(now, self._model, self._looked_at):
            self._looked_at = now
            return self._another_round(now)
        name, self._waiting_for = self._waiting_for, None
        if name is not None:
            attempt = self._moving(self._pool.choose_same(now, self._model, name))
            return attempt or self._elsewhere(now) or self._another_round(now)
        self._excluded = self._never
        attempt = self._moving(self._pool.choose(now, self._model, self._excluded))
        return attempt or self._wait(now) or EXHAUSTED

    def served(self, attempt: Optional[Attempt], now: float) -> Step:
        """Take the step that follows a wait: with an attempt if its turn came."""
        if attempt is not None:
            self._excluded = self._never
            self._gambled = self._gambled or self._failed.goes == ONE_OTHER
            return attempt
        if self._ticket is not None and self._ticket.refused:
            return TURNED_AWAY
        return OUT_OF_TIME if now >= self._deadline else WAITED_IN_VAIN

    def _wait(self, now: float) -> Optional[Step]:
        """Stand in line; None where it may not, or where nobody could ever come."""
        if not self._has_patience(now):
            return None if self._ticket is None else WAITED_IN_VAIN
        until = min(self._queue_until or now, self._deadline)
        if not self._pool.may_recover(now, self._model, self._never, until):
            return None
        if self._ticket is None:
            self._ticket = Ticket(self._model, self._affinity)
        self._ticket.exclude = self._never
        return Wait(self._ticket, until)

    def _has_patience(self, now: float) -> bool:
        """Tell whether its queue time, which begins with the first need of it, lasts."""
        if self._queue_s <= 0:
            return False
        if self._queue_until is None:
            self._queue_until = now + self._queue_s
        return now < self._queue_until

    def _end(self, rule: Rule, now: float) -> Optional[Stop]:
        """Return why nobody else may be asked after such an outcome, None where somebody may."""
        if rule.goes == NOWHERE:
            return ANSWERED
        if now >= self._deadline:
            return OUT_OF_TIME
        doubled = rule.maybe_billed and self._retry.ambiguous == "raise"
        spent = rule.goes == ONE_OTHER and self._gambled
        received = rule.name != NEVER_SENT and not self._repeatable
        return EXHAUSTED if doubled or spent or received else None

    def _exclude(self, attempt: Attempt, rule: Rule, outcome: Outcome) -> None:
        """Ask an endpoint no more in this round, or in none, and nobody who would answer the same."""
        name, asked_s = attempt.endpoint.name, self._asked_s(outcome)
        self._excluded |= {name}
        if rule.goes == LARGER_WINDOW:
            self._excluded |= self._pool.smaller_windows(attempt)
            self._never |= self._excluded
        if not rule.again or (asked_s or 0.0) > self._retry.retry_after_limit_s:
            self._never |= {name}

    def _asked_s(self, outcome: Outcome) -> Optional[float]:
        """Return for how long a reply asks to be left alone; None where the caller's policy ignores that."""
        return outcome.retry_after_s if self._retry.respect_retry_after_header else None

    def _rule(self, outcome: Outcome) -> Rule:
        """Return the outcome's rule, with what the caller's own policy adds to it."""
        rule = outcome.rule
        forced = (
            rule.goes == NOWHERE
            and outcome.status is not None
            and outcome.status in self._retry.status_forcelist
        )
        return rule._replace(goes=ANYWHERE, quick=True, again=True) if forced else rule

    def _quick_pause_s(self, name: str, rule: Rule, outcome: Outcome) -> Optional[float]:
        """Return the seconds to wait before the same endpoint is asked again, None where it is not."""
        if not rule.quick or name in self._quickened:
            return None
        asked_s = self._asked_s(outcome)
        if asked_s is None:
            return self._retry.backoff_s(0, self._chance)
        return asked_s if asked_s <= self._retry.quick_retry_after_s else None

    def _elsewhere(self, now: float, within: Optional[int] = None) -> Optional[Step]:
        """Go to somebody new at once, of whom it is not known that they fail; None where there is nobody."""
        attempt = self._pool.choose(now, self._model, self._excluded | self._known_failing(now), within)
        if attempt is None:
            return None
        if not self._spend(now, elsewhere=True):
            self._pool.release(attempt)
            return self._patiently(now) or EXHAUSTED
        self._gambled = self._gambled or self._failed.goes == ONE_OTHER
        return self._moving(attempt)

    def _known_failing(self, now: float) -> AbstractSet[str]:
        """Name those whom others have found failing, for rule 6; nobody after a silence, which left no time for a round."""
        if self._queue_s > 0 or self._failed.name in _TOOK_ITS_TIME:
            return _NONE
        return self._pool.failing(now)

    def _moving(self, attempt: Optional[Attempt]) -> Optional[Attempt]:
        """Have the conversation move to whoever answers."""
        if attempt is not None:
            attempt.affinity = self._affinity
        return attempt

    def _another_round(self, now: float) -> Step:
        """Wait until those who may be asked again can be."""
        ready_at = self._pool.ready_at(now, self._model, self._never)
        if ready_at is None:
            return self._wait(now) or EXHAUSTED
        until = max(ready_at, now + self._retry.backoff_s(self._round, self._chance))
        too_long = until >= self._deadline or until - now > self._retry.retry_after_limit_s
        if too_long:
            return EXHAUSTED
        if not self._spend(now, elsewhere=False):
            return self._patiently(now) or EXHAUSTED
        self._round += 1
        return Pause(until)

    def _patiently(self, now: float) -> Optional[Step]:
        """Begin another round without a retry to spend, as a call that may wait does while everybody fails."""
        if not self._failed.again or not self._has_patience(now):
            return None
        ready_at = self._pool.ready_at(now, self._model, self._never) or now
        until = max(ready_at, now + self._retry.backoff_s(self._round, self._chance))
        if until >= min(self._deadline, self._queue_until or now):
            return None
        self._round += 1
        return Pause(until)

    def _spend(self, now: float, *, elsewhere: bool) -> bool:
        """Take one attempt from the policy and, unless the last was never sent, one from the shared budget."""
        left = self._retry.spent(self._failed, elsewhere=elsewhere)
        if left is None:
            return False
        if self._failed.name != NEVER_SENT and not self._pool.withdraw_retry(now):
            return False
        self._retry = left
        return True
