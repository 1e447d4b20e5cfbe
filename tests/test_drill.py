"""The drill: eight threads call back to back while one of three endpoints goes through every kind of trouble.

No call fails, no call outlives its deadline, and once the trouble is known the endpoint gets nothing but probes and
half-open trials until it has recovered; then it takes traffic again.
"""

import threading
import time
from typing import Any, Callable, List, NamedTuple

import pytest
from fleet import endpoints_of

from syncfailover import FailoverClient, Timeouts
from syncfailover.testing import FakeUpstream, Hang, Ok, Reset, Status

THREADS = 8
DEADLINE_S = 3.0
RECOVERY_S = 0.4
TROUBLE_FROM_S, TROUBLE_TO_S, END_S = 0.4, 1.4, 3.0
#: Attempts that were under way, or chosen, when the trouble became known.
ALREADY_ON_THEIR_WAY = THREADS


class Trouble(NamedTuple):
    """What happens to the first endpoint."""

    name: str
    begin: Callable[[FakeUpstream], None]


TROUBLES = [
    Trouble("killed", lambda upstream: upstream.kill()),
    Trouble("blackhole", lambda upstream: upstream.blackhole()),
    Trouble("hangs", lambda upstream: upstream.always(Hang())),
    Trouble("hangs but its probes are fine", lambda upstream: upstream.calls.always(Hang())),
    Trouble("answers 503", lambda upstream: upstream.always(Status(503))),
    Trouble("answers 500 but its probes are fine", lambda upstream: upstream.calls.always(Status(500))),
    Trouble("resets", lambda upstream: upstream.calls.always(Reset())),
    Trouble(
        "asks for a second of rest",
        lambda upstream: upstream.calls.always(Status(429, headers={"Retry-After": "1"})),
    ),
]


class Log:
    """What the drill saw, with times."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.replies: List[Any] = []
        self.failures: List[BaseException] = []
        self.attempts_at_a: List[float] = []
        self.known_at: List[float] = []

    def now(self) -> float:
        """Return the seconds since the drill began."""
        return time.monotonic() - self.began

    def attempted(self, event: Any) -> None:
        """Note when attempts at the troubled endpoint began."""
        if event.endpoint == "a":
            self.attempts_at_a.append(self.now() - event.data.latency_ms / 1000.0)
            if event.data.outcome == "rate_limited":
                self.known_at.append(self.now())

    def changed(self, event: Any) -> None:
        """Note when its trouble became known."""
        if event.endpoint == "a" and event.new in ("open", "unhealthy"):
            self.known_at.append(self.now())


def call_until_the_end(client: FailoverClient, log: Log) -> None:
    """Call back to back."""
    while log.now() < END_S:
        began = log.now()
        try:
            reply = client.chat("Hi")
        except Exception as error:  # noqa: BLE001 - any failure is a failed drill
            log.failures.append(error)
        else:
            log.replies.append((began, log.now(), reply.endpoint))


@pytest.mark.quiet
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_the_calls_go_on(trouble: Trouble, upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Eight threads notice nothing of one endpoint's trouble but a slower call now and then."""
    for upstream in upstreams:
        upstream.calls.always(Ok(delay_s=0.004))
    client = make_client(
        endpoints_of(upstreams),
        probe_when="always",
        probe_interval=0.2,
        probe_timeout=0.15,
        recovery_timeout=RECOVERY_S,
        timeout=Timeouts(total=DEADLINE_S, connect=0.2, read=0.5),
    )
    log = Log()
    client.on("attempt", log.attempted)
    client.on("breaker_opened", log.changed)
    client.on("health_changed", log.changed)
    threads = [threading.Thread(target=call_until_the_end, args=(client, log)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    threading.Event().wait(TROUBLE_FROM_S - log.now())
    trouble.begin(upstreams[0])
    threading.Event().wait(TROUBLE_TO_S - log.now())
    healed_at = log.now()
    upstreams[0].calls.always(Ok(delay_s=0.004))
    upstreams[0].probes.heal()
    upstreams[0].revive()
    for thread in threads:
        thread.join()

    assert log.failures == []
    assert max(end - began for began, end, _ in log.replies) < DEADLINE_S
    known_at = min(log.known_at)
    assert TROUBLE_FROM_S <= known_at < TROUBLE_FROM_S + 1.2
    after = [at for at in log.attempts_at_a if known_at + 0.01 < at < healed_at]
    trials = (healed_at - known_at) / RECOVERY_S + 1
    assert len(after) <= trials + ALREADY_ON_THEIR_WAY
    assert sum(1 for began, _, _ in log.replies if known_at < began < healed_at) > 50
    assert sum(1 for began, _, name in log.replies if name == "a" and began > healed_at) > 10
