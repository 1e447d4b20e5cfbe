"""The terms on which a client makes all its calls: how often, how long, at what cost."""

from __future__ import annotations

import logging
from copy import copy
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Union

from urllib3.util.retry import Retry

from ..policy.retry import FailoverRetry
from ..validation import number, reject
from .hedging import HedgeAfter, Hedging
from .metrics import Metrics
from .registry import Registry
from .timeouts import Timeouts

if TYPE_CHECKING:
    from decimal import Decimal

logger = logging.getLogger(__name__)

#: Stands for a value that stays as it is, where None means something.
UNCHANGED = "unchanged"
#: USD; a budget beyond it is none.
_MOST_USD = 1e12


class Terms:
    """What is the same for all calls of a client.

    Args:
        registry: whose endpoints are asked.
        timeout: seconds for a whole call, or `Timeouts`.
        max_retries: further attempts after the first, or a urllib3 `Retry`.
        queue_timeout: seconds that a call may wait in line while nobody can serve it; 0 for not at all.
        hedge_after: see `Hedging`; None for never.
        budget_usd: what all calls together may cost before the next is refused; None for no limit. Calls under way
            are not stopped, so it may be exceeded by what they cost; replies without a known price do not count.

    Raises:
        ConfigurationError: a value that cannot work; the message names field, value and what is allowed.

    """

    __slots__ = ("_owns_hedging", "budget_usd", "hedging", "metrics", "queue_s", "retry", "timeouts")

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
        self._owns_hedging = True
        self.budget_usd = _budget(budget_usd)
        if self.budget_usd is not None:
            _warn_of_unpriced(registry)
        self._count_by(Metrics(registry))

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

    @classmethod
    def again(cls, registry: Registry, options: Mapping[str, Any], metrics: Metrics) -> Terms:
        """Make them of `options()` in another process, where nobody need be warned again.

        Args:
            registry: whose endpoints are asked.
            options: of those that were there.
            metrics: what counts.

        """
        terms = cls(registry, **{**options, "budget_usd": None})
        terms.budget_usd = options["budget_usd"]
        terms._count_by(metrics)
        return terms

    def _count_by(self, metrics: Metrics) -> None:
        """Count all calls there, and their cost for peers as well."""
        self.metrics = metrics
        peers = metrics.registry.peers
        if self.budget_usd is not None and peers is not None:
            peers.accounts.spend(metrics)

    def options(self) -> Dict[str, Any]:
        """Return the keywords that make such terms."""
        return {
            "timeout": self.timeouts,
            "max_retries": self.retry,
            "queue_timeout": self.queue_s,
            "hedge_after": None if self.hedging is None else self.hedging.after,
            "budget_usd": self.budget_usd,
        }

    def changed(
        self,
        *,
        timeout: Union[float, Timeouts, None] = None,
        max_retries: Union[int, Retry, None] = None,
        queue_timeout: Optional[float] = None,
        hedge_after: HedgeAfter = UNCHANGED,
    ) -> Terms:
        """Return these with other values; counters and budget stay the same ones.

        Raises:
            ConfigurationError: a value that cannot work.

        """
        new = copy(self)
        new._owns_hedging = False
        if timeout is not None:
            new.timeouts = self.timeouts_for(timeout)
        if max_retries is not None:
            new.retry = FailoverRetry.from_value(max_retries)
        if queue_timeout is not None:
            new.queue_s = number("queue_timeout", queue_timeout, maximum=1e8)
        if hedge_after != UNCHANGED:
            new.hedging = Hedging.from_value(hedge_after, new.retry, self.hedging)
            new._owns_hedging = self.hedging is None
        elif new.hedging is not None and new.retry.ambiguous == "raise":
            allowed = "hedge_after=None beside ambiguous='raise', for a hedge sends a request twice"
            raise reject("max_retries", max_retries, allowed)
        return new

    def timeouts_for(self, timeout: Any) -> Timeouts:
        """Return the times of one call; `timeout` is what the call itself asked for."""
        return self.timeouts if timeout is None else self.timeouts.changed(timeout)

    def spent_usd(self) -> Union[int, Decimal]:
        """Return what counts against the budget: what these calls have cost, and those of peers, if there are any."""
        spent, peers = self.metrics.spent_usd(), self.metrics.registry.peers
        if peers is None:
            return spent
        from decimal import Decimal  # noqa: PLC0415 - only needed where there is a budget

        return spent + Decimal(repr(round(peers.accounts.others_usd, 6)))

    def close(self) -> None:
        """End what runs in the background."""
        if self.hedging is not None and self._owns_hedging:
            self.hedging.close()


#: The keywords of `Terms`.
OPTIONS = frozenset(Terms.__init__.__kwdefaults__ or ())


def _warn_of_unpriced(registry: Registry) -> None:
    """Say which endpoints spend no budget, since nobody knows what they cost."""
    unpriced = [endpoint.name for endpoint in registry.endpoints if endpoint.prices is None]
    if unpriced:
        logger.warning("budget_usd: %s: no prices, so their replies do not count", ", ".join(unpriced))


def _budget(value: Union[float, Decimal, None]) -> Optional[Decimal]:
    if value is None:
        return None
    from decimal import Decimal  # noqa: PLC0415 - only needed where there is a budget

    if isinstance(value, Decimal):
        if not (value.is_finite() and 0 <= value <= _MOST_USD):
            raise reject("budget_usd", value, f"a finite number of at least 0 and at most {_MOST_USD:g}")
        return value
    return Decimal(repr(number("budget_usd", value, maximum=_MOST_USD)))
