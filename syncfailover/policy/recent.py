"""How long the recent attempts took: quantiles over windows, worked out now and then."""

from __future__ import annotations

from collections import deque
from typing import Any, Deque, Optional

from cachetools import LRUCache

#: Samples looked at, and how many there have to be before they say anything.
_WINDOW, _LEAST = 256, 20
#: Samples between two looks.
_LOOK_EVERY = 32
#: Of the attempts looked at, the share that is quicker than what counts as late.
_QUICKER = 0.95
#: Pairs of endpoint and model, and models, remembered at a time: their names come from callers.
_PAIRS, _MODELS = 1024, 256


class RecentQuantile:
    """The `quantile` (0 to 1) of the last samples, by nearest rank; None while there are too few."""

    __slots__ = ("_quantile", "_samples", "_unseen", "value")

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._samples: Deque[float] = deque(maxlen=_WINDOW)
        self._unseen = 0
        self.value: Optional[float] = None

    def add(self, sample: float) -> None:
        """Take in one sample."""
        self._samples.append(sample)
        self._unseen += 1
        count = len(self._samples)
        if count >= _LEAST and (self.value is None or self._unseen >= _LOOK_EVERY):
            self._unseen = 0
            self.value = sorted(self._samples)[int(self._quantile * (count - 1))]


class Pace:
    """How long attempts at one endpoint took for one model, and those at any endpoint for it."""

    __slots__ = ("anywhere", "own")

    def __init__(self, anywhere: RecentQuantile) -> None:
        self.own = RecentQuantile(_QUICKER)
        self.anywhere = anywhere

    def add(self, seconds: float) -> None:
        """Take in how long one attempt took."""
        self.own.add(seconds)
        self.anywhere.add(seconds)

    @property
    def late_s(self) -> Optional[float]:
        """Seconds after which an attempt is late, by the stricter of the two; None while nothing is known."""
        own, anywhere = self.own.value, self.anywhere.value
        if own is None or anywhere is None:
            return anywhere if own is None else own
        return min(own, anywhere)


class Paces:
    """The pace of each pair of endpoint and model."""

    def __init__(self) -> None:
        self._pairs: Any = LRUCache(_PAIRS)
        self._models: Any = LRUCache(_MODELS)

    def of(self, endpoint: str, model: Optional[str], *, streams: bool = False) -> Pace:
        """Return the pace of one pair: of whole replies, or of the first content of streams."""
        try:
            pace: Pace = self._pairs[endpoint, model, streams]
        except KeyError:
            anywhere = self._models.get((model, streams))
            if anywhere is None:
                anywhere = self._models[model, streams] = RecentQuantile(_QUICKER)
            pace = self._pairs[endpoint, model, streams] = Pace(anywhere)
        return pace
