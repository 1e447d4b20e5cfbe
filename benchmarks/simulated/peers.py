"""Processes that share what they know: a store in virtual time, and what `runtime/talk.py` does with its thread.

What is told and believed is the real `policy/sharing.py`; what the store keeps, and whom it tells, is as `state/` has it.
"""

from syncfailover.policy.entry import HEALTH, decoded, encoded, gist
from syncfailover.policy.sharing import Gossip
from syncfailover.state.store import Account

_NEVER = float("-inf")
#: Of the probe interval: how often leases are renewed, and how long they last, as in `runtime/talk.py`.
_RENEW, _LAST = 0.3, 0.9
#: Seconds between what wakes the thread and what it does.
_AWAKE_S = 0.005
#: The name that a group's retry budget has; there is one group to a store here.
_RETRIES = "retries"


def connect(world, processes, sharing):
    """Give each process its part in a store, and return the stores."""
    stores = []
    together = sharing.together or len(processes)
    for first in range(0, len(processes), together):
        store = Store(world, sharing)
        for process in processes[first : first + together]:
            process.peers = Peers(process, store, sharing)
        stores.append(store)
    return stores


class Store:
    """What a group of processes shares; what is written is there with the next slot of time."""

    def __init__(self, world, sharing):
        self._world = world
        self._sharing = sharing
        self._entries = {}
        self._leases = {}
        self._account = None
        self._users = set()
        self.members = []
        #: When each endpoint was probed.
        self.probed_at = {}
        #: How often anything was written.
        self.version = 0

    def write(self, entries, fences, now):
        self._world.agenda.at(now, self._keep, entries, fences)

    def _keep(self, now, entries, fences):
        news = False
        for entry in entries:
            place = (entry.endpoint, entry.kind)
            if (
                entry.kind == HEALTH
                and fences.get(entry.endpoint, 0) < self._leases.get(entry.endpoint, (0, 0))[1]
            ):
                continue
            known = self._entries.get(place)
            if known is None or entry.at > known[0].at:
                read = decoded(*place, encoded(entry), now)  # once for all who will
                self._entries[place] = (read, gist(entry))
                news = news or (gist(entry) and (known is None or known[1] != gist(entry)))
        self.version += 1
        if news and self._sharing.news_s is not None:
            self._spread(now)

    def _spread(self, now):
        soonest, latest = self._sharing.news_s
        for peers in self.members:
            peers.expect_news(now + soonest + (latest - soonest) * self._world.chance())

    def read(self):
        return [entry for entry, _ in self._entries.values()]

    def lease(self, endpoints, owner, ttl_s, now):
        granted = {}
        for endpoint in endpoints:
            holder, token, until = self._leases.get(endpoint, (None, 0, _NEVER))
            if holder is owner or until < now:
                token += holder is not owner
                self._leases[endpoint] = (owner, token, now + ttl_s)
                granted[endpoint] = token
        return granted

    def kill_probers(self, now):
        """End all processes that have a lease; they give nothing back."""
        for owner, _token, until in self._leases.values():
            if until > now:
                owner.kill(now)

    def settle(self, change, budget, owner, now):
        """Add to the account of all who have ever used it; nobody of them goes for long enough to be forgotten."""
        self._users.add(owner)
        account = Account(_RETRIES, change, budget.capacity, budget.per_second)
        amount = account.settled(self._account, now, len(self._users))
        self._account = (amount, now)
        return amount


class Peers:
    """One process's part: see `runtime/talk.py`, whose cycle this is."""

    def __init__(self, process, store, sharing):
        self._process = process
        self._store = store
        self._look_s = sharing.look_s
        self._polls = sharing.news_s is None
        self._gossip = Gossip(process.pool, process.world.chance)
        self._identities = list(self._gossip.identities.values())
        self._interval_s = process.world.probe_interval_s
        self._leases = {}
        self._leased_until = self._lease_at = self._read_at = self._settle_at = _NEVER
        self._seen = 0
        self._has_news = True
        self._next_at = _NEVER
        store.members.append(self)

    def start(self):
        """Begin at a random time: processes do not start all at once."""
        self._at(self._process.world.chance() * self._interval_s)

    def _at(self, when):
        self._next_at = when
        self._process.agenda.at(when, self._cycle)

    def expect_news(self, when):
        """Note that somebody has something to tell, and that the thread will know of it then."""
        self._process.agenda.at(when, self._wake)

    def _wake(self, now):
        self._has_news = True
        self.hurry(now)

    def hurry(self, now):
        """Have the thread look at once."""
        if self._next_at > now + _AWAKE_S:
            self._at(now + _AWAKE_S)

    def may_probe(self, name, now):
        """Tell whether it is for this process to probe an endpoint."""
        return self._gossip.identities[name] in self._leases and now < self._leased_until

    def probes(self, name, now):
        """Note that it has probed an endpoint."""
        self._store.probed_at.setdefault(name, []).append(now)

    def kill(self, now):
        """End the process."""
        self._process.ends_at = now

    def _cycle(self, now):
        process = self._process
        if now != self._next_at or process.is_over(now):
            return
        told = self._gossip.tell(now, 0.0)
        if told:
            self._store.write(told, self._leases, now)
        self._gossip.written()
        if now >= self._lease_at:
            self._renew(now)
        if self._has_news or now >= self._read_at or (self._polls and self._seen != self._store.version):
            self._hear(now)
        if now >= self._settle_at:
            self._settle_at = now + self._interval_s / 2
            budget = process.pool.budget
            budget.hear(self._store.settle(budget.tell(), budget, self, now))
        self._at(now + max(_AWAKE_S, min(self._look_s, self._lease_at - now)))

    def _hear(self, now):
        self._has_news, self._seen, self._read_at = False, self._store.version, now + self._interval_s
        self._gossip.hear(self._store.read(), now, 0.0)
        self._process.learned(now)

    def _renew(self, now):
        self._lease_at = now + _RENEW * self._interval_s
        before = self._leases if now < self._leased_until else {}
        lease_s = _LAST * self._interval_s
        self._leases = self._store.lease(self._identities, self, lease_s, now)
        self._leased_until = now + lease_s
        if set(self._leases) - set(before):
            self._process.probe_soon(now)
