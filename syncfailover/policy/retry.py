"""How often, and after what pause: urllib3's `Retry` taught about outcomes, and the budget that stops storms."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Dict, Optional, Tuple, Union

from urllib3.util.retry import Retry

from ..validation import integer, number, one_of, positive, reject
from .outcome import Rule
from .received import NEVER_SENT

#: Attributes of ours that urllib3's `Retry.new` does not know of.
_OURS = ("ambiguous", "backoff_base_s", "backoff_cap_s", "quick_retry_after_s", "retry_after_limit_s")

#: A caller's `Retry` that leaves these alone has urllib3's default, which excludes POST; a chat is a POST.
_DEFAULT_METHODS = frozenset(getattr(Retry, "DEFAULT_ALLOWED_METHODS", ()))


#: urllib3's default, which says nothing of what the caller wants.
_NO_BACKOFF_MAX = 120


class FailoverRetry(Retry):
    """A retry policy: urllib3's counters, spent by outcome instead of by exception.

    `total`, `connect` (never sent), `read` (ambiguous) and `status` (rejected) bound the attempts after the first;
    going elsewhere after an attempt that was never sent spends only `connect`, for it costs nobody anything.
    The pause before asking the same endpoints again is min(backoff_base_s * 2**n, backoff_cap_s) * U(0.75, 1).

    Args:
        total: further attempts after the first.
        ambiguous: "failover" sends a request whose fate is unknown (reset, timeout) to one other endpoint, at the
            risk that both bill it; "raise" never does.
        backoff_base_s: seconds.
        backoff_cap_s: seconds.
        quick_retry_after_s: the longest `Retry-After` that is waited out before a priority is left, in seconds.
        retry_after_limit_s: a longer `Retry-After` is not waited for at all, in seconds.
        options: any argument of `urllib3.util.Retry`; `status_forcelist` names more statuses to fail over on,
            `allowed_methods` restricts what may be sent again at all.

    Raises:
        ConfigurationError: a number that is negative, not finite or not a number.

    """

    def __init__(
        self,
        total: Union[int, bool, None] = 3,
        *,
        ambiguous: str = "failover",
        backoff_base_s: float = 0.5,
        backoff_cap_s: float = 8.0,
        quick_retry_after_s: float = 5.0,
        retry_after_limit_s: float = 120.0,
        **options: Any,
    ) -> None:
        if total is not None and total is not False:
            integer("max_retries", total)
        for name in ("connect", "read", "status", "other"):
            if options.get(name) is not None and options[name] is not False:
                integer(name, options[name])
        try:
            super().__init__(total, **options)
            self.status_forcelist = frozenset(self.status_forcelist or ())
        except TypeError as error:
            raise reject("max_retries", options, f"arguments that urllib3's Retry takes ({error})") from None
        self.ambiguous = one_of("ambiguous", ambiguous, ("failover", "raise"))
        self.backoff_base_s = number("backoff_base_s", backoff_base_s)
        self.backoff_cap_s = number("backoff_cap_s", backoff_cap_s)
        self.quick_retry_after_s = number("quick_retry_after_s", quick_retry_after_s)
        self.retry_after_limit_s = positive("retry_after_limit_s", retry_after_limit_s)

    @classmethod
    def from_value(cls, value: Union[int, Retry, None]) -> FailoverRetry:
        """Make a policy of `max_retries`: a number, a caller's own `Retry`, or a policy already.

        Raises:
            ConfigurationError: anything else.

        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Retry):
            return cls._of_urllib3(value)
        if value is None or isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise reject("max_retries", value, "a whole number of at least 0, or a urllib3 Retry")
        return cls(value)

    @classmethod
    def _of_urllib3(cls, theirs: Retry) -> FailoverRetry:
        options: Dict[str, Any] = {}
        if theirs.backoff_factor:
            options["backoff_base_s"] = float(theirs.backoff_factor)
        if getattr(theirs, "backoff_max", _NO_BACKOFF_MAX) != _NO_BACKOFF_MAX:  # an option since urllib3 2
            options["backoff_cap_s"] = float(theirs.backoff_max)
        return cls(
            theirs.total,
            connect=theirs.connect,
            read=theirs.read,
            status=theirs.status,
            other=theirs.other,
            allowed_methods=theirs.allowed_methods,
            status_forcelist=theirs.status_forcelist,
            respect_retry_after_header=theirs.respect_retry_after_header,
            **options,
        )

    def new(self, **kw: Any) -> FailoverRetry:
        """Return a copy with some arguments changed; urllib3 calls it for each new state."""
        return super().new(**{**{name: getattr(self, name) for name in _OURS}, **kw})  # type: ignore[return-value,unused-ignore]

    def spent(self, rule: Rule, *, elsewhere: bool) -> Optional[FailoverRetry]:
        """Return the policy with one attempt fewer, None when that attempt may not be made.

        Args:
            rule: what came of the attempt before.
            elsewhere: whether the next one goes to another endpoint at once.

        """
        never_sent = rule.name == NEVER_SENT
        counter = "connect" if never_sent else "read" if rule.maybe_billed else "status"
        free = elsewhere and never_sent and bool(self.total)
        changes: Dict[str, Any] = {}
        for name in (counter,) if free else (counter, "total"):
            left = getattr(self, name)
            if left is False or (left is not None and left <= 0):
                return None
            if left is not None:
                changes[name] = left - 1
        return self.new(**changes) if changes else self

    def permits(self, method: str) -> bool:
        """Tell whether a request of this method may be sent again once it may have been received."""
        allowed = self.allowed_methods
        if not allowed or frozenset(allowed) == _DEFAULT_METHODS:
            return True
        return method.upper() in allowed

    def backoff_s(self, nth: int, chance: Callable[[], float]) -> float:
        """Return the seconds of pause before round `nth` (from 0)."""
        return min(self.backoff_base_s * 2.0 ** min(nth, 30), self.backoff_cap_s) * (0.75 + 0.25 * chance())


class RetryBudget:
    """Retries that all calls of a registry share: each call earns a fifth of one, each second a whole one.

    It begins full unless told with how many `tokens`, so that a burst of calls that meets an outage all at once is carried over; what it stops is the
    steady state in which every call is tried again and again. Attempts that were never sent are free.

    Source of the shape: Finagle's RetryBudget (20 % of calls plus a minimum per second).
    """

    __slots__ = ("_began_with", "_earned_at", "_tokens", "_untold", "capacity", "per_second", "ratio")

    def __init__(
        self,
        *,
        ratio: float = 0.2,
        per_second: float = 1.0,
        capacity: float = 100.0,
        tokens: Optional[float] = None,
    ) -> None:
        self.ratio = number("retry_budget ratio", ratio)
        self.per_second = number("retry_budget per_second", per_second)
        self.capacity = positive("retry_budget capacity", capacity)
        self._tokens = self.capacity if tokens is None else number("retry_budget tokens", tokens)
        self._began_with = self._tokens
        self._earned_at: Optional[float] = None
        #: What calls have earned and retries have taken since peers were told.
        self._untold = 0.0

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle as it was made: what was spent, and when, means nothing in another process."""
        arguments = {"ratio": self.ratio, "per_second": self.per_second, "capacity": self.capacity}
        return partial(type(self), tokens=self._began_with, **arguments), ()

    @property
    def tokens(self) -> float:
        """Retries left."""
        return self._tokens

    def deposit(self) -> None:
        """Count one call."""
        if self._tokens < self.capacity:
            self._tokens = min(self.capacity, self._tokens + self.ratio)
            self._untold += self.ratio

    def withdraw(self, now: float) -> bool:
        """Take one retry, if there is one."""
        earned_at, self._earned_at = self._earned_at, now
        if earned_at is not None:
            self._tokens = min(self.capacity, self._tokens + (now - earned_at) * self.per_second)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        self._untold -= 1.0
        return True

    @property
    def untold(self) -> float:
        """What peers have not been told yet: see `tell`."""
        return self._untold

    def tell(self) -> float:
        """Return what peers have not been told yet: what calls earned, less the retries that were taken."""
        untold, self._untold = self._untold, 0.0
        return untold

    def hear(self, tokens: float) -> None:
        """Go on from what all peers together have left."""
        self._tokens = min(self.capacity, max(0.0, tokens + self._untold))
