"""Who waits for an endpoint while nobody can serve: one line per model, first come first served.

The rules:

1. A caller keeps its place: one that was let out to try, and failed, stands where it stood before.
2. While nobody is up the line is *shut*. Whoever is let out then tries for all; until that try has succeeded nobody
   follows, but one that takes longer than `TRY_S` is not waited for alone.
3. A success opens the line: the rest are let out in order, as far as the endpoints have room.
4. With nobody eligible for `TRY_S`, the first is let out early to whoever reopens first: an endpoint may be back long
   before its breaker would find out.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import AbstractSet, Any, Dict, Iterator, List, Optional, Tuple

from .node import Attempt

#: Seconds between two tries of a line that is shut.
TRY_S = 1.0
#: Lines kept that nobody waits in; model names come from callers and may be without number.
_LINES = 128


class Ticket:
    """One caller's place."""

    __slots__ = ("affinity", "attempt", "exclude", "model", "number", "refused", "turn", "waiting")

    def __init__(self, model: Optional[str], affinity: Any = None) -> None:
        self.model = model
        self.affinity = affinity
        #: Names of endpoints that this call may not ask again.
        self.exclude: AbstractSet[str] = frozenset()
        #: The order of arrival; None before the first.
        self.number: Optional[int] = None
        self.waiting = False
        #: Whether it was turned away because too many were waiting.
        self.refused = False
        #: What it was waiting for, once it is its turn.
        self.attempt: Optional[Attempt] = None
        #: Whatever the owner wakes the caller with.
        self.turn: Any = None


class Line:
    """Those who wait for one model."""

    __slots__ = ("_heap", "early_at", "shut", "trial", "trial_until")

    def __init__(self, now: float) -> None:
        self._heap: List[Tuple[int, Ticket]] = []
        self.shut = False
        #: The try that the others wait for, and until when they do.
        self.trial: Optional[Attempt] = None
        self.trial_until = 0.0
        #: From when on the first may be let out early.
        self.early_at = now

    def __iter__(self) -> Iterator[Ticket]:
        """Iterate over those who wait, in order of arrival."""
        return (ticket for _number, ticket in sorted(self._heap) if ticket.waiting)

    def push(self, number: int, ticket: Ticket) -> None:
        """Give a ticket its place."""
        heappush(self._heap, (number, ticket))

    def first(self) -> Optional[Ticket]:
        """Return who is first, None where nobody waits."""
        while self._heap and not self._heap[0][1].waiting:
            heappop(self._heap)
        return self._heap[0][1] if self._heap else None

    def in_use(self) -> bool:
        """Tell whether anybody waits, or tries for those who do."""
        return self.trial is not None or self.first() is not None

    def is_held(self, now: float) -> bool:
        """Tell whether everybody waits for a try that is under way."""
        return self.shut and self.trial is not None and now < self.trial_until

    def tries(self, attempt: Attempt, now: float) -> None:
        """Note who tries for all."""
        self.trial, self.trial_until = attempt, now + TRY_S
        self.early_at = now + TRY_S


class Lines:
    """All lines of a pool, at most `size` callers in them together."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting = 0
        self._arrived = 0
        self._by_model: Dict[Optional[str], Line] = {}

    def __bool__(self) -> bool:
        """Tell whether there is a line: somebody waits, tries for those who wait, or did so in vain."""
        return bool(self._by_model)

    def __getitem__(self, model: Optional[str]) -> Optional[Line]:
        """Return the line for a model, None where there is none."""
        return self._by_model.get(model)

    def __len__(self) -> int:
        """Count those who wait."""
        return self._waiting

    def firsts(self) -> List[Ticket]:
        """Return who is first in each line."""
        return [first for first in (line.first() for line in self._by_model.values()) if first is not None]

    def join(self, ticket: Ticket, now: float) -> bool:
        """Let a ticket wait, where it stood before if it did; False where too many are waiting."""
        if ticket.number is None:
            if self._waiting >= self._size:
                return False
            ticket.number = self._arrived = self._arrived + 1
        ticket.waiting = True
        self._waiting += 1
        self._line(ticket.model, now).push(ticket.number, ticket)
        return True

    def _line(self, model: Optional[str], now: float) -> Line:
        line = self._by_model.get(model)
        if line is None:
            if len(self._by_model) >= _LINES:
                self._by_model = {m: known for m, known in self._by_model.items() if known.in_use()}
            line = self._by_model[model] = Line(now)
        return line

    def leave(self, ticket: Ticket) -> None:
        """Take a ticket out of its line."""
        if ticket.waiting:
            ticket.waiting = False
            self._waiting -= 1
        self._tidy(ticket.model)

    def settled(self, attempt: Attempt, *, succeeded: bool) -> None:
        """Learn how an attempt ended: any success opens all lines, a try that failed lets the next one try."""
        for model, line in list(self._by_model.items()):
            if succeeded:
                line.shut = False
            if succeeded or line.trial is attempt:
                line.trial = None
            self._tidy(model)

    def clear(self) -> None:
        """Forget everybody."""
        self._by_model.clear()
        self._waiting = 0

    def _tidy(self, model: Optional[str]) -> None:
        """Drop a line that nobody needs; one that is shut remembers when somebody last tried."""
        line = self._by_model.get(model)
        if line is not None and not line.shut and not line.in_use():
            del self._by_model[model]
