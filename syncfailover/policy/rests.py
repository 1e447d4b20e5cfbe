"""Pairs of endpoint and model that are left alone for a while: rate limits, missing models, forbidden ones."""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from cachetools import TTLCache

#: Seconds; no rest is longer, so that the cache stays bounded in time.
_LONGEST_S = 6 * 3600.0
#: Pairs remembered at a time.
_PAIRS = 4096
#: Seconds of the first rest where a reply names none, and of the longest; they double in between.
_FIRST_S, _LAST_S = 0.5, 8.0
#: Seconds for which one call has a pair to itself when its rest is over; then others may follow.
_TRIAL_S = 2.0
#: Seconds by which news has to be later, for times that were told come back a little different.
_LATER_S = 0.001


class Rest(NamedTuple):
    """Since when, until when, and for the how-manieth time in a row; on trial, somebody is finding out if it is over.

    One that was ended is kept, as long as any, with 0 for `until` and its end for `since`: it is news for peers.
    """

    since: float
    until: float
    nth: int
    on_trial: bool = False
    #: Whether it is a peer who says so.
    hearsay: bool = False


class Rests:
    """The pairs that rest now; `now` is the owner's time of decision."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._pairs: Any = TTLCache(_PAIRS, _LONGEST_S, timer=now)
        self._any = False  # len() of a TTLCache expires items; the usual answer is no
        self._changes: Dict[str, int] = {}

    def until(self, endpoint: str, model: Optional[str]) -> float:
        """Return when the pair may be asked again; 0 where it does not rest."""
        rest: Optional[Rest] = self._pairs.get((endpoint, model)) if self._any else None
        return 0.0 if rest is None else rest.until

    def add(self, endpoint: str, model: Optional[str], now: float, seconds: float) -> None:
        """Let the pair rest; for 0 seconds as long as it takes to be polite, longer each time in a row."""
        old: Optional[Rest] = self._pairs.get((endpoint, model))
        nth = 0 if old is None else old.nth
        until = now + min(seconds or _FIRST_S * 2.0 ** min(nth, 10), _LONGEST_S if seconds else _LAST_S)
        if old is not None and not old.on_trial:
            until = max(until, old.until)
        self._note(endpoint, model, Rest(now, until, nth + 1))

    def changes(self, endpoint: str) -> int:
        """Return a number that is another one as soon as there is something new about an endpoint."""
        return self._changes.get(endpoint, 0)

    def of(self, endpoint: str) -> List[Tuple[Optional[str], Rest]]:
        """Return the models that rest at an endpoint, or did."""
        if not self._any:
            return []
        return [(model, rest) for (name, model), rest in self._pairs.items() if name == endpoint]

    def hear(
        self, endpoint: str, model: Optional[str], since: float, until: float, nth: int, now: float
    ) -> None:
        """Let a pair rest on a peer's word, or no more (until 0), if that is the latest news."""
        old: Optional[Rest] = self._pairs.get((endpoint, model))
        is_news = old is None or since > old.since + _LATER_S
        if is_news and (until > now or (old is not None and not until)):
            self._note(endpoint, model, Rest(since, min(until, now + _LONGEST_S), nth, hearsay=True))

    def take(self, endpoint: str, model: Optional[str], now: float) -> bool:
        """Let one call try a pair whose rest is just over, and the others wait for it; tell whether that is so."""
        rest: Optional[Rest] = self._pairs.get((endpoint, model)) if self._any else None
        if rest is None or not rest.until or rest.on_trial or not rest.until <= now < rest.until + _TRIAL_S:
            return False
        self._pairs[endpoint, model] = rest._replace(until=now + _TRIAL_S, on_trial=True)
        return True

    def end(self, endpoint: str, model: Optional[str], started: float) -> bool:
        """Forget a pair: it has answered a call begun since it rests; tell whether there was anything to forget."""
        rest: Optional[Rest] = self._pairs.get((endpoint, model)) if self._any else None
        if rest is None or not rest.until or started < rest.since:
            return False
        self._note(endpoint, model, Rest(started, 0.0, 0))
        return True

    def _note(self, endpoint: str, model: Optional[str], rest: Rest) -> None:
        self._pairs[endpoint, model] = rest
        self._any = True
        self._changes[endpoint] = self._changes.get(endpoint, 0) + 1

    def end_all(self, endpoint: str) -> None:
        """Forget all pairs of an endpoint."""
        for pair in [pair for pair in self._pairs if pair[0] == endpoint]:
            del self._pairs[pair]
