"""Who fails while nobody is answered: what one call has just found out, no other one needs to find out again.

While a single endpoint is down, whoever meets it is answered by another one, and that ends the matter here. Where attempt
after attempt fails, all are down, or what they share is. A fleet that then tried everything with every call would knock
many times as often as while all is well.
"""

from typing import Dict, FrozenSet, Sequence

#: Attempts in a row, wherever they went, before it is no accident: where three replies of ten are errors by chance, one row
#: of five in four hundred is.
_IN_A_ROW = 5
#: Seconds after which a failure says nothing of now any more.
_RECENT_S = 10.0
#: Seconds for which whoever waits for a change takes another one's word that there is none.
_JUST_NOW_S = 0.2
_NOBODY: FrozenSet[str] = frozenset()


class Outage:
    """Remembers who fails; one answer, from whomever, ends it for all."""

    __slots__ = ("_failed_at", "_in_a_row")

    def __init__(self) -> None:
        #: When each endpoint last failed.
        self._failed_at: Dict[str, float] = {}
        self._in_a_row = 0

    def failed(self, name: str, now: float) -> None:
        """An attempt has failed."""
        self._failed_at[name] = now
        self._in_a_row += 1

    def answered(self) -> None:
        """An attempt was answered."""
        if self._in_a_row:
            self._in_a_row = 0
            self._failed_at.clear()

    def alive(self, name: str) -> None:
        """A probe of this one was answered."""
        self._failed_at.pop(name, None)

    def failing(self, now: float) -> FrozenSet[str]:
        """Name those who fail."""
        if self._in_a_row < _IN_A_ROW:
            return _NOBODY
        return frozenset(name for name, at in self._failed_at.items() if now - at <= _RECENT_S)

    def was_just_total(self, names: Sequence[str], now: float, since: float) -> bool:
        """Tell whether all of these fail, as was seen a moment ago and after `since`."""
        if not names or not self.failing(now).issuperset(names):
            return False
        return max(self._failed_at.values()) > max(since, now - _JUST_NOW_S)
