"""What threads share: one client, or whatever else, and how many calls a second all of them make together."""

import contenders
import measure

COUNTS = (8, 32)
#: Calls of each thread per block; a block takes everybody some tenths of a second.
CALLS = {8: 40, 32: 10}
_SLOW = {contenders.LITELLM: 10, contenders.OPENAI: 2}
#: A subset of those who make a call: here they share one session, client or router.
NAMES = (
    contenders.BASELINE,
    contenders.PREPARED,
    contenders.ELASTIC,
    contenders.CHAT,
    contenders.SESSION,
    contenders.TENACITY,
    contenders.OPENAI,
    contenders.LITELLM,
)


def calls_of(name, threads):
    """Return how many calls each thread makes in a block."""
    return max(1, CALLS[threads] // _SLOW.get(name, 1))


def measures(workers, threads):
    """Return name -> a function that measures calls per second of wall clock, and per second of CPU."""
    return {worker.name: lambda worker=worker: _rates(worker, threads) for worker in workers}


def _rates(worker, threads):
    each = calls_of(worker.name, threads)
    wall, cpu = worker.run(each, threads)
    return each * threads / wall, each * threads / cpu


def verify(upstream, threads):
    """Check by the upstream's own log that with threads, too, a call is one request."""
    for name in NAMES:
        measure.verify(upstream, [name], calls_of(name, threads), threads)
