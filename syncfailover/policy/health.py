"""Health by probes: rise and fall, degraded, stale, and the slow start after a recovery.

The rules: a check of an UNKNOWN endpoint decides at once; otherwise `fall` failed checks in a row make an endpoint
UNHEALTHY and `rise` good ones make it healthy again. A healthy endpoint whose smoothed probe latency is at or above its
own maximum is DEGRADED. What was last checked longer ago than three intervals and a timeout is UNKNOWN, which is
eligible. A call that succeeds keeps knowledge fresh, and makes UNHEALTHY UNKNOWN. Probes that failed, were it only once,
and then succeed `rise` times in a row are a recovery, told once, for the breaker.
"""

from enum import Enum
from typing import Any, Dict, Mapping, NamedTuple, Optional

from ..validation import integer, positive

#: Weight of the newest probe in the smoothed latency: about the last six probes count.
_SMOOTHING = 0.3

#: Characters of a detail that peers are told.
_LONGEST_DETAIL = 200

#: Seconds over which a recovered endpoint's weight grows back. (Envoy: slow_start_window, aggression 1.0)
SLOW_START_S = 10.0
#: Share of its weight with which a recovered endpoint begins. (Envoy: min_weight_percent)
_SLOW_START_FLOOR = 0.1


class HealthStatus(str, Enum):
    """What the probes say of an endpoint."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class ProbeResult(NamedTuple):
    """What one probe found."""

    endpoint: str
    #: Whether the host answered as something that lives.
    alive: bool
    detail: str
    #: Milliseconds until the complete answer; None where none came.
    latency_ms: Optional[float] = None
    status: Optional[int] = None
    #: Alive, but it will not take this key (401, 403).
    key_refused: bool = False


def judge(endpoint: str, status: int, latency_ms: float) -> ProbeResult:
    """Say what an HTTP status on the health path proves: 404, 405 and 429 prove that the host is alive."""
    alive, refused = status < 500, status in (401, 403)
    detail = f"HTTP {status}, the key is refused" if refused else f"HTTP {status}"
    return ProbeResult(endpoint, alive, detail, latency_ms, status, refused)


class HealthConfig:
    """The numbers of health checking, validated once and shared by all endpoints of a registry."""

    __slots__ = ("fall", "rise", "stale_after_s")

    def __init__(
        self, *, rise: int = 2, fall: int = 3, interval_s: float = 2.0, timeout_s: float = 1.0
    ) -> None:
        self.rise = integer("rise", rise, minimum=1)
        self.fall = integer("fall", fall, minimum=1)
        self.stale_after_s = 3 * positive("probe_interval", interval_s) + positive("probe_timeout", timeout_s)


class Health:
    """What is known of one endpoint from its probes."""

    __slots__ = (
        "_bad",
        "_config",
        "_failed",
        "_good",
        "_max_latency_ms",
        "checked_at",
        "detail",
        "hearsay",
        "latency_ms",
        "probed_at",
        "status",
    )

    def __init__(self, config: HealthConfig, max_latency_ms: float) -> None:
        self._config = config
        self._max_latency_ms = max_latency_ms
        self._good = 0
        self._bad = 0
        self._failed = False  # since the last recovery
        #: When a probe, or a call that succeeded, last told something.
        self.checked_at: Optional[float] = None
        #: When it was last probed, and whether it was a peer who did.
        self.probed_at: Optional[float] = None
        self.hearsay = False
        self.detail = "not checked yet"
        #: Smoothed milliseconds; None before the first answer.
        self.latency_ms: Optional[float] = None
        self.status = HealthStatus.UNKNOWN

    def observe(self, result: ProbeResult, now: float) -> HealthStatus:
        """Take in one probe; return the status that follows."""
        first = self.status is HealthStatus.UNKNOWN
        self.checked_at = self.probed_at = now
        self.hearsay = False
        self.detail = result.detail
        if result.alive:
            self._good, self._bad = self._good + 1, 0
            self._smooth(result.latency_ms)
            if first or self.status is not HealthStatus.UNHEALTHY or self._good >= self._config.rise:
                self.status = self._by_latency()
        else:
            self._good, self._bad, self._failed = 0, self._bad + 1, True
            if first or self._bad >= self._config.fall:
                self.status = HealthStatus.UNHEALTHY
        return self.status

    def told(self) -> Dict[str, Any]:
        """Return what a peer needs to know to go on from here."""
        return {
            "status": self.status.value,
            "good": self._good,
            "bad": self._bad,
            "failed": self._failed,
            "detail": self.detail[:_LONGEST_DETAIL],
            "latency_ms": self.latency_ms,
        }

    def hear(self, probed_at: float, told: Mapping[str, Any]) -> bool:
        """Go on from what a peer knows, if it probed later; tell whether that is a recovery."""
        if self.probed_at is not None and probed_at <= self.probed_at:
            return False
        recovered = self._failed and not told["failed"] and told["good"] >= self._config.rise
        self.probed_at = probed_at
        self.checked_at = max(probed_at, self.checked_at or probed_at)
        self.hearsay = True
        self.status, self.detail, self.latency_ms = told["status"], told["detail"], told["latency_ms"]
        self._good, self._bad = told["good"], told["bad"]
        self._failed = told["failed"] or (self._failed and not recovered)
        return recovered

    @property
    def stale_after_s(self) -> float:
        """Seconds after which what is known is too old to count."""
        return self._config.stale_after_s

    def recovered(self) -> bool:
        """Tell once when probes that had failed, however few, have succeeded `rise` times in a row."""
        if not (self._failed and self._good >= self._config.rise):
            return False
        self._failed = False
        return True

    def confirm(self, now: float) -> None:
        """Take a call that succeeded as a sign of life: what the probes know is not stale, or is not so."""
        if self.checked_at is not None:
            self.checked_at = now
        if self.status is HealthStatus.UNHEALTHY:
            self.status = HealthStatus.UNKNOWN
            self.detail = f"answers calls, but not its probes ({self.detail})"

    def goes_stale_at(self) -> Optional[float]:
        """Return when what is known is too old to count; None where nothing is known."""
        if self.checked_at is None or self.status is HealthStatus.UNKNOWN:
            return None
        return self.checked_at + self._config.stale_after_s

    def expire(self, now: float) -> bool:
        """Forget what is too old; tell whether anything was forgotten."""
        stale_at = self.goes_stale_at()
        if stale_at is None or now < stale_at:
            return False
        self.status = HealthStatus.UNKNOWN
        self.detail = f"last checked {now - (self.checked_at or now):.0f} s ago"
        self._good = self._bad = 0
        return True

    def _smooth(self, latency_ms: Optional[float]) -> None:
        if latency_ms is None:
            return
        old = self.latency_ms
        self.latency_ms = latency_ms if old is None else old + _SMOOTHING * (latency_ms - old)

    def _by_latency(self) -> HealthStatus:
        slow = self.latency_ms is not None and self.latency_ms >= self._max_latency_ms
        return HealthStatus.DEGRADED if slow else HealthStatus.HEALTHY


def slow_start(recovered_at: Optional[float], now: float) -> float:
    """Return the share of its weight that an endpoint has: grows linearly from the floor to 1 after a recovery."""
    if recovered_at is None:
        return 1.0
    return min(1.0, max(_SLOW_START_FLOOR, (now - recovered_at) / SLOW_START_S))
