"""A fleet at work: what its processes share, and one run of it."""

import gc
from random import Random
from typing import NamedTuple

from syncfailover import Endpoint, FailoverRetry, Timeouts
from syncfailover.policy.breaker_config import BreakerConfig
from syncfailover.policy.health import HealthConfig

from .agenda import Agenda
from .peers import connect
from .process import Process
from .scenarios import ENDPOINTS
from .sharings import SHARINGS
from .tally import Tally
from .upstream import Upstream

#: Times its steady load that an endpoint can take.
HEADROOM = 1.5
#: Seconds that a call may take at most, and so may go on after the last one has begun.
_TIMEOUTS = Timeouts()
_RETRIES = 3
_PROBE_INTERVAL_S, _PROBE_TIMEOUT_S = 2.0, 1.0
#: Slots in a second; no news travels faster.
SLOTS = 10


class Run(NamedTuple):
    """What came of one scenario; counts are of the clients simulated, per second."""

    scenario: object
    sharing: str
    clients: int
    names: list
    calls: list
    failed: list
    #: By endpoint.
    load: list
    probes: list
    turned_away: list
    times: list
    #: By client, in seconds since the trouble began or ended, None where it never did; and attempts that met it.
    knew_s: list
    met: list
    back_s: list
    #: Where somebody was killed: when each endpoint was probed, for each store.
    probed_at: list


class World:
    """What all processes of a run have in common: time, chance, endpoints, and the options of a client."""

    def __init__(self, scenario, load_per_s, random):
        seconds = self.seconds = int(scenario.until + _TIMEOUTS.total) + 3
        self.agenda = Agenda()
        self.chance = random.random
        self.until = scenario.until
        self.trouble_at, self.mended_at = scenario.begins, scenario.ends
        self.probes = scenario.probes
        self.queue_s = scenario.queue_s
        self.timeouts = _TIMEOUTS
        self.retry = FailoverRetry(_RETRIES)
        self.balancer = "weighted"
        self.breaker = BreakerConfig()
        self.probe_interval_s, self.probe_timeout_s = _PROBE_INTERVAL_S, _PROBE_TIMEOUT_S
        self.health = HealthConfig(interval_s=_PROBE_INTERVAL_S, timeout_s=_PROBE_TIMEOUT_S)
        self.endpoints = [Endpoint(f"endpoint-{n}", f"http://{n}.test/v1") for n in range(1, ENDPOINTS + 1)]
        #: The name of the endpoint whose trouble is looked for.
        self.watched = self.endpoints[0].name
        self.tally = Tally(seconds)
        self.upstreams = {}
        for nth, endpoint in enumerate(self.endpoints):
            in_trouble = scenario.everywhere or not nth
            upstream = self.upstreams[endpoint.name] = Upstream(
                endpoint.name,
                scenario.troubles if in_trouble else (),
                capacity_per_s=HEADROOM * load_per_s / ENDPOINTS,
                probe_timeout_s=_PROBE_TIMEOUT_S,
                seconds=seconds,
                random=random,
            )
            upstream.schedule(self.agenda)

    def run(self, processes):
        """Let time pass in slots, and in each every process do what is due, one after the other.

        That is twice as quick as one agenda for all. It changes nothing for the processes, which meet only where the
        slot is too short to matter: in an endpoint's capacity, and in news that takes longer to arrive.
        """
        for process in processes:
            process.start()
        gc.collect()
        gc.disable()  # nothing here is cyclic, and looking for it takes a third of the time
        try:
            for nth in range(1, self.seconds * SLOTS):
                before = nth / SLOTS
                self.agenda.run(before)
                for process in processes:
                    process.agenda.run(before)
        finally:
            gc.enable()


def run(scenario, sharing, seed):
    """Run a scenario once; return its `Run`.

    Args:
        scenario: what happens.
        sharing: of `SHARINGS`, how processes share what they know.
        seed: of all chance.

    """
    random = Random(f"{seed} {scenario.name} {sharing}")
    rates = rates_of(scenario, random)
    world = World(scenario, sum(rates), random)
    processes = [Process(world, rate) for rate in rates]
    stores = [] if sharing == "alone" else connect(world, processes, SHARINGS[sharing])
    if scenario.killed_at is not None:
        for store in stores:
            world.agenda.at(scenario.killed_at, store.kill_probers)
    world.run(processes)
    upstreams = world.upstreams.values()
    return Run(
        scenario,
        sharing,
        len(processes),
        list(world.upstreams),
        world.tally.calls,
        world.tally.failed,
        [upstream.load for upstream in upstreams],
        [upstream.probes for upstream in upstreams],
        [upstream.turned_away for upstream in upstreams],
        world.tally.times,
        [None if p.knew_at is None else p.knew_at - scenario.begins for p in processes],
        [p.met for p in processes],
        [None if p.back_at is None else p.back_at - scenario.ends for p in processes],
        []
        if scenario.killed_at is None
        else [times for store in stores for times in store.probed_at.values()],
    )


def rates_of(scenario, random):
    """Return the calls per second of each client simulated, in random order."""
    least, most = scenario.rates
    count = max(1, round(scenario.fleet / scenario.one_in))
    if not least:
        return [0.0] * count
    rates = [least * (most / least) ** ((nth + 0.5) / count) for nth in range(count)]
    random.shuffle(rates)
    return rates
