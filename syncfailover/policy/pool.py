"""The pool of endpoints: who is eligible, who is picked, and what each result does to whom.

It is the registry without its lock: every method takes `now`, decides, and leaves events in `outbox` for its owner
to deliver. Who is eligible is worked out once per state, not once per call: a `View` per model holds the candidates
in order of preference and the moment at which time alone will make it wrong.
"""

from collections import deque
from typing import (
    AbstractSet,
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Optional,
)

from ..endpoint import Endpoint, checked_endpoints
from ..events import Event
from ..validation import reject
from .balancer import balancer_from
from .breaker import BreakerChange, BreakerState
from .breaker_config import BreakerConfig
from .health import HealthConfig, HealthStatus, ProbeResult
from .homes import Homes
from .line import Line, Lines, Ticket
from .node import Attempt, Candidate, Node
from .outcome import FAILURE, KEY, PAIR, SUCCESS, Outcome
from .rate_limit import Room
from .rests import Rests
from .retry import RetryBudget
from .rooms import Rooms
from .snapshot import Snapshot
from .view import View, look, reopens_at

#: Views kept at a time; model names come from callers and may be without number.
_VIEWS = 128
#: Seconds that a key rests at most, whatever a reply asks for.
_LONGEST_KEY_REST_S = 6 * 3600.0
#: A key that a callable gives is asked for again after this many seconds: it may be another one by then.
_ROTATED_KEY_REST_S = 60.0
#: A key refused by a probe rests until the probe says otherwise, or this many seconds.
_PROBED_KEY_REST_S = 3600.0

_NOBODY: AbstractSet[str] = frozenset()
_FOREVER = float("inf")


class EndpointPool:
    """Endpoints with their breakers, health, rests and retry budget; pure, see the module's text.

    Raises:
        ConfigurationError: no endpoint, two of the same name, or an unknown balancer.

    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        balancer: Any,
        breaker: BreakerConfig,
        health: HealthConfig,
        budget: RetryBudget,
        chance: Callable[[], float],
        queue_size: int = 100,
    ) -> None:
        self.endpoints = checked_endpoints(endpoints)
        self.balancer = balancer_from(balancer, chance)
        self.budget = budget
        self.nodes = {e.name: Node(e, breaker, health, chance) for e in self.endpoints}
        self._by_priority = sorted(self.nodes.values(), key=lambda node: node.priority)
        #: Events that the owner delivers after releasing its lock.
        self.outbox: Deque[Event] = deque()
        self._now = 0.0
        self._views: Dict[Optional[str], View] = {}
        self._rests = Rests(self._time)
        #: What is left of what their providers allow, by endpoint and model.
        self._rooms = Rooms()
        self._homes = Homes(self._time)
        #: Who waits for an endpoint.
        self.lines = Lines(queue_size)
        self._all_down = False

    # Choosing

    def begin(
        self, now: float, model: Optional[str], affinity: Any = None, *, wait_until: Optional[float] = None
    ) -> Optional[Attempt]:
        """Choose for a fresh call.

        Where nobody is eligible, or others wait already, one that may wait gets None if that could help in time; any
        other fails open with the endpoint that reopens first.
        """
        self.budget.deposit()
        if wait_until is None or not self.lines or self.lines[model] is None:
            chosen = self.choose(now, model) if affinity is None else self._choose_home(now, model, affinity)
            if chosen is not None:
                return chosen
        if wait_until is not None and self.may_recover(now, model, _NOBODY, wait_until):
            return None
        return self._fail_open(now, model)

    def choose(
        self,
        now: float,
        model: Optional[str],
        exclude: AbstractSet[str] = _NOBODY,
        within: Optional[int] = None,
    ) -> Optional[Attempt]:
        """Pick among the eligible that are not excluded, none of a priority beyond `within`; None where none is."""
        view = self._view(now, model)
        if exclude or within is not None:
            candidates, count = view.without(exclude, within)
        else:
            candidates, count = view.first, view.size
        if not candidates:
            return None
        candidate = self.balancer.pick(candidates)
        if not isinstance(candidate, Candidate):
            raise reject("balancer", candidate, "pick() to return one of the candidates it was given")
        if exclude and candidate.endpoint.name in exclude:
            raise reject("balancer", candidate, "pick() to return one of the candidates it was given")
        return self._grant(candidate.node, now, model, count - 1)

    def choose_same(self, now: float, model: Optional[str], name: str) -> Optional[Attempt]:
        """Take the same endpoint once more, also while this model rests there; None if it is down or busy."""
        node = self.nodes[name]
        if not node.usable(now):
            return None
        _, others = self._view(now, model).without(frozenset((name,)), None)
        return self._grant(node, now, model, others)

    def _choose_home(
        self, now: float, model: Optional[str], affinity: Any, exclude: AbstractSet[str] = _NOBODY
    ) -> Optional[Attempt]:
        """Take the endpoint where a conversation lives, past the balancer.

        Where that is not eligible it moves; from one that is only busy, or that has little left of its rate limit
        while a peer has more, it comes back.
        """
        view = self._view(now, model)
        node = self.nodes.get(self._homes.of(affinity, model) or "")
        may = node is not None and node.name not in exclude and self._may_be_asked(node, now, model)
        if node is None or not may:
            attempt = self.choose(now, model, exclude)
            if attempt is not None:
                attempt.affinity = affinity
            return attempt
        if node.busy() or self._has_better_peer(node, now, model, exclude):
            return self.choose(now, model, exclude)
        others = view.without(exclude, None)[1] if exclude else view.size
        return self._grant(node, now, model, others - 1, affinity)

    def _may_be_asked(self, node: Node, now: float, model: Optional[str]) -> bool:
        """Tell whether it is eligible for the model, or would be if it were not busy."""
        return node.open_to_calls(now) and now >= self._rests.until(node.name, model)

    def _has_better_peer(
        self, node: Node, now: float, model: Optional[str], exclude: AbstractSet[str]
    ) -> bool:
        """Tell whether its rate limit is nearly used up while a peer's is not."""
        if now >= self._rooms.until(node.name, model):
            return False
        best = self._view(now, model).without(exclude, node.priority)[0]
        return bool(best) and now >= self._rooms.until(best[0].node.name, model)

    def _grant(
        self, node: Node, now: float, model: Optional[str], alternatives: int, affinity: Any = None
    ) -> Optional[Attempt]:
        breaker = node.breaker
        grant = breaker.acquire(now)
        if grant is None:
            return None
        node.in_flight += 1
        if grant.trial or node.busy():
            self._settle_breaker(node, now)
            self._views.clear()
        if self._rooms.take(node.name, model, node.in_flight, now):
            self._views.clear()
        return Attempt(node, grant, model, now, alternatives, affinity)

    def _fail_open(
        self, now: float, model: Optional[str], exclude: AbstractSet[str] = _NOBODY
    ) -> Optional[Attempt]:
        """Try the earliest to reopen, never one that is forced open, drained or busy."""
        known = [
            (reopens_at(node, self._rests, model, now), node.in_flight, order, node)
            for order, node in enumerate(self._by_priority)
            if node.name not in exclude and self._may_serve(node, model) and not node.busy()
            if node.breaker.state.name is not BreakerState.FORCED_OPEN
        ]
        if not known:
            return None
        node = min(known)[3]
        grant = node.breaker.acquire_early(now)
        node.in_flight += 1
        self._settle_breaker(node, now)
        self._views.clear()
        return Attempt(node, grant, model, now, 0)

    # Waiting

    def serve(self, model: Optional[str], now: float) -> Optional[Ticket]:
        """Let the next one out of a line, its attempt in hand; None while nobody can be."""
        line = self.lines[model]
        if line is None or line.is_held(now):
            return None
        if self._view(now, model).size:
            for ticket in line:
                attempt = self._choose_home(now, model, ticket.affinity, ticket.exclude)
                if attempt is not None:
                    self.lines.let_out(line, ticket, attempt, now)
                    return ticket
        elif not any(self._is_only_busy(node, model, now) for node in self._by_priority):
            line.shut = True
            return self._try_early(line, model, now)
        return None

    def _try_early(self, line: Line, model: Optional[str], now: float) -> Optional[Ticket]:
        if now < line.early_at:
            return None
        up = {node.name for node in self._by_priority if node.up(now)}  # these asked to be left alone
        for ticket in line:
            spared = ticket.exclude | up
            attempt = self._fail_open(now, model, spared | line.tried) or self._fail_open(now, model, spared)
            if attempt is not None:
                attempt.affinity = ticket.affinity
                self.lines.let_out(line, ticket, attempt, now)
                return ticket
        return None

    def _is_only_busy(self, node: Node, model: Optional[str], now: float) -> bool:
        """Tell whether it serves this model, and will as soon as a request under way has ended."""
        return node.busy() and self._may_serve(node, model) and self._may_be_asked(node, now, model)

    def may_recover(self, now: float, model: Optional[str], exclude: AbstractSet[str], until: float) -> bool:
        """Tell whether waiting until then could help: whether somebody serves the model and may be asked by then.

        One that is down may be back at any time, also one that is forced open; but a key without credit, and one that
        is up and asked to be left alone, are not there any sooner than they say.
        """
        return any(
            self._may_serve(node, model)
            and (node.key_rests_until <= until or node.rested_by_probe)
            and (self._rests.until(node.name, model) <= until or not node.up(now))
            for node in self._by_priority
            if node.name not in exclude
        )

    def _may_serve(self, node: Node, model: Optional[str]) -> bool:
        return node.endpoint.weight > 0 and node.endpoint.serves(model) is not None

    # Reporting

    def report(self, attempt: Attempt, outcome: Outcome, now: float, room: Optional[Room] = None) -> None:
        """Let one result change what is known; a second report of the same attempt changes nothing.

        Args:
            attempt: what was made.
            outcome: what came of it.
            now: on the clock that the attempt was begun by.
            room: what the provider says is left of its rate limit; None where it says nothing.

        """
        if attempt.settled:
            return
        attempt.settled = True
        self._now = now
        node, rule = attempt.node, outcome.rule
        breaker = node.breaker
        changes_view = node.busy() or breaker.state.name is BreakerState.HALF_OPEN
        node.in_flight -= 1
        if rule.breaker is SUCCESS:
            changes_view = self._answered(node, attempt, now) or changes_view
        elif rule.breaker is FAILURE:
            node.latency.observe(max(now - attempt.started, attempt.timeout_s) * 1000.0, now)
            breaker.failure(attempt.grant, now, outcome.detail)
        else:
            breaker.release(attempt.grant)
        if rule.rests is not None:
            self._rest(node, attempt.model, outcome, now)
        if room is not None:
            noted = self._rooms.note(node.name, attempt.model, room, node.in_flight, attempt.started, now)
            changes_view = noted or changes_view
        if changes_view or breaker.changes:
            self._settle_breaker(node, now)
            self._views.clear()
        if self.lines:
            self.lines.settled(attempt, succeeded=rule.breaker is SUCCESS and node.open_to_calls(now))

    def _answered(self, node: Node, attempt: Attempt, now: float) -> bool:
        """Learn from a good answer; tell whether it may change who is eligible."""
        node.answered_ms = (now - attempt.started) * 1000.0
        node.latency.observe(node.answered_ms, now)
        node.last_success = now
        rested, node.key_rests_until = node.key_rests_until > 0.0, 0.0
        old = node.health.status
        node.health.confirm(now)
        if old is HealthStatus.UNHEALTHY:
            self._health_changed(node, old, node.health.status, now)
        node.breaker.success(attempt.grant, now)
        if attempt.affinity is not None:
            self._homes.settle(attempt.affinity, attempt.model, node.name, attempt.started)
        return self._rests.end(node.name, attempt.model, attempt.started) or rested

    def release(self, attempt: Attempt) -> None:
        """Give an attempt back that was never made, or was cancelled."""
        if not attempt.settled:
            attempt.settled = True
            attempt.node.in_flight -= 1
            attempt.node.breaker.release(attempt.grant)
            self._views.clear()
            if self.lines:
                self.lines.settled(attempt, succeeded=False)

    def probed(self, result: ProbeResult, now: float) -> None:
        """Let one probe change what is known."""
        node = self.nodes[result.endpoint]
        old = node.health.status
        new = node.health.observe(result, now)
        if result.key_refused:
            node.rest_key(now + _PROBED_KEY_REST_S, result.detail, by_probe=True)
            self._views.clear()
        elif result.alive and node.rested_by_probe:
            node.key_rests_until, node.rested_by_probe = 0.0, False
            self._views.clear()
        self._health_changed(node, old, new, now)
        if node.health.recovered():
            node.breaker.probes_recovered()
            self._settle_breaker(node, now)
            self._views.clear()

    def expire(self, now: float) -> None:
        """Turn what is too old into UNKNOWN."""
        for node in self._by_priority:
            old = node.health.status
            if node.health.expire(now):
                self._health_changed(node, old, node.health.status, now)

    def control(self, name: str, order: str, now: float) -> None:
        """Carry out `force_open`, `disable` or `reset` on one endpoint; `reset` ends its key's rest as well."""
        if name not in self.nodes:
            raise reject("endpoint", name, "one of " + ", ".join(self.nodes))
        getattr(self.nodes[name].breaker, order)()
        if order == "reset":
            self.nodes[name].key_rests_until = 0.0
            self._rests.end_all(name)
            self._rooms.forget(name)
        self._settle_breaker(self.nodes[name], now)
        self._views.clear()

    def forget_past(self, now: float) -> None:
        """Count no request as under way, and nobody as down before now: that was another process."""
        for node in self._by_priority:
            node.in_flight = 0
            node.forget_downtime(now)
        self._views = {}
        self.lines.clear()

    # Questions

    def withdraw_retry(self, now: float) -> bool:
        """Take one retry from the budget that all calls share, if there is one."""
        return self.budget.withdraw(now)

    def serves(self, model: Optional[str]) -> bool:
        """Tell whether any endpoint serves the model."""
        return any(endpoint.serves(model) is not None for endpoint in self.endpoints)

    def smaller_windows(self, attempt: Attempt) -> AbstractSet[str]:
        """Name the endpoints whose declared context window is not larger than that of the one that refused."""
        refused = attempt.endpoint.window(attempt.model) or 0
        return {e.name for e in self.endpoints if (e.window(attempt.model) or 0) <= refused}

    def ready_at(self, now: float, model: Optional[str], exclude: AbstractSet[str]) -> Optional[float]:
        """Return when the first that is up, but rests for this model, may be asked; None where nobody is up."""
        return min(
            (
                max(now, self._rests.until(node.name, model))
                for node in self._by_priority
                if node.name not in exclude and node.endpoint.serves(model) is not None and node.usable(now)
            ),
            default=None,
        )

    def retry_after_s(self, now: float, model: Optional[str] = None) -> Optional[float]:
        """Return the seconds until the first endpoint may be asked for the model, where that is known.

        Of one that fails its probes, or is busy, it is not.
        """
        known = [node for node in self._by_priority if self._may_serve(node, model)]
        times = [(reopens_at(node, self._rests, model, now), node) for node in known]
        return min((t - now for t, node in times if now < t < _FOREVER or node.usable(now)), default=None)

    def downtimes_s(self, now: float) -> Dict[str, float]:
        """Return for how many seconds each endpoint was down."""
        return {e.name: self.nodes[e.name].downtime_s(now) for e in self.endpoints}

    def snapshot(self, now: float) -> Snapshot:
        """Describe every endpoint, in the caller's order."""
        self.expire(now)
        return Snapshot(tuple(self.nodes[e.name].state(now) for e in self.endpoints), now)

    # The view

    def _view(self, now: float, model: Optional[str]) -> View:
        self._now = now
        view = self._views.get(model)
        return self._look(now, model) if view is None or now >= view.valid_until else view

    def _look(self, now: float, model: Optional[str]) -> View:
        self.expire(now)
        view = look(self._by_priority, self._rests, self._rooms, model, now, self._time)
        if len(self._views) >= _VIEWS:
            self._views.clear()
        self._views[model] = view
        return view

    def _time(self) -> float:
        """Give the time of the decision that is being made."""
        return self._now

    def _rest(self, node: Node, model: Optional[str], outcome: Outcome, now: float) -> None:
        rule, asked_s = outcome.rule, outcome.retry_after_s or 0.0
        if rule.rests == KEY:
            rest_s = asked_s or (_ROTATED_KEY_REST_S if callable(node.endpoint.api_key) else rule.rest_s)
            node.rest_key(now + min(rest_s, _LONGEST_KEY_REST_S), outcome.detail, by_probe=False)
        elif rule.rests == PAIR or asked_s:
            self._rests.add(node.name, model, now, asked_s or rule.rest_s)
        self._views.clear()

    # Events

    def _health_changed(self, node: Node, old: HealthStatus, new: HealthStatus, now: float) -> None:
        if new is old:
            return
        self._views.clear()
        self.outbox.append(Event("health_changed", node.name, old.value, new.value, node.health.detail))
        if old is HealthStatus.UNHEALTHY and new is not HealthStatus.UNKNOWN:
            node.recovered_at = now
        self._settle_breaker(node, now)

    def _settle_breaker(self, node: Node, now: float) -> None:
        """Turn the breaker's changes into events, and see whether anybody is left."""
        node.note_soundness(now)
        changes, node.breaker.changes = node.breaker.changes, []
        for change in changes:
            self.outbox.append(_breaker_event(node, change))
            if change.old is BreakerState.HALF_OPEN and change.new is BreakerState.CLOSED:
                node.recovered_at = now
        all_down = not any(n.endpoint.weight > 0 and n.sound() for n in self._by_priority)
        if all_down is not self._all_down:
            self._all_down = all_down
            name, reason = (
                ("all_down", "no endpoint is up") if all_down else ("recovered", f"{node.name} is up")
            )
            self.outbox.append(Event(name, None, None, None, reason))


_BREAKER_EVENTS = {
    BreakerState.OPEN: "breaker_opened",
    BreakerState.FORCED_OPEN: "breaker_opened",
    BreakerState.HALF_OPEN: "breaker_half_opened",
    BreakerState.CLOSED: "breaker_closed",
    BreakerState.DISABLED: "breaker_closed",
}


def _breaker_event(node: Node, change: BreakerChange) -> Event:
    reason = change.reason
    if change.retry_after_s is not None:
        reason += f" (last: {node.breaker.last_failure}); next try in {change.retry_after_s:.1f} s"
    return Event(_BREAKER_EVENTS[change.new], node.name, change.old.value, change.new.value, reason)
