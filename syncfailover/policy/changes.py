"""Changes of state, told as events: one for each, in order, and two for all endpoints together."""

from collections import deque
from typing import Deque, Iterable

from ..events import Event
from .breaker import BreakerChange, BreakerState
from .health import HealthStatus
from .node import Node

_BREAKER_EVENTS = {
    BreakerState.OPEN: "breaker_opened",
    BreakerState.FORCED_OPEN: "breaker_opened",
    BreakerState.HALF_OPEN: "breaker_half_opened",
    BreakerState.CLOSED: "breaker_closed",
    BreakerState.DISABLED: "breaker_closed",
}


class Changes:
    """What has changed and was not told yet."""

    def __init__(self) -> None:
        #: Events that the owner of the pool delivers after releasing its lock.
        self.outbox: Deque[Event] = deque()
        self._all_down = False

    def of_health(self, node: Node, old: HealthStatus, new: HealthStatus, now: float) -> None:
        """Tell that the probes think otherwise of an endpoint."""
        self.outbox.append(Event("health_changed", node.name, old.value, new.value, node.health.detail))
        if old is HealthStatus.UNHEALTHY and new is not HealthStatus.UNKNOWN:
            node.recovered_at = now

    def of_key(self, node: Node, reason: str, seconds: float) -> None:
        """Tell that an endpoint's key is not used for a while: somebody has to see to it."""
        self.outbox.append(
            Event("key_rests", node.name, None, None, f"{reason}; not used for {seconds:.0f} s")
        )

    def of_breaker(self, node: Node, everybody: Iterable[Node], now: float) -> bool:
        """Tell what its breaker has done, and whether anybody is left; return whether a trial has closed it."""
        recovered = False
        node.note_soundness(now)
        changes, node.breaker.changes = node.breaker.changes, []
        for change in changes:
            self.outbox.append(_told(node, change))
            if change.old is BreakerState.HALF_OPEN and change.new is BreakerState.CLOSED:
                node.recovered_at, recovered = now, True
        all_down = not any(n.endpoint.weight > 0 and n.sound() for n in everybody)
        if all_down is self._all_down:
            return recovered
        self._all_down = all_down
        if all_down:
            self.outbox.append(Event("all_down", None, None, None, "no endpoint is up"))
        else:
            self.outbox.append(Event("recovered", None, None, None, f"{node.name} is up"))
        return recovered


def _told(node: Node, change: BreakerChange) -> Event:
    reason = change.reason
    if change.retry_after_s is not None:
        reason += f" (last: {node.breaker.last_failure}); next try in {change.retry_after_s:.1f} s"
    return Event(_BREAKER_EVENTS[change.new], node.name, change.old.value, change.new.value, reason)
