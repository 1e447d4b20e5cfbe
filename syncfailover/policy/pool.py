"""The pool of endpoints: who is picked, and who is let out of a line.

It is the registry without its lock: every method takes `now`, decides, and leaves events in `outbox` for its owner
to deliver. Who is there and may be asked is the roster's to say, in `roster.py`; what each result does to whom is in
`knowledge.py`.
"""

from functools import partial
from typing import AbstractSet, Any, Callable, Dict, Iterable, Optional, Tuple

from ..endpoint import Endpoint
from ..validation import reject
from .balancer import balancer_from
from .breaker_config import BreakerConfig
from .health import HealthConfig
from .knowledge import Knowledge
from .line import Line, Lines, Ticket
from .node import Attempt, Candidate, Node
from .retry import RetryBudget
from .roster import Roster
from .snapshot import ACTIVE, Snapshot
from .view import View

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
        roster = self.roster
        self.knowledge = known = Knowledge(
            roster, self.lines, partial(_begin_anew, roster, self.balancer, chance)
        )
        #: Events that the owner delivers after releasing its lock.
        self.outbox = known.outbox
        # What results change, and only the knowledge knows.
        self.report, self.release, self.probed = known.report, known.release, known.probed
        self.expire, self.control = known.expire, known.control
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
            self.knowledge.breaker_changed(node, now)
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
        self.knowledge.breaker_changed(node, now)
        return Attempt(node, grant, model, now, 0, affinity)

    def _view(self, now: float, model: Optional[str]) -> View:
        view = self.roster.view(now, model)
        if view is not None:
            return view
        self.expire(now)
        return self.roster.look(now, model)

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

    # Questions, and what time changes

    def forget_past(self, now: float) -> None:
        """Count no request as under way, and nobody as down before now: that was another process."""
        self.disown()
        for node in self.roster.by_priority:
            node.in_flight = 0
            node.forget_downtime(now)
        self.lines.clear()

    def disown(self) -> None:
        """Let no breaker learn from the calls under way."""
        for node in self.roster.by_priority:
            node.breaker.disown()
        self.roster.changed()

    def failing(self, now: float) -> AbstractSet[str]:
        """Name those who have failed a moment ago, while nobody answered."""
        return self.knowledge.outage.failing(now)

    def was_just_out(self, now: float, model: Optional[str], since: float) -> bool:
        """Tell whether somebody has just found out, and after `since`, that all who could be asked for a model fail."""
        roster = self.roster
        serving = [node for node in roster.by_priority if roster.may_serve(node, model)]
        askable = [node.name for node in serving if roster.may_be_asked(node, now, model)]
        return self.knowledge.outage.was_just_total(askable, now, since)

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
            since: from when on those count that were never heard of; None where only those count that were once probed.

        """
        heard = [(node.heard_at(since), node) for node in self.roster.by_priority]
        known = [(at, node.health.stale_after_s, node.name) for at, node in heard if at is not None]
        if not known:
            return None, now + 1.0
        at, stale_after_s, name = min(known)
        return (name, now) if now >= at + stale_after_s else (None, at + stale_after_s)


def _begin_anew(roster: Roster, balancer: Any, chance: Callable[[], float]) -> None:
    """Have equals asked in an order drawn by chance, and owe nobody anything.

    A fleet of processes that saw the same outage would come back in step, each owing the same to the same endpoint.
    """
    roster.shuffle(chance)
    forget = getattr(balancer, "forget", None)
    if forget is not None:
        forget()
