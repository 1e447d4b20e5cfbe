"""What the options of a client cost: the same call, with more and more of them switched on."""
# ruff: noqa: PLC0415 - each process imports only its own contender

import collections
import itertools
import tempfile

from contenders import MESSAGES, OPTIONS, client_of, endpoints_of

#: Milliseconds: no call takes that long, so the hedge is ready in every call and fires in none.
_NEVER_MS = 60_000.0


def plain(origins):
    client = client_of(endpoints_of(origins, prices=None))
    return lambda: client.chat(MESSAGES, **OPTIONS), lambda reply: reply.text


def hedged_never(origins):
    client = client_of(endpoints_of(origins, prices=None), hedge_after=_NEVER_MS)
    return lambda: client.chat(MESSAGES, **OPTIONS), lambda reply: reply.text


def shared(origins):
    """Share all that is known with two other processes, which make calls of their own from time to time."""
    directory = tempfile.TemporaryDirectory(prefix="bench-state-")
    state = f"sqlite:///{directory.name}/health.db"
    endpoints = endpoints_of(origins, prices=None)
    client = client_of(endpoints, state=state)
    peer = client_of(endpoints, state=state)

    def text(reply):
        peer.chat(MESSAGES, **OPTIONS)
        if client.status().state != "shared" or not directory:
            raise AssertionError("nothing is shared")
        return reply.text

    return lambda: client.chat(MESSAGES, **OPTIONS), text


def everything(origins, hedge_after=None):
    """Switch on all that a client can do; hedging only where asked for."""
    from syncfailover.events import EVENTS

    endpoints = endpoints_of(origins, max_concurrency=64)
    client = client_of(
        endpoints, queue_timeout=10.0, queue_size=100, hedge_after=hedge_after, budget_usd=1_000_000.0
    )
    seen = collections.Counter()

    def note(event):
        seen[event.name] += 1

    for event in EVENTS:
        client.on(event, note)
    users = itertools.cycle([f"user-{n}" for n in range(100)])

    def text(reply):
        if not reply.cost_usd or not seen["attempt"]:
            raise AssertionError(f"no cost, or no event: {reply.cost_usd}, {seen}")
        return reply.text

    return lambda: client.chat(MESSAGES, affinity=next(users), **OPTIONS), text


def everything_hedged_never(origins):
    return everything(origins, _NEVER_MS)


def everything_hedged(origins):
    return everything(origins, "p95")


PLAIN = "client.chat, as it comes"
SHARED = '`state="sqlite:///..."`, with a peer'
HEDGE_READY = "`hedge_after`, not firing"
ALL_ON = "everything on, `hedge_after` not firing"
ALL_ON_HEDGED = 'everything on, `hedge_after="p95"` firing'
#: For the measurement of the options; everybody here is ours.
WITH_OPTIONS = {
    PLAIN: plain,
    "the same once more": plain,
    SHARED: shared,
    HEDGE_READY: hedged_never,
    "everything on but `hedge_after`": everything,
    ALL_ON: everything_hedged_never,
    ALL_ON_HEDGED: everything_hedged,
}
