"""The terms on which a client makes all its calls: how often, how long, at what cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional, Union

from urllib3.util.retry import Retry

from ..policy.retry import FailoverRetry
from ..validation import number, reject
from .hedging import HedgeAfter, Hedging
from .metrics import Metrics
from .registry import Registry
from .timeouts import Timeouts

if TYPE_CHECKING:
    from decimal import Decimal


class Terms:
    """What is the same for all calls of a client.

    Args:
        registry: whose endpoints are asked.
        timeout: seconds for a whole call, or `Timeouts`.
        max_retries: further attempts after the first, or a urllib3 `Retry`.
        queue_timeout: seconds that a call may wait in line while nobody can serve it; 0 for not at all.
        hedge_after: see `Hedging`; None for never.
        budget_usd: what all calls together may cost before the next is refused; None for no limit.

    Raises:
        ConfigurationError: a value that cannot work; the message names field, value and what is allowed.

    """

    __slots__ = ("budget_usd", "hedging", "metrics", "queue_s", "retry", "timeouts")

    def __init__(
        self,
        registry: Registry,
        *,
        timeout: Union[float, Timeouts] = 30.0,
        max_retries: Union[int, Retry] = 3,
        queue_timeout: float = 0.0,
        hedge_after: HedgeAfter = None,
        budget_usd: Union[float, Decimal, None] = None,
    ) -> None:
        self.retry = FailoverRetry.from_value(max_retries)
        self.timeouts = Timeouts.from_value(timeout)
        self.queue_s = number("queue_timeout", queue_timeout, maximum=1e8)
        self.hedging = Hedging.from_value(hedge_after, self.retry)
        self.budget_usd = _budget(budget_usd)
        self.metrics = Metrics(registry)

    @classmethod
    def of(cls, registry: Registry, options: Mapping[str, Any]) -> Terms:
        """Make them of keywords that may hold a wrong one.

        Raises:
            ConfigurationError: a keyword that does not exist, or a value that cannot work.

        """
        for name in options:
            if name not in OPTIONS:
                raise reject("option", name, "one of " + ", ".join(sorted(OPTIONS)))
        return cls(registry, **options)

    def timeouts_for(self, timeout: Any) -> Timeouts:
        """Return the times of one call; `timeout` is what the call itself asked for."""
        return self.timeouts if timeout is None else self.timeouts.changed(timeout)

    def close(self) -> None:
        """End what runs in the background."""
        if self.hedging is not None:
            self.hedging.close()


#: The keywords of `Terms`.
OPTIONS = frozenset(Terms.__init__.__kwdefaults__ or ())


def _budget(value: Union[float, Decimal, None]) -> Optional[Decimal]:
    if value is None:
        return None
    from decimal import Decimal  # noqa: PLC0415 - only needed where there is a budget

    if isinstance(value, Decimal) and value.is_finite() and value >= 0:
        return value
    return Decimal(repr(number("budget_usd", float(value) if isinstance(value, Decimal) else value)))
