"""What a store of shared health can do. It decides nothing: what entries mean is `policy/sharing.py`'s to say."""

from __future__ import annotations

from math import isfinite
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
)


class StoreError(Exception):
    """The store cannot be used now; the text says why, and holds no password."""


class StoreBusy(StoreError):
    """Somebody else is using it just now, and will be done in a moment."""


class Record(NamedTuple):
    """An entry as a store keeps it."""

    endpoint: str
    kind: str
    #: Seconds on the store's clock: when it became so, and when it is to be forgotten.
    at: float
    until: float
    data: bytes
    #: What has to differ from the last one for peers to be told at once; empty if nothing has to.
    gist: str = ""


#: Seconds for which a member of an account counts after it was last heard of.
MEMBER_S = 30.0


class Account(NamedTuple):
    """What peers earn and spend together."""

    name: str
    #: What this process adds, or takes away.
    change: float
    #: What may be in it at most for each member, and what it begins with.
    capacity: Optional[float] = None
    #: What time alone adds for each member.
    per_second: float = 0.0
    #: Who this process is among those who use it; empty where they are not counted.
    member: str = ""

    def settled(self, known: Optional[Tuple[Any, Any]], now: float, members: int = 1) -> float:
        """Return what is in it after this change.

        Args:
            known: what was in it and when, in seconds on the store's clock; None where it is new.
            now: on the same clock.
            members: how many use it.

        """
        amount, at = self.capacity or 0.0, now
        if known is not None and _is_number(known[0]) and _is_number(known[1]):
            amount, at = known
        total = amount + max(0.0, now - at) * self.per_second * members + self.change
        return max(0.0, total if self.capacity is None else min(total, self.capacity * members))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


class Store(Protocol):
    """Where peers find one another. One thread at a time uses it; every method may raise `StoreError`."""

    #: "sqlite", "redis"
    kind: str
    #: Seconds between two looks for news.
    look_s: float
    #: Whether an operation takes milliseconds whatever happens, so that a call may make one where no thread can.
    is_quick: bool

    def open(self, on_news: Callable[[], None]) -> None:
        """Connect if need be; `on_news` may be called from any thread when there is something to read."""

    def now(self) -> float:
        """Return seconds on the clock that all peers share."""

    def has_news(self) -> bool:
        """Tell whether somebody may have written since the last read; cheap."""

    def read(self, endpoints: Sequence[str]) -> List[Tuple[str, str, bytes]]:
        """Return what is known of these: endpoint, kind and data; data longer than allowed may be cut."""

    def write(self, records: Iterable[Record], fences: Mapping[str, int]) -> None:
        """Keep what is newer than what is there.

        Args:
            records: what was found out.
            fences: the tokens of this process's leases; probes of whoever has none, or has lost it since, are not kept
                while somebody else has one.

        """

    def lease(self, endpoints: Sequence[str], owner: str, ttl_s: float) -> Dict[str, int]:
        """Take or renew the right to probe, of those that nobody else has; return fencing tokens."""

    def release(self, endpoints: Sequence[str], owner: str) -> None:
        """Give up the right to probe."""

    def settle(self, accounts: Iterable[Account]) -> Dict[str, float]:
        """Add to accounts, and return what is in them by the rule of `Account.settled`."""

    def close(self) -> None:
        """Disconnect; `open` connects again."""

    def forsake(self) -> None:
        """Let go of a connection that belongs to the parent of this forked process, without a word over it."""
