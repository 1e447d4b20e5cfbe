"""Whether everybody fails: what one call has just found out, no other one needs to find out again.

While a single endpoint is down, whoever meets it is answered by another one, and that ends the matter here. Where nobody
was answered since each of them failed, all are down, or what they share is. A fleet that then tried everything with every
call would knock many times as often as while all is well.
"""

from typing import Dict, FrozenSet, Sequence, Tuple

#: Seconds after which a failure says nothing of now any more.
_RECENT_S = 10.0
#: Seconds for which whoever waits for a change takes another one's word that there is none.
_JUST_NOW_S = 0.2
_NOBODY: FrozenSet[str] = frozenset()


class Outage:
    """Remembers since when each endpoint fails; one answer, from whomever, ends it for all."""

    __slots__ = ("_failing",)

    def __init__(self) -> None:
        #: Since when, and when last, by endpoint.
        self._failing: Dict[str, Tuple[float, float]] = {}

    def failed(self, name: str, now: float) -> None:
        """An attempt has failed."""
        since, last = self._failing.get(name, (now, now))
        self._failing[name] = (since if now - last <= _RECENT_S else now, now)

    def answered(self) -> None:
        """An attempt was answered."""
        if self._failing:
            self._failing.clear()

    def alive(self, name: str) -> None:
        """A probe of this one was answered."""
        self._failing.pop(name, None)

    def failing(self, now: float) -> FrozenSet[str]:
        """Name those who fail."""
        if not self._failing:
            return _NOBODY
        return frozenset(name for name, (_, last) in self._failing.items() if now - last <= _RECENT_S)

    def is_total(self, names: Sequence[str], now: float, *, before: float) -> bool:
        """Tell whether all of these fail, and some did before that moment."""
        return self.failing(now).issuperset(names) and any(self._failing[name][0] < before for name in names)

    def was_just_total(self, names: Sequence[str], now: float) -> bool:
        """Tell whether all of these fail, as was seen a moment ago."""
        if not names or not self.failing(now).issuperset(names):
            return False
        return now - max(last for _, last in self._failing.values()) <= _JUST_NOW_S
