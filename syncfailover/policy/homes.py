"""Which endpoint a conversation lives at: prompt caches are worth money, so it stays while it can."""

from __future__ import annotations

from typing import Any, Callable, Hashable, Optional

from cachetools import TTLCache

#: Conversations remembered at a time.
_MOST = 10_000
#: Seconds after a conversation's last call; no provider keeps a prompt cache longer.
_IDLE_S = 3600.0


class Homes:
    """Conversation -> endpoint's name, bounded in number and time; `now` is the owner's time of decision."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._homes: Any = TTLCache(_MOST, _IDLE_S, timer=now)

    def of(self, conversation: Hashable) -> Optional[str]:
        """Return the endpoint that answered it last, None where it is new."""
        home: Optional[str] = self._homes.get(conversation)
        return home

    def settle(self, conversation: Hashable, endpoint: str) -> None:
        """Let it live there, counting its idle time anew."""
        self._homes[conversation] = endpoint
