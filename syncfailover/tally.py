"""What the demo's callers saw, counted per endpoint and per act; and whether that is what was promised."""

from bisect import bisect_right
from collections import Counter, defaultdict, deque
from typing import Deque, Dict, List, NamedTuple, Optional, Sequence

from .events import AttemptRecord
from .text_table import Cell, Column, Line, table

#: The three acts: all serve, some are dead, they are back.
ACTS = BEFORE, DURING, AFTER = range(3)


class Called(NamedTuple):
    """One call, as its caller saw it."""

    #: On the monotonic clock, when it ended.
    at: float
    ledger: Sequence[AttemptRecord]
    #: None for an answer.
    error: Optional[str]

    @property
    def saved(self) -> bool:
        """Whether failover saved it: another endpoint answered than the one that was asked first."""
        return self.error is None and self.ledger[0].endpoint != self.ledger[-1].endpoint


class Tally:
    """What happened, counted; an act begins when its turn is noted.

    Args:
        names: all endpoints.
        killed: those of them that die.

    """

    def __init__(self, names: Sequence[str], killed: Sequence[str]) -> None:
        self.names = names
        self.killed = killed
        #: Those who stay alive.
        self.others = [name for name in names if name not in killed]
        #: When the killed died, and when they were revived, on the monotonic clock.
        self.turns: List[float] = []
        self.calls = self.failed = self.saved = 0
        self.cost_usd = 0.0
        self.first_error: Optional[str] = None
        self.failed_attempts: Dict[str, int] = Counter()
        #: When each endpoint first answered after the revival.
        self.back_at: Dict[str, float] = {}
        self._served: Dict[int, Dict[str, int]] = {act: Counter() for act in ACTS}
        self._latency_ms: Dict[str, float] = defaultdict(float)
        self._recent: Dict[str, Deque[float]] = defaultdict(deque)

    def add(self, call: Called) -> None:
        """Count one call."""
        self.calls += 1
        self.saved += call.saved
        if call.error is not None:
            self.failed += 1
            self.first_error = self.first_error or call.error
        for attempt in call.ledger:
            if attempt.outcome == "ok":
                self._add_served(attempt, call.at)
            else:
                self.failed_attempts[attempt.endpoint] += 1

    def _add_served(self, attempt: AttemptRecord, at: float) -> None:
        name, act = attempt.endpoint, bisect_right(self.turns, at)
        self._served[act][name] += 1
        self._latency_ms[name] += attempt.latency_ms
        self._recent[name].append(at)
        self.cost_usd += attempt.cost_usd or 0.0
        if act == AFTER:
            self.back_at.setdefault(name, at)

    def headline(self) -> str:
        """Say the most important in one line."""
        answered = self.calls - self.failed
        return f"{answered} calls answered, {self.failed} failed, {self.saved} saved by failover, ${self.cost_usd:.4f}"

    def rate(self, name: str, now: float) -> int:
        """Return how many calls an endpoint served within the last second."""
        recent = self._recent[name]
        while recent and recent[0] < now - 1.0:
            recent.popleft()
        return len(recent)

    def served(self, names: Sequence[str], acts: Sequence[int] = ACTS) -> int:
        """Return how many calls these endpoints served in these acts."""
        return sum(self._served[act][name] for name in names for act in acts)

    def latency_ms(self, names: Sequence[str]) -> Optional[float]:
        """Return the average latency of what these endpoints served."""
        served = self.served(names)
        return sum(self._latency_ms[name] for name in names) / served if served else None

    def absent(self) -> List[str]:
        """Return those of the killed who have not served since the revival."""
        return [name for name in self.killed if name not in self.back_at]


def closing_table(tally: Tally, width: Optional[int]) -> List[Line]:
    """Say what each endpoint did in each act."""
    columns = [
        Column("endpoint"),
        Column("served before", align=">"),
        Column("during", align=">"),
        Column("after", align=">"),
        Column("failed attempts", align=">", rank=1),
        Column("average latency", align=">", rank=2),
    ]
    rows = [_closing_row(name, [name], tally) for name in tally.names]
    return table(columns, [*rows, _closing_row("all", tally.names, tally)], width)


def _closing_row(title: str, names: Sequence[str], tally: Tally) -> Line:
    latency_ms = tally.latency_ms(names)
    latency = "-" if latency_ms is None else f"{latency_ms:.0f} ms"
    counts = [tally.served(names, [act]) for act in ACTS]
    counts.append(sum(tally.failed_attempts[name] for name in names))
    return [Cell(title), *(Cell(str(count)) for count in counts), Cell(latency)]


def objections(tally: Tally) -> List[str]:
    """Return everything that did not come out as promised."""
    reasons = []
    if tally.failed:
        reasons.append(f"{tally.failed} of {tally.calls} calls failed (the first: {tally.first_error})")
    if not tally.served(tally.others, [DURING]):
        reasons.append(f"nobody else was there to serve with {listed(tally.killed)} dead")
    absent = tally.absent()
    if absent:
        reasons.append(f"{listed(absent)} served no call after the revival")
    return reasons


def verdict(tally: Tally) -> str:
    """Say in one sentence how it came out."""
    reasons = objections(tally)
    if reasons:
        return f"FAILED: {'; '.join(reasons)}."
    who = listed(tally.killed)
    died, revived = tally.turns
    back_s = max(tally.back_at[name] for name in tally.killed) - revived
    return (
        f"PASSED: none of {tally.calls} calls failed; with {who} dead for {revived - died:.1f} s, "
        f"{listed(tally.others)} answered {tally.served(tally.others, [DURING])} calls, and {back_s:.1f} s after the "
        f"revival {who} took traffic again ({tally.served(tally.killed, [AFTER])} calls)."
    )


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
