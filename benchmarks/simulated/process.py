"""One process with one client: the real pool, and around it what `runtime/` does with threads, in virtual time."""

from math import log

from syncfailover.policy.course import Course
from syncfailover.policy.node import Attempt
from syncfailover.policy.outcome import SUCCEEDED
from syncfailover.policy.pool import EndpointPool
from syncfailover.policy.retry import RetryBudget
from syncfailover.policy.rounds import Rounds
from syncfailover.policy.steps import Pause, Wait

from .agenda import Agenda

#: Seconds between two looks of the first in line; see `runtime/queue.py`.
_LOOK_S = 0.25
#: Seconds between two looks for probes at least.
_LEAST_S = 0.001


class Process:
    """One of the clients.

    Args:
        world: what all of them share; see `fleet.py`.
        rate_per_s: calls per second, at random (a Poisson process).

    """

    def __init__(self, world, rate_per_s):
        self.world = world
        self.rate_per_s = rate_per_s
        self.agenda = Agenda()
        #: When it begins nothing any more.
        self.ends_at = world.until
        self.pool = EndpointPool(
            world.endpoints,
            balancer=world.balancer,
            breaker=world.breaker,
            health=world.health,
            budget=RetryBudget(),
            chance=world.chance,
        )
        #: Its part in what processes share; None where it is alone.
        self.peers = None
        self._rounds = Rounds(world.upstreams, world.probe_interval_s, world.probe_timeout_s, world.chance)
        self._look_at = None
        #: When it first knew of the trouble, and how many of its attempts had met it by then.
        self.knew_at, self.met = None, 0
        #: When the endpoint that had been in trouble first answered one of its calls again.
        self.back_at = None
        self._looking = False

    def start(self):
        """Make the first call and the first probes, each at a random time."""
        world = self.world
        if self.rate_per_s:
            self.agenda.at(self._gap_s(), self._call)
        if world.probes:
            self._rounds.begin(0.0)
            self._look_in_time(0.0)
        if self.peers is not None:
            self.peers.start()

    def _gap_s(self):
        return -log(1.0 - self.world.chance()) / self.rate_per_s

    def _call(self, now):
        if not self.is_over(now):
            self.agenda.at(now + self._gap_s(), self._call)
            Call(self, now).begin(now)

    def is_over(self, now):
        """Tell whether it does nothing any more."""
        return now >= self.ends_at

    # What the monitor does

    def _look_in_time(self, now):
        """Look again when there is something to do; whoever is due while it is being probed waits for that."""
        self._look_at = max(self._rounds.next_at(now), now + _LEAST_S)
        self.agenda.at(self._look_at, self._look)

    def probe_soon(self, now):
        """Probe now whoever was not probed for an interval: nobody else does any more."""
        known = [(name, node.health.probed_at) for name, node in self.pool.nodes.items()]
        interval_s = self.world.probe_interval_s
        self._rounds.hurry(now, [name for name, at in known if at is None or now - at >= interval_s])
        self._look_in_time(now)

    def _look(self, now):
        if now != self._look_at or self.is_over(now):
            return
        for name in self._rounds.due(now):
            if self.peers is None or self.peers.may_probe(name, now):
                self._probe(now, name)
        self._look_in_time(now)

    def _probe(self, now, name):
        if self.peers is not None:
            self.peers.probes(name, now)
        turn = self._rounds.take_turn(name, now)
        self._rounds.sent(name, turn, now)
        ends, result = self.world.upstreams[name].probe(now)
        self.agenda.at(ends, self._probed, result, turn)

    def _probed(self, now, result, turn):
        if self._rounds.take_in(result.endpoint, turn, now, alive=result.alive):
            self._look_in_time(now)
            self.pool.probed(result, now)
            self.learned(now)

    # What follows from news of any kind

    def learned(self, now):
        """Look what has changed, and whom in line that helps."""
        outbox = self.pool.outbox
        if outbox and self.peers is not None:
            self.peers.hurry(now)
        while outbox:
            self._heed(outbox.popleft(), now)
        if self.pool.lines:
            self._serve(now)

    def _heed(self, event, now):
        if self.knew_at is not None or event.endpoint != self.world.watched or now < self.world.trouble_at:
            return
        if event.name == "breaker_opened" or event.new == "unhealthy":
            self.knew_at = now

    # The line

    def stand(self, ticket, until, call, now):
        """Let a call wait in line."""
        ticket.attempt, ticket.turn = None, call
        ticket.refused = not self.pool.lines.join(ticket, now)
        if ticket.refused:
            call.served(now, None)
            return
        self.agenda.at(until, self._gives_up, ticket)
        self._serve(now)
        if not self._looking:
            self._look_again(now)

    def _serve(self, now):
        ticket = self.pool.serve(None, now)
        while ticket is not None:
            self.agenda.at(now, ticket.turn.served, ticket.attempt)
            ticket = self.pool.serve(None, now)

    def _gives_up(self, now, ticket):
        if ticket.waiting:
            self.pool.lines.leave(ticket)
            ticket.turn.served(now, None)

    def _look_again(self, now):
        self._looking = len(self.pool.lines) > 0
        if self._looking:
            self.learned(now)
            self.agenda.at(now + _LOOK_S, self._look_again)


class Call:
    """One call under way, as `runtime/failover.py` carries it."""

    __slots__ = ("_began", "_course", "_process")

    def __init__(self, process, now):
        world = process.world
        self._process = process
        self._began = now
        self._course = Course(
            process.pool,
            world.retry,
            None,
            now + world.timeouts.total,
            read_s=world.timeouts.read,
            chance=world.chance,
            queue_s=world.queue_s,
        )

    def begin(self, now):
        self._process.world.tally.began(now)
        self._take(self._course.begin(now), now)

    def _take(self, step, now):
        process = self._process
        if type(step) is Attempt:
            world = process.world
            self._course.limit(step, now)
            upstream = world.upstreams[step.endpoint.name]
            if process.knew_at is None and upstream.trouble.kind and step.endpoint.name == world.watched:
                process.met += 1
            ends, outcome = upstream.ask(now, step.timeout_s)
            process.agenda.at(ends, self._settle, step, outcome)
        elif type(step) is Pause:
            process.agenda.at(step.until, self._resume)
        elif type(step) is Wait:
            process.stand(step.ticket, step.until, self, now)
        else:
            process.world.tally.ended(self._began, now, succeeded=False)
        if process.pool.outbox:
            process.learned(now)

    def _settle(self, now, attempt, outcome):
        process = self._process
        process.pool.report(attempt, outcome, now)
        if outcome is SUCCEEDED:
            world = process.world
            world.tally.ended(self._began, now, succeeded=True)
            if process.back_at is None and now > world.mended_at and attempt.endpoint.name == world.watched:
                process.back_at = now
        else:
            self._take(self._course.after(attempt, outcome, now), now)
        if process.pool.outbox or process.pool.lines:
            process.learned(now)

    def _resume(self, now):
        self._take(self._course.resume(now), now)

    def served(self, now, attempt):
        """Go on after a wait in line."""
        self._take(self._course.served(attempt, now), now)
