"""The registry: the pool of endpoints under one lock, the only place where threads meet over it, and what users ask of it."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import (
    TYPE_CHECKING,
    AbstractSet,
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Tuple,
    Type,
)

from ..endpoint import Endpoint, unpack_endpoint
from ..errors import NoEndpointAvailable
from ..pickling import options_given, pack_endpoints, pack_options
from ..policy.breaker_config import BreakerConfig
from ..policy.health import HealthConfig
from ..policy.node import Attempt
from ..policy.pool import EndpointPool
from ..policy.retry import RetryBudget
from ..policy.snapshot import ACTIVE, Snapshot
from ..unpickling import reduced, unpack
from ..validation import integer, reject, true_or_false
from . import process
from .locked_pool import LockedPool
from .rebuilt import Identity, Rebuilt

if TYPE_CHECKING:
    from .peers import Peers

_NOBODY: AbstractSet[str] = frozenset()
#: A snapshot is made anew at least this often, in seconds: time alone reopens breakers and makes probes stale.
_SNAPSHOT_AGE_S = 0.25


#: `sleep` as it was when this was imported.
_TIME_SLEEP = time.sleep


def _sleep(seconds: float) -> None:
    """Look `sleep` up when it is called: gevent may have put its own there since this was imported."""
    time.sleep(seconds)


class Registry(LockedPool):
    """Endpoints and what is known of them, shared by all threads of a process.

    Args:
        endpoints: at least one, names unique.
        balancer: "weighted", "round_robin", "lowest_latency", "least_busy", "cheapest", or any object with
            `pick(candidates) -> candidate`, called under the registry's lock.
        failure_threshold: consecutive failed calls that open an endpoint's breaker.
        recovery_timeout: seconds until an open breaker admits a trial.
        recovery_backoff: factor by which each failed trial lengthens that time.
        max_recovery_timeout: seconds.
        half_open_permits: trials at a time.
        half_open_lease: seconds after which an unsettled trial is given to somebody else.
        failure_rate: also open on this share of failures (0 to 1) over `failure_rate_window` seconds, once
            `minimum_calls` were made in them; None counts consecutive failures only.
        failure_rate_window: seconds.
        minimum_calls: see `failure_rate`.
        rise: good probes in a row that make an UNHEALTHY endpoint healthy.
        fall: failed probes in a row that make it UNHEALTHY.
        probe_interval: seconds; with `probe_timeout` it decides when knowledge is stale.
        probe_timeout: seconds.
        retry_budget: retries that all calls share; None takes 20 % of calls and one per second.
        queue_size: callers that may wait at a time while nobody can serve; see `queue_timeout` of a client.
        include_keys: whether keys, and whatever else may be a secret, travel in a pickle. Without it they are read again
            from their source where the pickle is loaded; what has no source refuses to be pickled.
        state: where health, breakers, rests and budgets are shared with other processes: "sqlite:///path" for those of
            a host, "redis://..." for a fleet; None for nowhere. See docs/sharing.md.
        clock: seconds, monotonic.
        sleep: what waits between attempts, in seconds.
        chance: random numbers from 0 to 1.

    Raises:
        ConfigurationError: no endpoint, two of one name, an unknown balancer, a number that cannot work.

    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        balancer: Any = "weighted",
        failure_threshold: int = 3,
        recovery_timeout: float = 30.0,
        recovery_backoff: float = 1.0,
        max_recovery_timeout: float = 300.0,
        half_open_permits: int = 1,
        half_open_lease: float = 60.0,
        failure_rate: Optional[float] = None,
        failure_rate_window: float = 30.0,
        minimum_calls: int = 20,
        rise: int = 2,
        fall: int = 3,
        probe_interval: float = 2.0,
        probe_timeout: float = 1.0,
        retry_budget: Optional[RetryBudget] = None,
        queue_size: int = 100,
        include_keys: bool = False,
        state: Any = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = process.chance,
    ) -> None:
        self._given = options_given(Registry.__init__, locals())
        #: Tells it from others of the same configuration, when it is unpickled twice in a process.
        self.identity = Identity()
        self.include_keys = true_or_false("include_keys", include_keys)
        breaker = BreakerConfig(
            failure_threshold,
            recovery_timeout,
            recovery_backoff=recovery_backoff,
            max_recovery_timeout=max_recovery_timeout,
            half_open_permits=half_open_permits,
            half_open_lease=half_open_lease,
            failure_rate=failure_rate,
            failure_rate_window=failure_rate_window,
            minimum_calls=minimum_calls,
        )
        health = HealthConfig(rise=rise, fall=fall, interval_s=probe_interval, timeout_s=probe_timeout)
        budget = RetryBudget() if retry_budget is None else retry_budget
        if not isinstance(budget, RetryBudget):
            raise reject("retry_budget", budget, "a RetryBudget, or None")
        for name, value in (("clock", clock), ("sleep", sleep), ("chance", chance)):
            if not callable(value):
                raise reject(name, value, "a callable")
        pool = EndpointPool(
            endpoints,
            balancer=balancer,
            breaker=breaker,
            health=health,
            budget=budget,
            chance=chance,
            queue_size=integer("queue_size", queue_size),
        )
        super().__init__(pool, clock)
        self.queue_size, self.retry_budget = queue_size, budget
        self.endpoints: Tuple[Endpoint, ...] = pool.endpoints
        self.probe_interval = probe_interval
        self.probe_timeout = probe_timeout
        self.chance = chance
        self._sleep = _sleep if sleep is _TIME_SLEEP else sleep
        self._made_at = clock()
        self._mode = ACTIVE
        if state is not None:
            self.peers = _peers(self, pool, state)
        self._snapshot = self._look(self._made_at)  # replaced whole under _lock, read without it
        #: The monitor that all users of this registry share, held weakly; see `HealthMonitor.shared`.
        self.monitor: Callable[[], object] | None = None
        #: The connections that all who were unpickled over this registry share; see `SharedTransports.of`.
        self.transports: object = None

    def __repr__(self) -> str:
        return f"<EndpointRegistry {self.snapshot()}>"

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle as its configuration; nothing that was learned travels, and no listener does."""
        endpoints = pack_endpoints(self.endpoints, include_keys=self.include_keys)
        options = pack_options(self._given, include_keys=self.include_keys)
        return reduced(type(self), _unpickled, type(self), self.identity.token(), endpoints, options)

    def __deepcopy__(self, memo: Dict[int, Any]) -> Registry:
        """Return another one of the same configuration; within a process keys need no leave to travel."""
        options = dict(self._given)
        for name in {"balancer", "retry_budget"}.intersection(
            options
        ):  # what learns; the others may be shared
            options[name] = deepcopy(options[name], memo)
        return type(self)(self.endpoints, **options)

    def __copy__(self) -> Registry:
        """Return another one, as `deepcopy` does: there is nothing that two could share."""
        return deepcopy(self)

    def __getitem__(self, name: str) -> Endpoint:
        """Return an endpoint by its name."""
        return self._pool.nodes[name].endpoint

    # What users ask

    def snapshot(self) -> Snapshot:
        """Return how everything is: immutable, and without the lock unless something changed since the last one."""
        process.entered()
        if self._leftovers:
            self._leftovers.clear_up()
        now = self.clock()
        if self._dirty or now - self._snapshot.taken_at > _SNAPSHOT_AGE_S:
            with self._lock:
                self._dirty = False
                self._snapshot = self._look(now)
                if self._outbox:
                    self._changed.notify_all()
            self._dispatcher.drain()
        return self._snapshot

    def _look(self, now: float) -> Snapshot:
        """Hold the lock when calling this."""
        state = None if self.peers is None else self.peers.state
        return self._pool.snapshot(now, self._mode, inherited=self._inherited, state=state)

    def acquire(
        self,
        exclude: Iterable[str] = (),
        deadline: Optional[float] = None,
        *,
        model: Optional[str] = None,
    ) -> Attempt:
        """Return the permit to ask one eligible endpoint once; each must be settled by `report` or `release`.

        Args:
            exclude: names of endpoints not to choose.
            deadline: wait until then, on the registry's clock, for somebody to become eligible.
            model: only endpoints that serve it.

        Raises:
            NoEndpointAvailable: nobody is eligible; the message says why for each.

        """
        process.entered()
        excluded = frozenset(exclude) if exclude else _NOBODY
        attempt = self.choose(self.clock(), model, excluded)
        while attempt is None:
            left = 0.0 if deadline is None else deadline - self.clock()
            if left <= 0:
                raise self.unavailable(model=model)
            with self._changed:
                self._changed.wait(min(left, _SNAPSHOT_AGE_S))  # time alone may make somebody eligible
            attempt = self.choose(self.clock(), model, excluded)
        return attempt

    def wait_for(self, condition: Callable[[Snapshot], bool], timeout: float) -> bool:
        """Wait until the condition holds of a snapshot, at most `timeout` seconds; tell whether it does."""
        deadline = time.monotonic() + timeout
        while not condition(self.snapshot()):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._changed:
                self._changed.wait(min(left, _SNAPSHOT_AGE_S))
        return True

    def unavailable(
        self,
        kind: Type[NoEndpointAvailable] = NoEndpointAvailable,
        what: str = "",
        *,
        model: Optional[str] = None,
        **data: Any,
    ) -> NoEndpointAvailable:
        """Make the error that says of each endpoint why it cannot be asked, and when one may be again."""
        with self._lock:
            now = self.clock()
            snapshot, retry_after = self._look(now), self._pool.retry_after_s(now, model)
        message = f"no endpoint available{what}: {snapshot}"
        return kind(message, retry_after=retry_after, snapshot=snapshot, **data)

    def uptimes_s(self) -> Dict[str, float]:
        """Return for how many seconds each endpoint was up, since the registry was made or forked."""
        process.entered()
        if self._leftovers:
            self._leftovers.clear_up()
        with self._lock:
            now = self.clock()
            return {name: now - self._made_at - down for name, down in self._pool.downtimes_s(now).items()}

    def force_open(self, name: str) -> None:
        """Send nothing to this endpoint until `reset`."""
        self._control(name, "force_open")

    def disable_breaker(self, name: str) -> None:
        """Send to this endpoint whatever its calls come to, until `reset`."""
        self._control(name, "disable")

    def reset(self, name: str) -> None:
        """Close this endpoint's breaker, forget its failures, and use its key and models again."""
        self._control(name, "reset")

    def set_mode(self, mode: str) -> None:
        """Note how the endpoints are probed, ACTIVE or PASSIVE; the monitor says so."""
        self._mode, self._dirty = mode, True

    def longest_unheard(self, now: float, since: Optional[float]) -> Tuple[Optional[str], float]:
        """Return who was not heard of for the longest, where that is too long, and when to look again.

        Args:
            now: on the registry's clock.
            since: from when on those count that were never heard of; None where they do not.

        """
        return self.look(lambda pool: pool.longest_unheard(now, since))

    def pause(self, until: float) -> None:
        """Wait until that time on the registry's clock."""
        left = until - self.clock()
        while left > 0:
            self._sleep(left)
            left = until - self.clock()

    def after_fork(self) -> None:
        """Replace the locks in a forked child, and count from now on."""
        super().after_fork()
        self._made_at = self.clock()
        self._pool.forget_past(self._made_at)

    def _control(self, name: str, order: str) -> None:
        self.decide(lambda pool: pool.control(name, order, self.clock()))


def _peers(registry: Registry, pool: EndpointPool, state: Any) -> Peers:
    from .peers import peers_at  # noqa: PLC0415 - most registries share nothing

    return peers_at(state, registry, pool)


#: What was unpickled here, so that what one task learned is known in the next.
_rebuilt: Rebuilt[Registry] = Rebuilt()


def _unpickled(
    kind: Type[Registry], token: str, endpoints: List[Dict[str, Any]], options: Dict[str, Any]
) -> Registry:
    """Return the registry that was pickled, or the one that an earlier pickle of the same one became here."""

    def make() -> Registry:
        made = kind(map(unpack_endpoint, endpoints), **unpack("the registry", options))
        made.identity = Identity(token)
        return made

    return _rebuilt.get(token, make)
