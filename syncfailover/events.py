"""What happened, as values: the ledger's entries, and the events that `client.on` delivers."""

from typing import Any, NamedTuple, Optional

#: The names that `client.on(event, callback)` accepts.
EVENTS = frozenset(
    {
        "breaker_opened",
        "breaker_closed",
        "breaker_half_opened",
        "health_changed",
        "failover",
        "attempt",
        "all_down",
        "recovered",
    },
)


class AttemptRecord(NamedTuple):
    """One line of a call's ledger: which endpoint was asked, what came of it, what it took."""

    endpoint: str
    #: The outcome's name, as in `policy/outcome.py`: "ok", "never_sent", "rate_limited", ...
    outcome: str
    #: What was seen, in words: "connect refused", "HTTP 503: server is overloaded".
    detail: str
    status: Optional[int]
    #: Seconds that the call waited before this attempt: a backoff, a Retry-After, or its turn in line.
    wait_s: float
    latency_ms: float
    #: USD; None where the price or the usage is not known.
    cost_usd: Optional[float]
    #: Whether the provider may have processed, and billed, this attempt.
    maybe_billed: bool

    def __str__(self) -> str:
        """Read as one clause of an error message."""
        return f"{self.endpoint}: {self.detail} ({self.latency_ms:.0f} ms)"


class Event(NamedTuple):
    """What a callback of `client.on` receives."""

    name: str
    #: The endpoint's name; None for events about all of them ("all_down", "recovered").
    endpoint: Optional[str]
    #: What it was and what it became, for changes of state; None otherwise.
    old: Optional[str]
    new: Optional[str]
    reason: str
    #: For "attempt" the `AttemptRecord`, for "failover" the endpoint's name that is tried next.
    data: Any = None
