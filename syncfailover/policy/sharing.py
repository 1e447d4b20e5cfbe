"""What a pool tells its peers, and what it believes of what they tell.

Peers are the registries of other processes with the same endpoints. Each tells what it found out itself. The rules of
belief:

- *Health*: whoever probed last is right.
- *Breaker*: a peer's OPEN opens this one, unless this process has an answer to a call that began after the peer's
  failures did: whoever has seen it answer knows better, also later, and says so. A peer's CLOSED ends what was believed
  on a peer's word; what this process found out itself it may make HALF_OPEN early, once, never CLOSED. What was believed
  on a peer's word waits a little longer for its trial, so that the peer comes first.
- *Strikes*, failures too few to open anything, are believed by a pool that has not asked that endpoint yet: a program
  that runs for a moment goes on counting where the last one left off. An answer since wipes them out.
- *Key rests*, and pauses of (endpoint, model) pairs: the latest news counts, of their beginning and of their end.

Nobody repeats what a peer told, but for pauses: all of an endpoint are one entry, and keep the time when they were found
out. What an operator ordered is told nobody.

Times in an entry are on the peers' common clock, which is `offset` seconds ahead of the pool's own. An entry has the time
when it was found out, however late it is told: a store that was away must not make old news look new.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Optional, Set, Tuple

from ..endpoint import Endpoint
from .breaker import CLOSED, Open
from .entry import BREAKER, HEALTH, KEY, LONGEST_S, MODELS, RESTS, SKEW_S, STRIKES, Entry, pairs_of, shown
from .node import Node
from .pool import EndpointPool
from .rests import Rest

#: Seconds for which strikes, and the end of an outage or a rest, are remembered.
_REMEMBERED_S = 600.0
#: Seconds by which times differ that are the same one, told and heard.
_SAME_S = 0.01
_NEVER = float("-inf")

#: Of which endpoint, by its identity, and of what kind.
Place = Tuple[str, str]
#: What makes an entry of a kind news, and its time, its end and its value; None where there is nothing to tell.
Told = Optional[Tuple[Any, float, float, Dict[str, Any]]]


def identity(endpoint: Endpoint) -> str:
    """Return what an endpoint is called among peers: the same for the same name, place and key, and no secret."""
    key = endpoint.api_key if isinstance(endpoint.api_key, str) else ""
    parts = (endpoint.name, endpoint.base_url, endpoint.health_check_path, key)
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


class Gossip:
    """One pool's share in the talk; the pool's lock guards it.

    Args:
        pool: whose.
        chance: random numbers from 0 to 1.

    """

    def __init__(self, pool: EndpointPool, chance: Callable[[], float]) -> None:
        self._pool = pool
        self._knowledge = pool.knowledge
        self._chance = chance
        #: Each endpoint's identity, by name.
        self.identities: Dict[str, str] = {e.name: identity(e) for e in pool.endpoints}
        self._nodes = {self.identities[name]: node for name, node in pool.nodes.items()}
        #: What was the latest news, and when on the pool's clock it was told; None where it was heard.
        self._told: Dict[Place, Tuple[Any, Optional[float]]] = {}
        self._lost: Set[Place] = set()  # what is to be told again
        self._known_at: Dict[Place, float] = {}
        #: By endpoint, our breaker's generation and the time of a peer's OPEN against which there is an answer.
        self._disputed: Dict[str, Tuple[int, float]] = {}
        #: By endpoint, the strikes that peers have counted, and since when.
        self._counted: Dict[str, Tuple[int, float]] = {}
        #: By endpoint, the state of its pauses when they were last looked through: there may be thousands.
        self._looked_at: Dict[str, int] = {}
        #: By endpoint, the pauses that were told once more as they were missing in what a peer told.
        self._merged: Dict[str, FrozenSet[Any]] = {}
        self._writing = False  # what was told has not arrived yet

    # Telling

    def tell(self, now: float, offset: float) -> List[Entry]:
        """Return what has been found out since this was asked last."""
        names, self._knowledge.news = self._knowledge.news, set()
        self._writing = bool(names)
        return [entry for name in names for entry in self._news_of(self._pool.nodes[name], now, offset)]

    def written(self) -> None:
        """Note that what was told has arrived."""
        self._writing = False

    def has_news(self) -> bool:
        """Tell whether something is to be told, or on its way."""
        return self._writing or bool(self._knowledge.news)

    def retell(self) -> None:
        """Tell again what was told: a store has lost it, or it never arrived."""
        self._lost = {place for place, (_news, told_at) in self._told.items() if told_at is not None}
        self._knowledge.news.update(self._pool.nodes)

    def postpone(self, now: float) -> None:
        """Note when it was found out what cannot be told now."""
        self.tell(now, 0.0)
        self.retell()

    def _news_of(self, node: Node, now: float, offset: float) -> List[Entry]:
        made: List[Entry] = []
        for kind, look in _TELLERS.items():
            place = (self.identities[node.name], kind)
            told: Told = look(self, node, now, offset)
            if told is None:
                continue
            news, at, until, value = told
            old, told_at = self._told.get(place, (None, None))
            if old == news:
                if place not in self._lost or told_at is None:
                    continue
                at = told_at
            self._told[place] = news, at
            self._lost.discard(place)
            at = round(at + offset, 6)  # as it will be read again
            self._known_at[place] = max(at, self._known_at.get(place, _NEVER))
            made.append(Entry(*place, at, round(min(until + offset, at + LONGEST_S), 6), value))
        return made

    def _health(self, node: Node, _now: float, _offset: float) -> Told:
        health = node.health
        if health.probed_at is None or health.hearsay:
            return None
        return health.probed_at, health.probed_at, health.probed_at + health.stale_after_s, health.told()

    def _breaker(self, node: Node, now: float, offset: float) -> Told:
        machine, state, found_at = node.breaker, node.breaker.state, node.breaker.found_at
        if isinstance(state, Open) and found_at is not None:
            since = found_at if machine.failing_since is None else machine.failing_since
            reason = shown(machine.last_failure)
            value = {"open": True, "until": state.until + offset, "since": since + offset, "reason": reason}
            kept = state.until + machine.config.max_recovery_timeout
            return machine.generation, found_at, kept, {**value, "trials": machine.failed_trials}
        if state is not CLOSED:
            return None
        disputed = self._disputed.get(node.name)
        if disputed is not None and disputed[0] == machine.generation:
            return disputed, now, now + _REMEMBERED_S, {"open": False}
        if found_at is None:
            return None
        return machine.generation, found_at, found_at + _REMEMBERED_S, {"open": False}

    def _strikes(self, node: Node, now: float, offset: float) -> Told:
        machine = node.breaker
        failures = machine.failures if machine.state is CLOSED else 0
        since = machine.failing_since
        if not failures or since is None:  # and if an answer has come since some were counted, that is news
            told, _at = self._told.get((self.identities[node.name], STRIKES), (None, None))
            known = (told, self._counted.get(node.name))
            failures, since = (
                0,
                max((counted[1] for counted in known if counted and counted[0]), default=None),
            )
            if since is None or node.proved_at <= since:
                return None
        value = {"failures": failures, "since": since + offset}
        return (failures, since), now, now + _REMEMBERED_S, value

    def _key(self, node: Node, now: float, offset: float) -> Told:
        found_at, until = node.key_found_at, node.key_rests_until
        if found_at is None or 0.0 < until <= now:
            return None
        reason = shown(node.rest_reason)
        value = {"until": until and until + offset, "by_probe": node.rested_by_probe, "reason": reason}
        return until, found_at, max(until, found_at + _REMEMBERED_S), value

    def _rests(self, node: Node, now: float, offset: float) -> Told:
        place, changes = (self.identities[node.name], RESTS), self._pool.roster.rests.changes(node.name)
        if self._looked_at.get(node.name) == changes and place not in self._lost:
            return None
        self._looked_at[node.name] = changes
        own, told = self._own_rests(node, now), self._told.get(place)
        if not own:
            return None
        if told is not None and own <= told[0]:  # some are over: no news
            own = told[0]
        rests = self._rests_of(node, now)
        pairs = [(model, r.since + offset, r.until and r.until + offset, r.nth) for model, r in rests]
        kept = max(max(r.until, r.since + _REMEMBERED_S) for _, r in rests)
        return own, now, kept, {"pairs": pairs_of(pairs)}

    def _rests_of(self, node: Node, now: float) -> List[Tuple[Optional[str], Rest]]:
        """Return the pauses that are on, and those that were ended a while ago."""
        rests = self._pool.roster.rests.of(node.name)
        return [(m, r) for m, r in rests if r.until > now or (not r.until and r.since > now - _REMEMBERED_S)]

    def _own_rests(self, node: Node, now: float) -> FrozenSet[Tuple[Optional[str], float]]:
        """Return whose pauses were found out here, and when."""
        return frozenset((model, r.since) for model, r in self._rests_of(node, now) if not r.hearsay)

    # Hearing

    def hear(self, entries: Iterable[Entry], now: float, offset: float) -> List[str]:
        """Let what peers tell change what is known; return the identities that nobody here has.

        Args:
            entries: as `decoded` passed them.
            now: on the pool's clock.
            offset: what the peers' clock is ahead of it.

        """
        strangers: List[str] = []
        self._pool.roster.now = now
        for entry in entries:
            node, place = self._nodes.get(entry.endpoint), (entry.endpoint, entry.kind)
            if node is None:
                strangers.append(entry.endpoint)
                continue
            known_at = self._known_at.get(place, _NEVER)
            if known_at > now + offset + SKEW_S:  # by a clock that was put back since
                known_at = _NEVER
            if entry.at > known_at and entry.until > now + offset:
                self._known_at[place] = entry.at
                _HEARERS[entry.kind](self, node, entry, now, offset)
        return strangers

    def _hear_health(self, node: Node, entry: Entry, now: float, offset: float) -> None:
        self._knowledge.heard_of_health(node, entry.at - offset, entry.value, now)

    def _hear_breaker(self, node: Node, entry: Entry, now: float, offset: float) -> None:
        machine, value = node.breaker, entry.value
        if not value["open"]:
            if machine.hear_closed():
                node.recovered_at = now
        elif node.proved_at > value["since"] - offset:
            self._disputed[node.name] = machine.generation, entry.at
            self._knowledge.news.add(node.name)
        else:
            wait = machine.config.recovery_timeout * (0.05 + 0.15 * self._chance())
            until = min(value["until"] - offset, now + machine.config.longest_open_s)
            machine.hear_open(until + wait, value["since"] - offset, value["trials"], value["reason"], now)
        self._knowledge.heard_of_breaker(node, now)

    def _hear_strikes(self, node: Node, entry: Entry, _now: float, offset: float) -> None:
        machine, failures, since = node.breaker, entry.value["failures"], entry.value["since"] - offset
        self._counted[node.name] = failures, since
        if failures and node.is_fresh():
            machine.hear_strikes(failures, since)
            self._told[entry.endpoint, STRIKES] = (machine.failures, since), None

    def _hear_key(self, node: Node, entry: Entry, now: float, offset: float) -> None:
        found_at, value = entry.at - offset, entry.value
        if node.proved_at <= found_at:
            until, reason, by_probe = value["until"] - offset, value["reason"], value["by_probe"]
            self._knowledge.heard_of_key(node, found_at, until, reason, now, by_probe=by_probe)

    def _hear_rests(self, node: Node, entry: Entry, now: float, offset: float) -> None:
        rests, pairs = self._pool.roster.rests, entry.value["pairs"]
        for model, since, until, nth in pairs:
            rests.hear(node.name, model, since - offset, until and until - offset, nth, now)
        self._pool.roster.changed()
        own = self._own_rests(node, now)
        if len(pairs) == MODELS or own == self._merged.get(node.name):
            return
        told = [(model, since - offset) for model, since, _until, _nth in pairs]
        if not all(any(m == model and abs(at - since) < _SAME_S for m, at in told) for model, since in own):
            # Whoever told this had not heard yet what was told here, and has written over it.
            self._merged[node.name] = own
            self._told.pop((entry.endpoint, RESTS), None)
            self._looked_at.pop(node.name, None)
            self._knowledge.news.add(node.name)


_TELLERS = {
    HEALTH: Gossip._health,
    BREAKER: Gossip._breaker,
    STRIKES: Gossip._strikes,
    KEY: Gossip._key,
    RESTS: Gossip._rests,
}
_HEARERS = {
    HEALTH: Gossip._hear_health,
    BREAKER: Gossip._hear_breaker,
    STRIKES: Gossip._hear_strikes,
    KEY: Gossip._hear_key,
    RESTS: Gossip._hear_rests,
}
