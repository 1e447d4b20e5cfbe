"""Who may be asked for a model, worked out once per state instead of once per call."""

from typing import AbstractSet, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from .health import SLOW_START_S, HealthStatus
from .node import Candidate, Node
from .rests import Rests
from .rooms import Rooms

#: Seconds between the steps in which a weight grows back.
_RAMP_STEP_S = 0.25
_FOREVER = float("inf")


class View(NamedTuple):
    """Who may be asked for one model, best first, until `valid_until`."""

    #: By priority; in it those with enough left of their rate limit before those without, and among these healthy or
    #: unknown before degraded. No group is empty.
    groups: Tuple[Tuple[int, Tuple[Candidate, ...]], ...]
    #: The first group's candidates: whom a fresh call chooses among.
    first: Tuple[Candidate, ...]
    size: int
    valid_until: float

    def without(self, exclude: AbstractSet[str], within: Optional[int]) -> Tuple[Sequence[Candidate], int]:
        """Return the best group that is left without `exclude`, none of a priority beyond `within`; and how many."""
        best: Sequence[Candidate] = ()
        count = 0
        for priority, group in self.groups:
            left = tuple(c for c in group if c.endpoint.name not in exclude) if exclude else group
            count += len(left)
            if left and not best and (within is None or priority <= within):
                best = left
        return best, count


def look(
    by_priority: Iterable[Node],
    rests: Rests,
    rooms: Rooms,
    model: Optional[str],
    now: float,
    time: Callable[[], float],
) -> View:
    """See who is eligible for `model` now, and when time alone will change that."""
    groups: Dict[Tuple[int, bool, bool], List[Candidate]] = {}
    changes_at: List[float] = [_FOREVER]
    for node in by_priority:
        if node.endpoint.serves(model) is None:
            continue
        if node.usable(now) and now >= rests.until(node.name, model):
            degraded = node.health.status is HealthStatus.DEGRADED
            plenty_at = rooms.until(node.name, model)
            candidate = Candidate(node, model, node.weight(now), time)
            groups.setdefault((node.priority, now < plenty_at, degraded), []).append(candidate)
            changes_at.append(plenty_at)
            if node.recovered_at is not None and now < node.recovered_at + SLOW_START_S:
                changes_at.append(now + _RAMP_STEP_S)
        else:
            changes_at.append(reopens_at(node, rests, model, now))
        changes_at.append(node.health.goes_stale_at() or _FOREVER)
    ordered = tuple((key[0], tuple(groups[key])) for key in sorted(groups))
    first = ordered[0][1] if ordered else ()
    size = sum(len(group) for _, group in ordered)
    return View(ordered, first, size, min(moment for moment in changes_at if moment > now))


def reopens_at(node: Node, rests: Rests, model: Optional[str], now: float) -> float:
    """Return when a node may be asked for `model` again; infinity where no time is set."""
    at = node.reopens_at(now)
    return _FOREVER if at is None else max(at, rests.until(node.name, model))
