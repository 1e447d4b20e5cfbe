"""Where callers stand while nobody can serve them: the pool's lines, and the waking of those whose turn it is.

Only the first in a line looks whether anybody can be served; whoever is let out calls the next one. So however many
wait, each wakes a few times, and they leave in order.
"""

from __future__ import annotations

import threading
from typing import Callable

from ..policy.line import Ticket
from ..policy.pool import EndpointPool

#: Seconds between two looks of the first: time alone may make somebody eligible.
_LOOK_S = 0.25


class Queue:
    """The callers of a registry that wait.

    Args:
        lock: the registry's, which guards the pool.
        pool: whose lines they stand in.
        clock: seconds, monotonic.

    """

    def __init__(self, lock: threading.Lock, pool: EndpointPool, clock: Callable[[], float]) -> None:
        self._lock = lock
        self._pool = pool
        self._lines = pool.lines
        self._clock = clock

    def stand(self, ticket: Ticket, until: float, drain: Callable[[], None]) -> None:
        """Wait until a ticket has its attempt, its time is over, or it was turned away.

        Args:
            ticket: the caller's place.
            until: on the clock.
            drain: delivers events; called without the lock.

        """
        ticket.attempt, ticket.turn = None, threading.Condition(self._lock)
        try:
            with self._lock:
                ticket.refused = not self._lines.join(ticket, self._clock())
            while not ticket.refused and self._wait(ticket, until):
                drain()
        finally:
            with self._lock:
                self._lines.leave(ticket)
                self.call_next()

    def call_next(self) -> None:
        """Have the first of each line look whether it is their turn. Hold the lock when calling this."""
        for ticket in self._lines.firsts():
            ticket.turn.notify()

    def _wait(self, ticket: Ticket, until: float) -> bool:
        """Wait until something happens; tell whether to go on waiting."""
        with self._lock:
            now = self._clock()
            served = self._pool.serve(ticket.model, now)
            if ticket.attempt is not None or now >= until:
                return False
            if served is not None:
                served.turn.notify()  # who calls the next one when it is on its way
            line = self._lines[ticket.model]
            is_first = line is not None and line.first() is ticket
            ticket.turn.wait(min(until - now, _LOOK_S) if is_first else until - now)
            return True
