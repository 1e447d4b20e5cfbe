"""The registry: the pool of endpoints under one lock, and the only place where threads meet over it."""

from __future__ import annotations

import random
import threading
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
    TypeVar,
)

from ..endpoint import Endpoint, unpack_endpoint
from ..errors import NoEndpointAvailable
from ..pickling import options_given, pack_endpoints, pack_options
from ..policy.breaker_config import BreakerConfig
from ..policy.health import HealthConfig, ProbeResult
from ..policy.line import Ticket
from ..policy.node import Attempt
from ..policy.outcome import Outcome
from ..policy.pool import EndpointPool
from ..policy.rate_limit import Room
from ..policy.retry import RetryBudget
from ..policy.snapshot import ACTIVE, PASSIVE, Snapshot
from ..unpickling import reduced, unpack
from ..validation import integer, reject, true_or_false
from . import process
from .dispatch import Dispatcher
from .leftovers import Leftovers
from .queue import Queue
from .rebuilt import Identity, Rebuilt
from .state_log import log_change

Result = TypeVar("Result")

if TYPE_CHECKING:
    from .peers import Peers

_NOBODY: AbstractSet[str] = frozenset()
#: A snapshot is made anew at least this often, in seconds: time alone reopens breakers and makes probes stale.
_SNAPSHOT_AGE_S = 0.25


#: As it was when this was imported.
_TIME_SLEEP = time.sleep


def _sleep(seconds: float) -> None:
    """Look `sleep` up when it is called: gevent may have put its own there since this was imported."""
    time.sleep(seconds)


class Registry:
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
        chance: Callable[[], float] = random.random,
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
        # Everything in the pool is guarded by _lock.
        self._pool = EndpointPool(
            endpoints,
            balancer=balancer,
            breaker=breaker,
            health=health,
            budget=budget,
            chance=chance,
            queue_size=integer("queue_size", queue_size),
        )
        self.queue_size, self.retry_budget = queue_size, budget
        self.endpoints: Tuple[Endpoint, ...] = self._pool.endpoints
        self.probe_interval = probe_interval
        self.probe_timeout = probe_timeout
        self.clock = clock
        self.chance = chance
        self._sleep = _sleep if sleep is _TIME_SLEEP else sleep
        self._outbox = self._pool.outbox
        self._lines = self._pool.lines
        self._dispatcher = Dispatcher(self._outbox, log_change)
        self.on = self._dispatcher.on
        self.wants = self._dispatcher.wants
        self.emit = self._dispatcher.tell
        self._made_at = clock()
        self._snapshot = self._pool.snapshot(self._made_at)  # replaced whole under _lock, read without it
        self._leftovers = Leftovers()
        self.clear_up = self._leftovers.clear_up
        self._dirty = False  # set under _lock; a reader that sees it too late sees a snapshot a moment older
        #: Whether no thread probes, and calls do instead; the monitor says so.
        self.passive = False
        self._inherited = False  # of a parent process, and nothing was learned since
        #: Those with whom all this is shared; None for nobody.
        self.peers = None if state is None else _peers(self, self._pool, state)
        #: The monitor that all users of this registry share, held weakly; see `HealthMonitor.shared`.
        self.monitor: Callable[[], object] | None = None
        #: The connections that all who were unpickled over this registry share; see `SharedTransports.of`.
        self.transports: object = None
        self._make_locks()
        process.register(self)

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue = Queue(self._lock, self._pool, self.clock)

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
        mode = PASSIVE if self.passive else ACTIVE
        state = None if self.peers is None else self.peers.state
        return self._pool.snapshot(now, mode, inherited=self._inherited, state=state)

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

    # What the failover loop, the monitor and a `Course` ask: the pool's own methods under the lock

    def begin(
        self, now: float, model: Optional[str], affinity: Any = None, *, wait_until: Optional[float] = None
    ) -> Optional[Attempt]:
        """Choose for a fresh call; where nobody is eligible, one that may wait gets None, any other fails open."""
        process.entered()
        if self._leftovers:
            self._leftovers.clear_up()
        with self._lock:
            attempt = self._pool.begin(now, model, affinity, wait_until=wait_until)
            self._dirty = True
            if self._outbox:
                self._changed.notify_all()
        if self._outbox:
            self._tell(attempt)
        return attempt

    def choose(
        self,
        now: float,
        model: Optional[str],
        exclude: AbstractSet[str] = _NOBODY,
        within: Optional[int] = None,
    ) -> Optional[Attempt]:
        """Choose among the eligible that are not excluded."""
        with self._lock:
            attempt = self._pool.choose(now, model, exclude, within)
            self._dirty = True
            if self._outbox:
                self._changed.notify_all()
        if self._outbox:
            self._tell(attempt)
        return attempt

    def choose_same(self, now: float, model: Optional[str], name: str) -> Optional[Attempt]:
        """Choose one endpoint once more."""
        with self._lock:
            attempt = self._pool.choose_same(now, model, name)
            self._dirty = True
            self._changed.notify_all()
        self._tell(attempt)
        return attempt

    def is_usable(self, name: str, now: float) -> bool:
        """Tell whether this one may be asked at all."""
        with self._lock:
            return self._pool.is_usable(name, now)

    def report(
        self, attempt: Attempt, outcome: Outcome, now: Optional[float] = None, room: Optional[Room] = None
    ) -> None:
        """Let the result of an attempt change what is known; only the first report of an attempt counts."""
        if now is None:
            now = self.clock()
        with self._lock:
            self._pool.report(attempt, outcome, now, room)
            self._dirty, self._inherited = True, False
            if self._outbox:
                self._changed.notify_all()
            if self._lines:
                self._queue.call_next()
        if self._outbox:
            self._drain()

    def release(self, attempt: Attempt) -> None:
        """Give back an attempt without a verdict."""
        with self._lock:
            self._pool.release(attempt)
            self._dirty = True
            self._changed.notify_all()
            self._queue.call_next()

    def clear_up_later(
        self, attempt: Attempt, outcome: Outcome, room: Optional[Room], leftover: Callable[[], None]
    ) -> None:
        """Settle an attempt that the collector found, and do the rest at the next call.

        The collector may run in a thread that holds the lock; where nobody holds it, the permit is free at once.
        Listeners hear of it with the rest.
        """
        self._leftovers.add(leftover)
        if not self._lock.locked():
            with self._lock:
                self._pool.report(attempt, outcome, self.clock(), room)
                self._dirty = True
                self._queue.call_next()

    def wait_turn(self, ticket: Ticket, until: float) -> Optional[Attempt]:
        """Wait in line until it is this ticket's turn; None when its time is over, or where the line is full."""
        try:
            self._queue.stand(ticket, until, self._dispatcher.drain)
        except BaseException:
            if ticket.attempt is not None:  # its turn came just then
                self.release(ticket.attempt)
            raise
        self._dirty = True
        self._tell(ticket.attempt)
        return ticket.attempt

    def waiting(self) -> int:
        """Count the callers that stand in line now."""
        return len(self._lines)

    def probed(self, result: ProbeResult) -> None:
        """Let a probe change what is known."""
        if self._leftovers:
            self._leftovers.clear_up()
        self.decide(lambda pool: pool.probed(result, self.clock()))
        self._inherited = False

    def decide(self, what: Callable[[EndpointPool], Result]) -> Result:
        """Change what is known, and tell whoever waits for a change."""
        process.entered()
        with self._lock:
            result = what(self._pool)
            self._dirty = True
            self._changed.notify_all()
            self._queue.call_next()
        self._drain()
        return result

    def look(self, what: Callable[[EndpointPool], Result]) -> Result:
        """Ask the pool something that changes nothing which anybody waits for."""
        with self._lock:
            return what(self._pool)

    def _drain(self) -> None:
        """Deliver events, to peers first."""
        if self.peers is not None and self._outbox:
            self.peers.hurry()
        self._dispatcher.drain()

    def last_success(self, name: str) -> Optional[float]:
        """Return when a call to this endpoint last succeeded, on the registry's clock."""
        return self._pool.nodes[name].last_success

    def probed_at(self, name: str) -> Optional[float]:
        """Return when this endpoint was last probed, by whomever, on the registry's clock."""
        return self._pool.nodes[name].health.probed_at

    def longest_unheard(self, now: float, *, known_only: bool) -> Tuple[Optional[str], float]:
        """Return who was not heard of for the longest, where that is too long, and when to look again.

        Args:
            now: on the registry's clock.
            known_only: whether only those count of which something was known.

        """
        return self.look(lambda pool: pool.longest_unheard(now, None if known_only else self._made_at))

    def withdraw_retry(self, now: float) -> bool:
        """Take one retry from the budget that all calls share."""
        with self._lock:
            return self._pool.withdraw_retry(now)

    def ready_at(self, now: float, model: Optional[str], exclude: AbstractSet[str]) -> Optional[float]:
        """Return when the first that is up may be asked."""
        with self._lock:
            return self._pool.ready_at(now, model, exclude)

    def may_recover(self, now: float, model: Optional[str], exclude: AbstractSet[str], until: float) -> bool:
        """Tell whether waiting until then could help."""
        with self._lock:
            return self._pool.may_recover(now, model, exclude, until)

    def smaller_windows(self, attempt: Attempt) -> AbstractSet[str]:
        """Name those whose context window is no larger."""
        return self._pool.smaller_windows(attempt)

    def serves(self, model: Optional[str]) -> bool:
        """Tell whether any endpoint serves the model."""
        return self._pool.serves(model)

    def pause(self, until: float) -> None:
        """Wait until that time on the registry's clock."""
        left = until - self.clock()
        while left > 0:
            self._sleep(left)
            left = until - self.clock()

    def _tell(self, attempt: Attempt | None) -> None:
        """Deliver events; where a listener is interrupted, the permit that came with them is given back."""
        try:
            self._drain()
        except BaseException:
            if attempt is not None:
                self.release(attempt)
            raise

    def after_fork(self) -> None:
        """Replace the locks in a forked child; the parent's calls are not the child's."""
        self._make_locks()
        self._leftovers.forget()
        self._dispatcher.after_fork()
        self._made_at = self.clock()
        self._pool.forget_past(self._made_at)
        self._dirty = self._inherited = True

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
