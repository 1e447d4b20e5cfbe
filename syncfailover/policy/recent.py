"""How long the recent ones took: a quantile over a window, worked out now and then."""

from __future__ import annotations

from collections import deque
from typing import Deque, Optional

#: Samples looked at, and how many there have to be before they say anything.
_WINDOW, _LEAST = 256, 20
#: Samples between two looks.
_LOOK_EVERY = 16


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
