"""What a registry looked like at one moment: immutable, picklable, and readable as one line."""

from typing import Dict, Iterator, Mapping, NamedTuple, Optional, Tuple

from .breaker import BreakerState
from .health import HealthStatus

#: How an endpoint is probed: by a thread of the process, or by calls that find it not heard of for too long.
ACTIVE, PASSIVE = "active", "passive"


class EndpointState(NamedTuple):
    """One endpoint in a snapshot."""

    name: str
    status: HealthStatus
    breaker: BreakerState
    #: Smoothed probe latency in milliseconds, that of the last answered call where none was probed; None before both.
    latency_ms: Optional[float]
    in_flight: int
    #: Why it is not asked now, or what was last seen of it.
    reason: str
    #: On the clock of the snapshot's `taken_at`; None where it may be asked now or no time is set.
    retry_at: Optional[float]
    priority: int
    #: Whether a call would be sent there now.
    eligible: bool


class Snapshot(Mapping[str, EndpointState]):
    """The states of all endpoints by name, in the order in which they were given."""

    __slots__ = ("_by_name", "endpoints", "inherited", "mode", "state", "taken_at")

    def __init__(
        self,
        endpoints: Tuple[EndpointState, ...],
        taken_at: float,
        mode: str = ACTIVE,
        *,
        inherited: bool = False,
        state: Optional[str] = None,
    ) -> None:
        self.endpoints = endpoints
        #: Seconds on the registry's clock.
        self.taken_at = taken_at
        #: "active" where a thread probes the endpoints, or will from the first call on; "passive" where none can run.
        self.mode = mode
        #: Whether all of it was learned by the parent of a forked process, and nothing since.
        self.inherited = inherited
        #: "shared" with other processes, "alone" while their store cannot be used, None where nothing is to be shared.
        self.state = state
        self._by_name: Dict[str, EndpointState] = {state.name: state for state in endpoints}

    def __getitem__(self, name: str) -> EndpointState:
        """Return one endpoint's state."""
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the endpoints' names."""
        return iter(self._by_name)

    def __len__(self) -> int:
        """Count the endpoints."""
        return len(self.endpoints)

    def __reduce__(self) -> Tuple[object, ...]:
        """Pickle as states and time."""
        return _snapshot, (self.endpoints, self.taken_at, self.mode, self.inherited, self.state)

    def __str__(self) -> str:
        """Say for each endpoint in one clause how it is."""
        return ", ".join(self._clause(state) for state in self.endpoints)

    def __repr__(self) -> str:
        return f"<Snapshot {self}>"

    def _clause(self, state: EndpointState) -> str:
        if state.eligible:
            latency = "" if state.latency_ms is None else f" {state.latency_ms:.0f} ms"
            return f"{state.name} {state.status.value}{latency}"
        due = "" if state.retry_at is None else f" for {state.retry_at - self.taken_at:.1f} s"
        down = state.status.value if state.status is HealthStatus.UNHEALTHY else "not used"
        word = down if state.breaker is BreakerState.CLOSED else state.breaker.value
        return f"{state.name} {word}{due} ({state.reason})"


def _snapshot(
    endpoints: Tuple[EndpointState, ...], taken_at: float, mode: str, inherited: bool, state: Optional[str]
) -> Snapshot:
    return Snapshot(endpoints, taken_at, mode, inherited=inherited, state=state)
