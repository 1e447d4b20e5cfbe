"""Who among equals is asked next. A balancer is any object with `pick(candidates) -> candidate`.

Candidates are never empty; each has `endpoint`, `latency_ms` (None before the first reply) and `in_flight`, and may
have `weight` (the endpoint's own, reduced while it starts slowly) and `model`. The registry calls `pick` under its
lock and passes the very same tuple as long as nobody joined, left or changed weight: what depends on the set is
computed once per set, not once per call.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from ..validation import one_of, reject

Candidates = Sequence[Any]

#: Up to this many, everybody is compared; beyond, a sample of this size is (the power of many choices).
_COMPARED = 8
#: Up to this many distinct weights are compared in each pick.
_COMPARED_WEIGHTS = 16
#: Stands in for a weight of 0, which the registry never passes.
_LEAST_WEIGHT = 1e-9


class RoundRobin:
    """Everybody in turn: whoever of those eligible now has waited longest, so that no changing set starves anyone."""

    def __init__(self) -> None:
        self._seen: Candidates = ()
        self._queue: Tuple[Any, ...] = ()
        self._next = 0
        self._turn = 0
        self._last_turn: Dict[str, int] = {}

    def __repr__(self) -> str:
        return "RoundRobin()"

    def __getstate__(self) -> Dict[str, Any]:
        """Leave behind whose turn it is; what a subclass has of its own travels."""
        return {**vars(self), **vars(RoundRobin())}

    def pick(self, candidates: Candidates) -> Any:
        """Return the one whose last turn is longest ago."""
        if candidates is not self._seen or type(candidates) is not tuple:
            self._follow(candidates)
        index = self._next
        self._next = (index + 1) % len(self._queue)
        self._turn += 1
        chosen = self._queue[index]
        self._last_turn[chosen.endpoint.name] = self._turn
        return chosen

    def _follow(self, candidates: Candidates) -> None:
        """Line up a new set: those who never had a turn first, in the given order."""
        self._seen = candidates
        self._queue = tuple(sorted(candidates, key=lambda c: self._last_turn.get(c.endpoint.name, 0)))
        self._next = 0


class WeightedRoundRobin:
    """Shares by weight, smoothly: nginx's algorithm, {5, 1, 1} gives a a b a c a a.

    In every step each candidate's current weight grows by its weight; the largest (the first of equals) is picked
    and loses the sum of all weights. Beyond 16 distinct weights each is picked when its share is due (earliest
    deadline first): the same shares in nearly the same order, but a pick among a thousand costs what it costs among
    three.

    Source: nginx, ngx_http_upstream_round_robin.c, commit 52327e0627f4 (smooth weighted balancing).
    """

    def __init__(self) -> None:
        self._current: Dict[str, float] = {}
        #: Who takes part, and whose turn it is; one value, so that a fork in the middle of a change parts them nowhere.
        self._plan: Tuple[Tuple[Any, ...], Union[_Smooth, _EarliestDeadline]] = (), _Smooth([], [])

    def __repr__(self) -> str:
        return "WeightedRoundRobin()"

    def __getstate__(self) -> Dict[str, Any]:
        """Leave behind whose share is due; what a subclass has of its own travels."""
        return {**vars(self), **vars(WeightedRoundRobin())}

    def pick(self, candidates: Candidates) -> Any:
        """Return the one whose share is most overdue."""
        if candidates is not self._plan[0]:
            self._follow(candidates)
        seen, schedule = self._plan
        return seen[schedule.next()]

    def forget(self) -> None:
        """Owe nobody anything any more; the next set begins from nothing."""
        self._plan, self._current = ((), _Smooth([], [])), {}

    def _follow(self, candidates: Candidates) -> None:
        """Begin with a new set, or with new weights; everybody keeps the current weight that it had."""
        fresh, (seen, schedule) = tuple(candidates), self._plan
        if len(fresh) == len(seen) and all(map(_same, fresh, seen)):
            self._plan = fresh, schedule
            return
        for index, current in schedule.currents():
            self._current[seen[index].endpoint.name] = current
        weights = [_weight(c) for c in fresh]
        currents = [self._current.get(c.endpoint.name, 0.0) for c in fresh]
        kind = _Smooth if len(set(weights)) <= _COMPARED_WEIGHTS else _EarliestDeadline
        self._plan = fresh, kind(weights, currents)


class _Smooth:
    """nginx's algorithm. Those of equal weight grow alike, so only the foremost of each weight is compared."""

    def __init__(self, weights: Sequence[float], currents: Sequence[float]) -> None:
        self._total = sum(weights)
        self._step = 0
        groups: Dict[float, List[Tuple[float, int]]] = {}
        for index, (weight, current) in enumerate(zip(weights, currents)):
            # what it lost so far, less what it began with
            groups.setdefault(weight, []).append((-current, index))
        for heap in groups.values():
            heapify(heap)
        self._groups = list(groups.items())

    def next(self) -> int:
        self._step = step = self._step + 1
        most, who, chosen = float("-inf"), 0, self._groups[0][1]
        for weight, heap in self._groups:
            lost, index = heap[0]
            current = weight * step - lost
            if current > most or (current == most and index < who):
                most, who, chosen = current, index, heap
        heapreplace(chosen, (chosen[0][0] + self._total, who))
        return who

    def currents(self) -> Iterator[Tuple[int, float]]:
        return ((index, weight * self._step - lost) for weight, heap in self._groups for lost, index in heap)


class _EarliestDeadline:
    """Who is due first: half a share after the beginning, then once a share. Due times are counted in picks."""

    def __init__(self, weights: Sequence[float], currents: Sequence[float]) -> None:
        self._total = sum(weights)
        self._weights = [weight or _LEAST_WEIGHT for weight in weights]
        self._step = 0
        self._due = [
            ((self._total / 2 - current) / weight, index)
            for index, (weight, current) in enumerate(zip(self._weights, currents))
        ]
        heapify(self._due)

    def next(self) -> int:
        self._step += 1
        due, index = self._due[0]
        heapreplace(self._due, (due + self._total / self._weights[index], index))
        return index

    def currents(self) -> Iterator[Tuple[int, float]]:
        return (
            (index, self._total / 2 - (due - self._step) * self._weights[index]) for due, index in self._due
        )


class LowestLatency:
    """The quickest that is not busy: peak-EWMA latency times (requests in flight + 1).

    The registry keeps the latency: it jumps up at once and decays with a time constant of 10 s, and an error counts
    as at least the attempt's timeout. One that never answered is tried first, but not twice at a time.

    Source: Finagle, com.twitter.finagle.loadbalancer.PeakEwma.
    """

    def __init__(self, *, chance: Optional[Callable[[], float]] = None) -> None:
        self._sample = _Sample(chance)

    def __repr__(self) -> str:
        return "LowestLatency()"

    def pick(self, candidates: Candidates) -> Any:
        """Return the one with the least cost."""
        return min(self._sample(candidates), key=_latency_cost)


class LeastBusy:
    """The one with the fewest requests in flight for its weight."""

    def __init__(self, *, chance: Optional[Callable[[], float]] = None) -> None:
        self._sample = _Sample(chance)

    def __repr__(self) -> str:
        return "LeastBusy()"

    def pick(self, candidates: Candidates) -> Any:
        """Return the least busy; among equals everybody in turn."""
        return min(self._sample(candidates), key=_load)


class Cheapest:
    """The one with the lowest price for the model; among equals the least busy. An unknown price comes last."""

    def __init__(self, *, chance: Optional[Callable[[], float]] = None) -> None:
        self._busy = LeastBusy(chance=chance)
        self._seen: Candidates = ()
        self._cheap: Tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return "Cheapest()"

    def __getstate__(self) -> Dict[str, Any]:
        """Leave behind whom it has seen; what a subclass has of its own travels."""
        return {**vars(self), "_seen": (), "_cheap": ()}

    def pick(self, candidates: Candidates) -> Any:
        """Return one of the cheapest."""
        if candidates is not self._seen or not isinstance(candidates, tuple):
            prices = [_price(c) for c in candidates]
            least = min(prices)
            self._cheap = tuple(c for c, price in zip(candidates, prices) if price == least)
            self._seen = candidates
        return self._busy.pick(self._cheap)


BALANCERS: Dict[str, Callable[[Callable[[], float]], Any]] = {
    "round_robin": lambda _chance: RoundRobin(),
    "weighted": lambda _chance: WeightedRoundRobin(),
    "lowest_latency": lambda chance: LowestLatency(chance=chance),
    "least_busy": lambda chance: LeastBusy(chance=chance),
    "cheapest": lambda chance: Cheapest(chance=chance),
}


def balancer_from(value: Union[str, Any], chance: Callable[[], float]) -> Any:
    """Return the balancer that a name stands for, or the caller's own object."""
    if isinstance(value, str):
        return BALANCERS[one_of("balancer", value, BALANCERS)](chance)
    if isinstance(value, type) or not callable(getattr(value, "pick", None)):
        raise reject(
            "balancer", value, f"an object with pick(candidates), or one of {', '.join(sorted(BALANCERS))}"
        )
    return value


class _Sample:
    """Whom to compare: all, beginning elsewhere each time so that equals take turns, or a sample of many."""

    def __init__(self, chance: Optional[Callable[[], float]]) -> None:
        self._chance = chance
        self._turn = 0

    def __getstate__(self) -> Dict[str, Any]:
        """Begin anew elsewhere."""
        return {**vars(self), "_turn": 0}

    def __call__(self, candidates: Candidates) -> Candidates:
        count = len(candidates)
        self._turn = turn = (self._turn + 1) % count
        if count <= _COMPARED or self._chance is None:
            return candidates if not turn else [*candidates[turn:], *candidates[:turn]]
        return [candidates[int(self._chance() * count)] for _ in range(_COMPARED)]


def _weight(candidate: Any) -> float:
    weight = getattr(candidate, "weight", None)
    return float(candidate.endpoint.weight if weight is None else weight)


def _same(one: Any, other: Any) -> bool:
    return one is other or (one.endpoint is other.endpoint and _weight(one) == _weight(other))


def _load(candidate: Any) -> float:
    return float((candidate.in_flight + 1) / (_weight(candidate) or 1.0))


def _latency_cost(candidate: Any) -> float:
    latency_ms, in_flight = candidate.latency_ms, candidate.in_flight
    if latency_ms is None:  # unknown: nothing costs less while idle, nothing more while being tried
        return float(in_flight * 1e9)
    return float(latency_ms * (in_flight + 1))


def _price(candidate: Any) -> float:
    endpoint, model = candidate.endpoint, getattr(candidate, "model", None)
    price = endpoint.price(model, endpoint.serves(model))
    if price is None and model is None and endpoint.prices:
        return min(_usd(endpoint.price(known)) for known in endpoint.prices)
    return float("inf") if price is None else _usd(price)


def _usd(price: Any) -> float:
    """Add as floats: the sum of decimals depends on the context of the caller's thread."""
    return float(price.input) + float(price.output)
