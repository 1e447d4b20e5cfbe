"""Which endpoint a conversation lives at: prompt caches are worth money, so it stays while it can.

A cache knows one model's prompts, so a conversation has a home for each model that it asks for.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

from cachetools import TTLCache

#: Conversations remembered at a time.
_MOST = 10_000
#: Seconds after a conversation's last call; no provider keeps a prompt cache longer.
_IDLE_S = 3600.0
#: Seconds within which a call need not be noted again.
_FRESH_S = 60.0


class Home(NamedTuple):
    """An endpoint's name, since when it is the home, and when that was noted last."""

    endpoint: str
    since: float
    noted: float


class Homes:
    """Conversation and model -> endpoint, bounded in number and time; `now` is the owner's time of decision.

    A conversation is known by a number, the hash of what its caller named it by: two that share one share a home,
    which harms neither, and nothing of the caller's is kept or called.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._homes: Any = TTLCache(_MOST, _IDLE_S, timer=now)
        self._now = now

    def of(self, conversation: Optional[int], model: Optional[str]) -> Optional[str]:
        """Return the endpoint that answered it last, None where it is new."""
        home = self._known(conversation, model)
        return None if home is None else home.endpoint

    def settle(self, conversation: int, model: Optional[str], endpoint: str, started: float) -> None:
        """Let it live there, counting its idle time anew; an answer from before it moved does not move it back.

        Args:
            conversation: its number.
            model: the caller's name for it.
            endpoint: who answered.
            started: when the call that was answered began.

        """
        home, now = self._known(conversation, model), self._now()
        if home is None or (home.endpoint != endpoint and started >= home.since):
            self._homes[conversation, model] = Home(endpoint, now, now)
        elif home.endpoint == endpoint and now >= home.noted + _FRESH_S:
            self._homes[conversation, model] = home._replace(noted=now)

    def _known(self, conversation: Optional[int], model: Optional[str]) -> Optional[Home]:
        try:
            home: Home = self._homes[conversation, model]
        except KeyError:
            return None
        return home
