"""What a pool tells its peers, and what it believes of what they tell.

Peers are the registries of other processes with the same endpoints. Each tells what it found out itself. The rules of
belief:

- *Health*: whoever probed last is right.
- *Breaker*: a peer's OPEN opens this one, unless this process has an answer to a call that began after the peer's
  failures did: whoever has seen it answer knows better, also later. A peer's CLOSED ends what was believed on a peer's
  word; what this process found out itself it may make HALF_OPEN early, once, never CLOSED. What was believed on a
  peer's word waits a little longer for its trial, so that the peer comes first. What an operator ordered is told nobody.
- *Strikes*, failures too few to open anything, are believed by a pool that has not asked that endpoint yet: a program
  that runs for a moment goes on counting where the last one left off.
- *Key rests*, and pauses of (endpoint, model) pairs: the latest news counts.

Times in an entry are on the peers' common clock, which is `offset` seconds ahead of the pool's own.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from ..endpoint import Endpoint
from .breaker import BreakerState, Open
from .entry import BREAKER, HEALTH, KEY, LONGEST_S, RESTS, STRIKES, Entry, pairs_of, shown
from .node import Node
from .pool import EndpointPool

#: Seconds for which strikes, and the end of an outage, are remembered.
_STRIKES_S = 600.0
_NEVER = float("-inf")

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
        self._told: Dict[Tuple[str, str], Any] = {}
        self._known_at: Dict[Tuple[str, str], float] = {}
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
        """Forget what was told: a store has lost it, or it never arrived."""
        self._told.clear()
        self._knowledge.news.update(self._pool.nodes)

    def _news_of(self, node: Node, now: float, offset: float) -> List[Entry]:
        made: List[Entry] = []
        for kind, look in _TELLERS.items():
            told: Told = look(self, node, now, offset)
            place = (self.identities[node.name], kind)
            if told is None or self._told.get(place) == told[0]:
                continue
            self._told[place] = told[0]
            at = told[1] + offset
            entry = Entry(*place, at, min(told[2] + offset, at + LONGEST_S), told[3])
            self._known_at[place] = entry.at
            made.append(entry)
        return made

    def _health(self, node: Node, _now: float, _offset: float) -> Told:
        health = node.health
        if health.probed_at is None or health.hearsay:
            return None
        return health.probed_at, health.probed_at, health.probed_at + health.stale_after_s, health.told()

    def _breaker(self, node: Node, now: float, offset: float) -> Told:
        machine = node.breaker
        if machine.hearsay:
            return None
        if isinstance(machine.state, Open):
            until, since = machine.state.until, machine.failing_since or now
            reason = shown(machine.last_failure)
            value = {"open": True, "until": until + offset, "since": since + offset, "reason": reason}
            kept = until + machine.config.max_recovery_timeout
            return machine.generation, now, kept, {**value, "trials": machine.failed_trials}
        closed = machine.state.name is BreakerState.CLOSED
        talked_of = (self.identities[node.name], BREAKER) in self._known_at
        return (machine.generation, now, now + _STRIKES_S, {"open": False}) if closed and talked_of else None

    def _strikes(self, node: Node, now: float, offset: float) -> Told:
        machine = node.breaker
        failures = machine.failures if machine.state.name is BreakerState.CLOSED else 0
        told = self._told.get((self.identities[node.name], STRIKES))
        if not failures and not told:
            return None
        since = (machine.failing_since or now) + offset
        return failures, now, now + _STRIKES_S, {"failures": failures, "since": since}

    def _key(self, node: Node, now: float, offset: float) -> Told:
        if node.key_hearsay:
            return None
        rests = now < node.key_rests_until
        if not rests and not self._told.get((self.identities[node.name], KEY)):
            return None
        until = node.key_rests_until if rests else now
        reason = shown(node.rest_reason)
        value = {"until": until + offset, "by_probe": node.rested_by_probe, "reason": reason}
        return (node.key_rests_until if rests else 0.0), now, max(until, now + _STRIKES_S), value

    def _rests(self, node: Node, now: float, offset: float) -> Told:
        rests = [(model, rest) for model, rest in self._pool.roster.rests.of(node.name) if rest.until > now]
        own = frozenset((model, rest.since) for model, rest in rests if not rest.hearsay)
        if not own:
            return None
        listed = [(model, rest.since + offset, rest.until + offset, rest.nth) for model, rest in rests]
        return own, now, max(rest.until for _, rest in rests), {"pairs": pairs_of(listed)}

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
            elif entry.at > self._known_at.get(place, _NEVER) and entry.until > now + offset:
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
        elif node.proved_at <= value["since"] - offset:
            wait = machine.config.recovery_timeout * (0.05 + 0.15 * self._chance())
            until = min(value["until"] - offset, now + machine.config.longest_open_s)
            machine.hear_open(until + wait, value["since"] - offset, value["trials"], value["reason"], now)
        self._knowledge.heard_of_breaker(node, now)

    def _hear_strikes(self, node: Node, entry: Entry, _now: float, offset: float) -> None:
        if node.is_fresh():
            node.breaker.hear_strikes(entry.value["failures"], entry.value["since"] - offset)

    def _hear_key(self, node: Node, entry: Entry, now: float, offset: float) -> None:
        if node.proved_at <= entry.at - offset:
            value = entry.value
            self._knowledge.heard_of_key(
                node, value["until"] - offset, value["reason"], now, by_probe=value["by_probe"]
            )

    def _hear_rests(self, node: Node, entry: Entry, now: float, offset: float) -> None:
        rests = self._pool.roster.rests
        for model, since, until, nth in entry.value["pairs"]:
            rests.hear(node.name, model, since - offset, until - offset, nth, now)
        self._pool.roster.changed()


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
