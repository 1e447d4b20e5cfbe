"""What is known of endpoints, and what each result does to whom.

Results of calls, of probes, what peers tell and what an operator orders all come here; each may change who is eligible,
for which the roster has to look anew, and leaves an event where a state has changed.
"""

from typing import Any, Callable, Mapping, Optional, Set

from ..validation import reject
from .breaker import BreakerState
from .changes import Changes
from .health import HealthStatus, ProbeResult
from .line import Lines
from .node import Attempt, Node
from .outage import Outage
from .outcome import FAILURE, KEY, PAIR, SUCCESS, Outcome
from .rate_limit import Room
from .roster import Roster

#: Seconds that a key rests at most, whatever a reply asks for.
_LONGEST_KEY_REST_S = 6 * 3600.0
#: A key that a callable gives is asked for again after this many seconds: it may be another one by then.
_ROTATED_KEY_REST_S = 60.0
#: A key refused by a probe rests until the probe says otherwise, or this many seconds.
_PROBED_KEY_REST_S = 3600.0


class Knowledge:
    """Lets results change what is known.

    Args:
        roster: of whom.
        lines: who waits for one of them.
        recovered: called when a trial has closed somebody's breaker.

    """

    def __init__(self, roster: Roster, lines: Lines, recovered: Callable[[], None]) -> None:
        self._roster = roster
        self._recovered = recovered
        self._nodes = roster.nodes
        self._lines = lines
        self._changes = Changes()
        #: Events, in order, for whoever delivers them.
        self.outbox = self._changes.outbox
        #: Names of endpoints of which there is something to tell peers.
        self.news: Set[str] = set()
        #: Whether everybody fails.
        self.outage = Outage()

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
        roster = self._roster
        roster.now = now
        node, rule = attempt.node, outcome.rule
        breaker = node.breaker
        changes_view = node.busy() or breaker.state.name is BreakerState.HALF_OPEN
        if node.in_flight:  # else it was begun by the process that this one was forked from
            node.in_flight -= 1
        if rule.breaker is SUCCESS:
            changes_view = self._answered(node, attempt, now) or changes_view
        elif rule.breaker is FAILURE:
            node.latency.observe(max(now - attempt.started, attempt.timeout_s) * 1000.0, now)
            breaker.failure(attempt.grant, now, outcome.detail)
            self.outage.failed(node.name, now)
            self.news.add(node.name)
        else:
            breaker.release(attempt.grant)
        if rule.rests is not None:
            self._rest(node, attempt.model, outcome, now)
        if room is not None:
            noted = roster.rooms.note(node.name, attempt.model, room, node.in_flight, attempt.started, now)
            changes_view = noted or changes_view
        if changes_view or breaker.changes:
            self.breaker_changed(node, now)
        if self._lines:
            self._lines.settled(attempt, succeeded=rule.breaker is SUCCESS and node.open_to_calls(now))

    def _answered(self, node: Node, attempt: Attempt, now: float) -> bool:
        """Learn from a good answer; tell whether it may change who is eligible."""
        node.answered_ms = (now - attempt.started) * 1000.0
        node.latency.observe(node.answered_ms, now)
        node.last_success = now
        self.outage.answered()
        node.proved_at = max(node.proved_at, attempt.started)
        breaker = node.breaker
        if breaker.failures or breaker.hearsay:
            breaker.contradict(attempt.started, now)
            self.news.add(node.name)
        rested = node.end_key_rest(attempt.started, now)
        old = node.health.status
        node.health.confirm(now)
        if old is HealthStatus.UNHEALTHY:
            self._health_changed(node, old, node.health.status, now)
        breaker.success(attempt.grant, now)
        if attempt.affinity is not None:
            self._roster.homes.settle(attempt.affinity, attempt.model, node.name, attempt.started)
        if self._roster.rests.end(node.name, attempt.model, attempt.started) or rested:
            self.news.add(node.name)
            return True
        return False

    def release(self, attempt: Attempt) -> None:
        """Give an attempt back that was never made, or was cancelled."""
        if not attempt.settled:
            attempt.settled = True
            if attempt.node.in_flight:
                attempt.node.in_flight -= 1
            attempt.node.breaker.release(attempt.grant)
            self._roster.changed()
            if self._lines:
                self._lines.settled(attempt, succeeded=False)

    def probed(self, result: ProbeResult, now: float) -> None:
        """Let one probe change what is known."""
        node = self._nodes[result.endpoint]
        old = node.health.status
        new = node.health.observe(result, now)
        self.news.add(node.name)
        if result.alive:
            self.outage.alive(node.name)
        if result.key_refused:
            self._rest_key(node, _PROBED_KEY_REST_S, result.detail, now, by_probe=True)
            self._roster.changed()
        elif result.alive and node.rested_by_probe:
            node.use_key(now)
            self._roster.changed()
        self._health_changed(node, old, new, now)
        if node.health.recovered():
            node.breaker.probes_recovered()
            self.breaker_changed(node, now)

    # Hearsay: what peers have found out, see `sharing.py`

    def heard_of_health(self, node: Node, probed_at: float, told: Mapping[str, Any], now: float) -> None:
        """Let a peer's probe change what is known."""
        old = node.health.status
        recovered = node.health.hear(probed_at, told)
        if old is HealthStatus.UNKNOWN or node.health.status is not old:
            self._roster.changed()
        self._health_changed(node, old, node.health.status, now)
        if recovered:
            node.breaker.probes_recovered()
            self.breaker_changed(node, now)

    def heard_of_breaker(self, node: Node, now: float) -> None:
        """Let what a peer told a breaker have its consequences."""
        if node.breaker.changes:
            self.breaker_changed(node, now)

    def heard_of_key(
        self, node: Node, found_at: float, until: float, reason: str, now: float, *, by_probe: bool
    ) -> None:
        """Let a key rest on a peer's word, or use it again, if that is the latest news."""
        if until > now:
            self._rest_key(node, min(until - now, _LONGEST_KEY_REST_S), reason, now, by_probe=by_probe)
            node.key_rests_since, node.key_found_at = found_at, None
        elif node.key_rests_since <= found_at:
            node.use_key(None)
        self._roster.changed()

    def expire(self, now: float) -> None:
        """Turn what is too old into UNKNOWN."""
        for node in self._roster.by_priority:
            old = node.health.status
            if node.health.expire(now):
                self._health_changed(node, old, node.health.status, now)

    def control(self, name: str, order: str, now: float) -> None:
        """Carry out `force_open`, `disable` or `reset` on one endpoint; `reset` ends its key's rest as well."""
        if name not in self._nodes:
            raise reject("endpoint", name, "one of " + ", ".join(self._nodes))
        getattr(self._nodes[name].breaker, order)()
        if order == "reset":
            self._nodes[name].use_key(None)
            self._roster.rests.end_all(name)
            self._roster.rooms.forget(name)
        self.breaker_changed(self._nodes[name], now)

    # What follows from a change

    def _rest(self, node: Node, model: Optional[str], outcome: Outcome, now: float) -> None:
        self.news.add(node.name)
        rule, asked_s = outcome.rule, outcome.retry_after_s or 0.0
        if rule.rests == KEY:
            rest_s = asked_s or (_ROTATED_KEY_REST_S if callable(node.endpoint.api_key) else rule.rest_s)
            self._rest_key(node, min(rest_s, _LONGEST_KEY_REST_S), outcome.detail, now, by_probe=False)
        elif rule.rests == PAIR or asked_s:
            self._roster.rests.add(node.name, model, now, asked_s or rule.rest_s)
        self._roster.changed()

    def _rest_key(self, node: Node, seconds: float, reason: str, now: float, *, by_probe: bool) -> None:
        if now >= node.key_rests_until:  # told once, however many calls and probes find it out
            self._changes.of_key(node, reason, seconds)
        node.rest_key(now, seconds, reason, by_probe=by_probe)

    def _health_changed(self, node: Node, old: HealthStatus, new: HealthStatus, now: float) -> None:
        if new is not old:
            self._changes.of_health(node, old, new, now)
            self.breaker_changed(node, now)

    def breaker_changed(self, node: Node, now: float) -> None:
        """Let what a breaker has done have its consequences."""
        if self._changes.of_breaker(node, self._roster.by_priority, now):
            self._recovered()
        self._roster.changed()
        self.news.add(node.name)
