"""Who waits for an endpoint while nobody can serve: one line per model, first come first served.

The rules:

1. A caller keeps its place: one that was let out to try, and failed, stands where it stood before, even if the line is
   full by then. While it tries for the others it still counts as waiting.
2. When nobody is eligible, and nobody merely busy, the line is *shut*, until a success opens it (3). Whoever is let out
   of a shut line tries for all: nobody follows until that try has ended, or has taken longer than `TRY_S`.
3. A success opens the lines for all models that its endpoint serves: the rest are let out in order, as far as the
   endpoints have room.
4. While it is shut and nobody is eligible, the first is let out early, at once and then every `TRY_S`: to each in turn
   who is down, beginning with whoever reopens first, for one may be back long before its breaker would find out. Whoever
   is up, and only asked to be left alone for a while, is left alone.
5. Nobody waits for what cannot come in time: a key without credit, a model that nobody has.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import AbstractSet, Any, Dict, Iterator, List, Optional, Set

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

    __slots__ = ("_numbers", "_tickets", "early_at", "shut", "trial", "trial_until", "tried")

    def __init__(self, now: float) -> None:
        self._numbers: List[int] = []  # sorted
        self._tickets: Dict[int, Ticket] = {}
        self.shut = False
        #: The try that the others wait for, and until when they do.
        self.trial: Optional[Attempt] = None
        self.trial_until = 0.0
        #: From when on the first may be let out early.
        self.early_at = now
        #: Names of endpoints that were tried in this round.
        self.tried: AbstractSet[str] = frozenset()

    def __iter__(self) -> Iterator[Ticket]:
        """Iterate over those who may be next: of all who may ask the same endpoints, the first to arrive."""
        seen = set()
        for number in self._numbers:
            ticket = self._tickets[number]
            if ticket.exclude not in seen:
                seen.add(ticket.exclude)
                yield ticket

    def add(self, number: int, ticket: Ticket) -> None:
        """Give a ticket its place."""
        insort(self._numbers, number)
        self._tickets[number] = ticket

    def remove(self, number: int) -> None:
        """Take out who stands at that place."""
        del self._tickets[number]
        del self._numbers[bisect_left(self._numbers, number)]

    def first(self) -> Optional[Ticket]:
        """Return who is first, None where nobody waits."""
        return self._tickets[self._numbers[0]] if self._numbers else None

    def in_use(self) -> bool:
        """Tell whether anybody waits, or tries for those who do."""
        return self.trial is not None or bool(self._numbers)

    def is_held(self, now: float) -> bool:
        """Tell whether everybody waits for a try that is under way."""
        return self.shut and self.trial is not None and now < self.trial_until

    def tries(self, attempt: Attempt, now: float) -> None:
        """Note who tries for all."""
        self.trial, self.trial_until = attempt, now + TRY_S
        self.early_at = now + TRY_S
        name = attempt.endpoint.name
        self.tried = frozenset((name,)) if name in self.tried else self.tried | {name}


class Lines:
    """All lines of a pool, at most `size` callers in them together; who is out to try for the others is one of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting = 0
        self._arrived = 0
        self._by_model: Dict[Optional[str], Line] = {}
        #: Tries that lines that are shut wait for, or have waited for long enough.
        self._tries: Set[Attempt] = set()

    def __bool__(self) -> bool:
        """Tell whether there is a line: somebody waits, tries for those who wait, or did so in vain."""
        return bool(self._by_model) or bool(self._tries)

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
            if self._waiting + len(self._tries) >= self._size:
                return False
            ticket.number = self._arrived = self._arrived + 1
        ticket.waiting = True
        self._waiting += 1
        self._line(ticket.model, now).add(ticket.number, ticket)
        return True

    def _line(self, model: Optional[str], now: float) -> Line:
        line = self._by_model.get(model)
        if line is None:
            if len(self._by_model) >= _LINES:
                self._by_model = {m: known for m, known in self._by_model.items() if known.in_use()}
            line = self._by_model[model] = Line(now)
        return line

    def let_out(self, line: Line, ticket: Ticket, attempt: Attempt, now: float) -> None:
        """Hand a ticket what it was waiting for; of a line that is shut it tries for all."""
        if line.shut:
            line.tries(attempt, now)
            self._tries.add(attempt)
        ticket.attempt = attempt
        self.leave(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Take a ticket out of its line."""
        if ticket.waiting and ticket.number is not None:
            ticket.waiting = False
            self._waiting -= 1
            self._by_model[ticket.model].remove(ticket.number)
        self._tidy(ticket.model)

    def settled(self, attempt: Attempt, *, succeeded: bool) -> None:
        """Learn how an attempt ended.

        A success opens the lines for all models that the endpoint serves; a try that failed lets the next one try.
        """
        self._tries.discard(attempt)
        for model, line in list(self._by_model.items()):
            opens = succeeded and attempt.endpoint.serves(model) is not None
            if opens:
                line.shut = False
            if opens or line.trial is attempt:
                line.trial = None
            self._tidy(model)

    def clear(self) -> None:
        """Forget everybody."""
        self._by_model.clear()
        self._tries.clear()
        self._waiting = 0

    def _tidy(self, model: Optional[str]) -> None:
        """Drop a line that nobody needs; one that is shut remembers when somebody last tried."""
        line = self._by_model.get(model)
        if line is not None and not line.shut and not line.in_use():
            del self._by_model[model]
