"""How much room each endpoint has left for each model, and who is spared for that reason until when.

Replies come in another order than they were made, and calls leave while a reply is on its way. So only the reply to a
call that began after all other news makes things look better, and calls under way count as if the provider had not
counted them yet.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

from .rate_limit import Room

#: Pairs remembered at a time; model names come from callers and may be without number.
_PAIRS = 4096


class _Left(NamedTuple):
    """What is known of one pair."""

    room: Room
    #: When there was news last.
    heard: float
    #: When it is full again.
    until: float
    scarce: bool


class Rooms:
    """Pairs of endpoint and model, and what was last heard of each."""

    def __init__(self) -> None:
        self._left: Dict[Tuple[str, Optional[str]], _Left] = {}

    def until(self, endpoint: str, model: Optional[str]) -> float:
        """Return until when others are to be asked first; 0 where there is room."""
        left = self._left.get((endpoint, model))
        return left.until if left is not None and left.scarce else 0.0

    def note(
        self, endpoint: str, model: Optional[str], room: Room, in_flight: int, started: float, now: float
    ) -> bool:
        """Learn what a reply says is left; tell whether that may change who is asked first.

        Args:
            endpoint: who replied.
            model: the caller's name for it.
            room: what is left.
            in_flight: calls under way there.
            started: when the call that was answered began.
            now: on the same clock.

        """
        pair = (endpoint, model)
        old = self._left.get(pair)
        scarce, until = room.is_scarce(in_flight), now + room.reset_s
        if old is not None and now < old.until and started < old.heard:
            if not scarce and (old.scarce or not room.has_less_than(old.room)):
                self._left[pair] = old._replace(heard=now)
                return False
            if scarce is old.scarce:
                until = max(until, old.until)
        if old is None and len(self._left) >= _PAIRS:
            self._left.clear()
        self._left[pair] = _Left(room, now, until, scarce)
        return scarce or (old is not None and old.scarce)

    def take(self, endpoint: str, model: Optional[str], in_flight: int, now: float) -> bool:
        """Count a call that leaves; tell whether the next one should rather go elsewhere.

        Args:
            endpoint: whom it asks.
            model: the caller's name for it.
            in_flight: calls under way there, with this one.
            now: on the clock of `note`.

        """
        left = self._left.get((endpoint, model))
        if left is None or left.scarce or now >= left.until or not left.room.is_scarce(in_flight):
            return False
        self._left[endpoint, model] = left._replace(scarce=True, heard=now)
        return True

    def forget(self, endpoint: str) -> None:
        """Forget what was heard of an endpoint."""
        for pair in [pair for pair in self._left if pair[0] == endpoint]:
            del self._left[pair]
