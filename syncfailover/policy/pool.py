"""The pool of endpoints: who is picked, who is let out of a line, and what each result does to whom.

It is the registry without its lock: every method takes `now`, decides, and leaves events in `outbox` for its owner
to deliver. Who is there and may be asked is the roster's to say, in `roster.py`.
"""

from typing import AbstractSet, Any, Callable, Dict, Iterable, Mapping, Optional, Set, Tuple

from ..endpoint import Endpoint
from ..validation import reject
from .balancer import balancer_from
from .breaker import BreakerState
from .breaker_config import BreakerConfig
from .changes import Changes
from .health import HealthConfig, HealthStatus, ProbeResult
from .line import Line, Lines, Ticket
from .node import Attempt, Candidate, Node
from .outcome import FAILURE, KEY, PAIR, SUCCESS, Outcome
from .rate_limit import Room
from .retry import RetryBudget
from .roster import Roster
from .snapshot import ACTIVE, Snapshot
from .view import View

#: Seconds that a key rests at most, whatever a reply asks for.
_LONGEST_KEY_REST_S = 6 * 3600.0
#: A key that a callable gives is asked for again after this many seconds: it may be another one by then.
_ROTATED_KEY_REST_S = 60.0
#: A key refused by a probe rests until the probe says otherwise, or this many seconds.
_PROBED_KEY_REST_S = 3600.0

_NOBODY: AbstractSet[str] = frozenset()


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
        self.roster = Roster(endpoints, lambda endpoint: Node(endpoint, breaker, health, chance))
        self.balancer = balancer_from(balancer, chance)
        self.budget = budget
        #: Who waits for an endpoint.
        self.lines = Lines(queue_size)
        self._changes = Changes()
        #: Events that the owner delivers after releasing its lock.
        self.outbox = self._changes.outbox
        #: Names of endpoints of which there is something to tell peers.
        self.news: Set[str] = set()
        roster = self.roster
        self.endpoints, self.nodes = roster.endpoints, roster.nodes
        # What others ask, and only the roster knows.
        self.serves, self.smaller_windows = roster.serves, roster.smaller_windows
        self.may_recover, self.ready_at = roster.may_recover, roster.ready_at
        self.retry_after_s = roster.retry_after_s

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
        if wait_until is not None and self.roster.may_recover(now, model, _NOBODY, wait_until):
            return None
        return self._fail_open(now, model, affinity)

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
        if not isinstance(candidate, Candidate) or candidate.endpoint.name in exclude:
            raise reject("balancer", candidate, "pick() to return one of the candidates it was given")
        return self._grant(candidate.node, now, model, count - 1)

    def choose_same(self, now: float, model: Optional[str], name: str) -> Optional[Attempt]:
        """Take the same endpoint once more, also while this model rests there; None if it is down or busy."""
        node = self.nodes[name]
        if not node.usable(now):
            return None
        _, others = self._view(now, model).without(frozenset((name,)), None)
        return self._grant(node, now, model, others)

    def is_usable(self, name: str, now: float) -> bool:
        """Tell whether this one may be asked for some model, be it busy or not."""
        return self.nodes[name].open_to_calls(now)

    def _choose_home(
        self, now: float, model: Optional[str], affinity: Any, exclude: AbstractSet[str] = _NOBODY
    ) -> Optional[Attempt]:
        """Take the endpoint where a conversation lives, past the balancer.

        Where that is not eligible it moves; from one that is only busy, or that has little left of its rate limit
        while a peer has more, it comes back.
        """
        view = self._view(now, model)  # first: it also sets the time that homes are read by
        roster = self.roster
        node = roster.home(affinity, model)
        if node is None or node.name in exclude or not roster.may_be_asked(node, now, model):
            attempt = self.choose(now, model, exclude)
            if attempt is not None:
                attempt.affinity = affinity
            return attempt
        if node.busy() or self._has_better_peer(node, now, model, exclude):
            return self.choose(now, model, exclude)
        others = view.without(exclude, None)[1] if exclude else view.size
        return self._grant(node, now, model, others - 1, affinity)

    def _has_better_peer(
        self, node: Node, now: float, model: Optional[str], exclude: AbstractSet[str]
    ) -> bool:
        """Tell whether its rate limit is nearly used up while a peer's is not."""
        if not self.roster.is_scarce(node, now, model):
            return False
        best = self._view(now, model).without(exclude, node.priority)[0]
        return bool(best) and not self.roster.is_scarce(best[0].node, now, model)

    def _grant(
        self, node: Node, now: float, model: Optional[str], alternatives: int, affinity: Any = None
    ) -> Optional[Attempt]:
        breaker = node.breaker
        grant = breaker.acquire(now)
        if grant is None:
            return None
        node.in_flight += 1
        if grant.trial or node.busy():
            self._breaker_changed(node, now)
        roster = self.roster
        if roster.rooms.take(node.name, model, node.in_flight, now) or roster.rests.take(
            node.name, model, now
        ):
            roster.changed()
        return Attempt(node, grant, model, now, alternatives, affinity)

    def _fail_open(
        self, now: float, model: Optional[str], affinity: Any, exclude: AbstractSet[str] = _NOBODY
    ) -> Optional[Attempt]:
        """Try the earliest to reopen, never one that is forced open, drained or busy."""
        node = self.roster.first_to_reopen(now, model, exclude)
        if node is None:
            return None
        grant = node.breaker.acquire_early(now)
        node.in_flight += 1
        self._breaker_changed(node, now)
        return Attempt(node, grant, model, now, 0, affinity)

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
        elif not any(self.roster.is_only_busy(node, now, model) for node in self.roster.by_priority):
            line.shut = True
            return self._try_early(line, model, now)
        return None

    def _try_early(self, line: Line, model: Optional[str], now: float) -> Optional[Ticket]:
        if now < line.early_at:
            return None
        up = {node.name for node in self.roster.by_priority if node.up(now)}  # these asked to be left alone
        for ticket in line:
            spared = ticket.exclude | up
            attempt = self._fail_open(now, model, ticket.affinity, spared | line.tried)
            attempt = attempt or self._fail_open(now, model, ticket.affinity, spared)
            if attempt is not None:
                self.lines.let_out(line, ticket, attempt, now)
                return ticket
        return None

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
        roster = self.roster
        roster.now = now
        node, rule = attempt.node, outcome.rule
        breaker = node.breaker
        changes_view = node.busy() or breaker.state.name is BreakerState.HALF_OPEN
        node.in_flight -= 1
        if rule.breaker is SUCCESS:
            changes_view = self._answered(node, attempt, now) or changes_view
        elif rule.breaker is FAILURE:
            node.latency.observe(max(now - attempt.started, attempt.timeout_s) * 1000.0, now)
            breaker.failure(attempt.grant, now, outcome.detail)
            self.news.add(node.name)
        else:
            breaker.release(attempt.grant)
        if rule.rests is not None:
            self._rest(node, attempt.model, outcome, now)
        if room is not None:
            noted = roster.rooms.note(node.name, attempt.model, room, node.in_flight, attempt.started, now)
            changes_view = noted or changes_view
        if changes_view or breaker.changes:
            self._breaker_changed(node, now)
        if self.lines:
            self.lines.settled(attempt, succeeded=rule.breaker is SUCCESS and node.open_to_calls(now))

    def _answered(self, node: Node, attempt: Attempt, now: float) -> bool:
        """Learn from a good answer; tell whether it may change who is eligible."""
        node.answered_ms = (now - attempt.started) * 1000.0
        node.latency.observe(node.answered_ms, now)
        node.last_success = now
        node.proved_at = max(node.proved_at, attempt.started)
        breaker = node.breaker
        if breaker.failures or breaker.hearsay:
            breaker.contradict(attempt.started)
            self.news.add(node.name)
        rested = node.end_key_rest(attempt.started)
        old = node.health.status
        node.health.confirm(now)
        if old is HealthStatus.UNHEALTHY:
            self._health_changed(node, old, node.health.status, now)
        breaker.success(attempt.grant, now)
        if attempt.affinity is not None:
            self.roster.homes.settle(attempt.affinity, attempt.model, node.name, attempt.started)
        return self.roster.rests.end(node.name, attempt.model, attempt.started) or rested

    def release(self, attempt: Attempt) -> None:
        """Give an attempt back that was never made, or was cancelled."""
        if not attempt.settled:
            attempt.settled = True
            attempt.node.in_flight -= 1
            attempt.node.breaker.release(attempt.grant)
            self.roster.changed()
            if self.lines:
                self.lines.settled(attempt, succeeded=False)

    def probed(self, result: ProbeResult, now: float) -> None:
        """Let one probe change what is known."""
        node = self.nodes[result.endpoint]
        old = node.health.status
        new = node.health.observe(result, now)
        self.news.add(node.name)
        if result.key_refused:
            self._rest_key(node, _PROBED_KEY_REST_S, result.detail, now, by_probe=True)
            self.roster.changed()
        elif result.alive and node.rested_by_probe:
            node.key_rests_until, node.rested_by_probe = 0.0, False
            self.roster.changed()
        self._health_changed(node, old, new, now)
        if node.health.recovered():
            node.breaker.probes_recovered()
            self._breaker_changed(node, now)

    # Hearsay: what peers have found out, see `sharing.py`

    def heard_of_health(self, node: Node, probed_at: float, told: Mapping[str, Any], now: float) -> None:
        """Let a peer's probe change what is known."""
        old = node.health.status
        recovered = node.health.hear(probed_at, told)
        if old is HealthStatus.UNKNOWN or node.health.status is not old:
            self.roster.changed()
        self._health_changed(node, old, node.health.status, now)
        if recovered:
            node.breaker.probes_recovered()
            self._breaker_changed(node, now)

    def heard_of_breaker(self, node: Node, now: float) -> None:
        """Let what a peer told a breaker have its consequences."""
        if node.breaker.changes:
            self._breaker_changed(node, now)

    def heard_of_key(self, node: Node, until: float, reason: str, now: float, *, by_probe: bool) -> None:
        """Let a key rest on a peer's word, or use it again."""
        if until > now:
            self._rest_key(node, min(until - now, _LONGEST_KEY_REST_S), reason, now, by_probe=by_probe)
            node.key_hearsay = True
        elif node.key_hearsay:
            node.key_rests_until = 0.0
        self.roster.changed()

    def expire(self, now: float) -> None:
        """Turn what is too old into UNKNOWN."""
        for node in self.roster.by_priority:
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
            self.roster.rests.end_all(name)
            self.roster.rooms.forget(name)
        self._breaker_changed(self.nodes[name], now)

    def forget_past(self, now: float) -> None:
        """Count no request as under way, and nobody as down before now: that was another process."""
        for node in self.roster.by_priority:
            node.in_flight = 0
            node.forget_downtime(now)
        self.roster.changed()
        self.lines.clear()

    # Questions

    def withdraw_retry(self, now: float) -> bool:
        """Take one retry from the budget that all calls share, if there is one."""
        return self.budget.withdraw(now)

    def downtimes_s(self, now: float) -> Dict[str, float]:
        """Return for how many seconds each endpoint was down."""
        return {e.name: self.nodes[e.name].downtime_s(now) for e in self.endpoints}

    def snapshot(
        self, now: float, mode: str = ACTIVE, *, inherited: bool = False, state: Optional[str] = None
    ) -> Snapshot:
        """Describe every endpoint, in the caller's order."""
        self.expire(now)
        states = tuple(self.nodes[e.name].state(now) for e in self.endpoints)
        return Snapshot(states, now, mode, inherited=inherited, state=state)

    def longest_unheard(self, now: float, since: Optional[float]) -> Tuple[Optional[str], float]:
        """Return who has told nothing for the longest, where that is too long, and when to look again.

        Args:
            now: on the clock of `probed`.
            since: from when on those count that were never heard of; None where they do not.

        """
        heard = [(node.heard_at(since), node) for node in self.roster.by_priority]
        known = [(at, node.health.stale_after_s, node.name) for at, node in heard if at is not None]
        if not known:
            return None, now + 1.0
        at, stale_after_s, name = min(known)
        return (name, now) if now >= at + stale_after_s else (None, at + stale_after_s)

    # What follows from a change

    def _view(self, now: float, model: Optional[str]) -> View:
        view = self.roster.view(now, model)
        if view is not None:
            return view
        self.expire(now)
        return self.roster.look(now, model)

    def _rest(self, node: Node, model: Optional[str], outcome: Outcome, now: float) -> None:
        self.news.add(node.name)
        rule, asked_s = outcome.rule, outcome.retry_after_s or 0.0
        if rule.rests == KEY:
            rest_s = asked_s or (_ROTATED_KEY_REST_S if callable(node.endpoint.api_key) else rule.rest_s)
            self._rest_key(node, min(rest_s, _LONGEST_KEY_REST_S), outcome.detail, now, by_probe=False)
        elif rule.rests == PAIR or asked_s:
            self.roster.rests.add(node.name, model, now, asked_s or rule.rest_s)
        self.roster.changed()

    def _rest_key(self, node: Node, seconds: float, reason: str, now: float, *, by_probe: bool) -> None:
        if now >= node.key_rests_until:  # told once, however many calls and probes find it out
            self._changes.of_key(node, reason, seconds)
        node.rest_key(now, seconds, reason, by_probe=by_probe)

    def _health_changed(self, node: Node, old: HealthStatus, new: HealthStatus, now: float) -> None:
        if new is not old:
            self._changes.of_health(node, old, new, now)
            self._breaker_changed(node, now)

    def _breaker_changed(self, node: Node, now: float) -> None:
        self._changes.of_breaker(node, self.roster.by_priority, now)
        self.roster.changed()
        self.news.add(node.name)
