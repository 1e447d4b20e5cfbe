"""When each endpoint is probed next, which probes are under way, and which of those have failed by not coming back.

The rules:

- Each interval is 5 % longer or shorter by chance, so that probes of many processes drift apart; the first probe comes at
  a random time in it, and one that failed is followed by the next a little sooner than any other.
- Whoever answers again after a failure has the others that failed probed at once: they may be back, too, and one of five that is
  known to be back seconds before the others would get the load of all.
- A probe that is not back when its own deadline should have ended it *hangs*: it has failed there and then, whatever it
  is stuck in. One that still waits for a helper hangs nowhere.
- Each probe has a turn. A result that comes after its probe was given up on, or discarded, changes nothing.
- Whoever was frozen knows nothing of the probes under way: they are discarded, and everybody is probed anew. That is an
  excuse twice in a row; who has not answered before a third freeze hangs, or freezes could hide an outage for ever.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable, List, NamedTuple, Set

#: Each interval is this much longer or shorter by chance.
_JITTER = 0.05
#: Seconds that a probe may be late before it counts as hung.
GRACE_S = 0.1
#: Probes in a row that were frozen and prove nothing for it.
_EXCUSES = 2


class _Probe(NamedTuple):
    """One probe under way."""

    turn: int
    late_at: float
    #: Whether it was sent; else it waits for a helper.
    is_sent: bool = False


class Rounds:
    """The probes of some endpoints; the owner brings lock and clock.

    Args:
        names: of the endpoints.
        interval_s: seconds between two probes of one.
        timeout_s: seconds for one probe.
        chance: random numbers from 0 to 1.

    """

    def __init__(
        self, names: Iterable[str], interval_s: float, timeout_s: float, chance: Callable[[], float]
    ) -> None:
        self._interval_s = interval_s
        self._patience_s = timeout_s + GRACE_S
        self._chance = chance
        self._turns = dict.fromkeys(names, 0)
        self._due: Dict[str, float] = {}
        self._under_way: Dict[str, _Probe] = {}
        self._excused: Dict[str, int] = {}
        self._failing: Set[str] = set()  # whose last probe failed

    def begin(self, now: float) -> None:
        """Have everybody probed within an interval."""
        self._due = {name: now + self._chance() * self._interval_s for name in self._turns}

    def hurry(self, now: float, names: Iterable[str]) -> None:
        """Have these probed at once, unless they are being probed."""
        self._due.update(dict.fromkeys(names, now))

    def next_at(self, now: float) -> float:
        """Return when there is something to do; who is due already while it is probed has to wait for that."""
        waiting = [at for name, at in self._due.items() if at > now or name not in self._under_way]
        return min([*waiting, *(probe.late_at for probe in self._under_way.values())])

    def due(self, now: float) -> List[str]:
        """Return who is to be probed now; each is due again after an interval."""
        found = [name for name, at in self._due.items() if now >= at and name not in self._under_way]
        for name in found:
            self._due[name] = now + self._interval_s * (1.0 + _JITTER * (2.0 * self._chance() - 1.0))
        return found

    def take_turn(self, name: str, now: float) -> int:
        """Note that a probe is about to be sent; return its turn."""
        turn = self._turns[name] = self._turns[name] + 1
        self._under_way[name] = _Probe(turn, now + self._patience_s)
        return turn

    def sent(self, name: str, turn: int, now: float) -> None:
        """Note that a probe is on its way: from now on its time counts."""
        if self._is_expected(name, turn):
            self._under_way[name] = _Probe(turn, now + self._patience_s, is_sent=True)

    def give_up(self, now: float) -> List[str]:
        """Return whose probe hangs, and expect it no more."""
        hung = []
        for name, probe in list(self._under_way.items()):
            if now < probe.late_at:
                continue
            if probe.is_sent:
                hung.append(name)
                self._failing.add(name)
                self._end(name, failed=True)
            else:
                self._under_way[name] = probe._replace(late_at=now + self._patience_s)
        return hung

    def take_in(self, name: str, turn: int, now: float, *, alive: bool) -> bool:
        """Take in a result; tell whether it counts.

        A failure that comes when it should have counted as hung already is left to the next look, which knows whether
        all this was frozen.
        """
        if not self._is_expected(name, turn) or (not alive and now >= self._under_way[name].late_at):
            return False
        self._end(name, failed=not alive)
        if not alive:
            self._failing.add(name)
        elif name in self._failing:
            self._failing.remove(name)
            self.hurry(now, self._failing)
        return True

    def thaw(self, now: float) -> List[str]:
        """Discard what was under way, and have everybody probed now; return who has no excuse any more."""
        for name in self._under_way:
            self._excused[name] = self._excused.get(name, 0) + 1
        hung = [name for name, times in self._excused.items() if times > _EXCUSES]
        for name in hung:
            del self._excused[name]
        self._under_way.clear()
        self._due = dict.fromkeys(self._turns, now)
        return hung

    def _is_expected(self, name: str, turn: int) -> bool:
        probe = self._under_way.get(name)
        return probe is not None and probe.turn == turn

    def _end(self, name: str, *, failed: bool) -> None:
        """Expect a probe no more; after one that failed the next comes early: three are to tell within 3 intervals + timeout."""
        probe = self._under_way.pop(name)
        self._excused.pop(name, None)
        if failed:
            soon = probe.late_at - self._patience_s + self._interval_s * (1.0 - _JITTER)
            self._due[name] = min(self._due[name], soon)
