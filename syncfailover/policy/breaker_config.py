"""The numbers of a circuit breaker."""

from __future__ import annotations

from ..validation import integer, number, optional_positive, positive

_JITTER = 0.1  # of the recovery timeout, so that a fleet's trials do not come in step


class BreakerConfig:
    """The numbers of a breaker, validated once and shared by all breakers of a registry."""

    __slots__ = (
        "failure_rate",
        "failure_rate_window",
        "failure_threshold",
        "half_open_lease",
        "half_open_permits",
        "max_recovery_timeout",
        "minimum_calls",
        "recovery_backoff",
        "recovery_timeout",
    )

    def __init__(
        self,
        failure_threshold: int = 3,
        recovery_timeout: float = 30.0,
        *,
        recovery_backoff: float = 1.0,
        max_recovery_timeout: float = 300.0,
        half_open_permits: int = 1,
        half_open_lease: float = 60.0,
        failure_rate: float | None = None,
        failure_rate_window: float = 30.0,
        minimum_calls: int = 20,
    ) -> None:
        self.failure_threshold = integer("failure_threshold", failure_threshold, minimum=1)
        self.recovery_timeout = positive("recovery_timeout", recovery_timeout)
        self.recovery_backoff = number("recovery_backoff", recovery_backoff, minimum=1.0)
        self.max_recovery_timeout = positive("max_recovery_timeout", max_recovery_timeout)
        self.half_open_permits = integer("half_open_permits", half_open_permits, minimum=1)
        self.half_open_lease = positive("half_open_lease", half_open_lease)
        self.failure_rate = optional_positive("failure_rate", failure_rate)
        if self.failure_rate is not None:
            number("failure_rate", failure_rate, maximum=1.0)
        self.failure_rate_window = positive("failure_rate_window", failure_rate_window)
        self.minimum_calls = integer("minimum_calls", minimum_calls, minimum=1)

    @property
    def longest_open_s(self) -> float:
        """Seconds that it stays open at most."""
        return max(self.max_recovery_timeout, self.recovery_timeout) * (1.0 + _JITTER)

    def open_for(self, failed_trials: int, chance: float) -> float:
        """Return the seconds to stay open: recovery_timeout * recovery_backoff ** failed_trials, bounded, + jitter."""
        try:
            grown = self.recovery_timeout * self.recovery_backoff**failed_trials
        except OverflowError:
            grown = self.max_recovery_timeout
        longest = max(self.max_recovery_timeout, self.recovery_timeout)
        return min(grown, longest) * (1.0 + _JITTER * chance)
