"""An endpoint as its callers see it: how long it takes, what it refuses, and the trouble that it is in."""

from typing import NamedTuple

from syncfailover.policy.health import ProbeResult, judge
from syncfailover.policy.outcome import SUCCEEDED, classify
from syncfailover.policy.received import NEVER_SENT, RESET, SILENT, Received

#: Seconds of a call: lognormal, so that 19 of 20 take 50 to 200 ms.
_MEDIAN_S, _SIGMA = 0.1, 0.35
#: Seconds of a probe: uniform.
_QUICKEST_PROBE_S, _SLOWEST_PROBE_S = 0.005, 0.03
#: Seconds in which a host without a listener refuses, and in which one beyond its capacity does.
_REFUSED_S, _TURNED_AWAY_S = 0.001, 0.003
#: Seconds of full capacity that may come at once.
_BURST_S = 0.2
#: Service times are drawn from so many, drawn once.
_DRAWN = 8192

REFUSED = classify(Received(fault=NEVER_SENT, detail="connect refused"))
CUT_OFF = classify(Received(fault=RESET, detail="connection reset"))
UNHEARD = classify(Received(fault=SILENT, detail="no reply in time"))
ERROR = classify(Received(500))
OVERLOAD = classify(Received(503))


class Trouble(NamedTuple):
    """What is wrong with an endpoint, from when to when."""

    #: "refuses", "silent", "errors" or "slow"
    kind: str
    begins: float
    ends: float
    #: Of "errors": the share of calls, and of probes, that fail.
    share: float = 1.0
    #: Of "slow": how many times as long everything takes.
    factor: float = 1.0
    #: Whether probes notice it.
    probes: bool = True


_NONE = Trouble("", 0.0, 0.0)


class Upstream:
    """One endpoint.

    Args:
        name: of the endpoint.
        troubles: in order of time; none overlap.
        capacity_per_s: calls per second that it can take; more it answers with 503.
        probe_timeout_s: seconds.
        seconds: for which its load is recorded.
        random: a `random.Random`.

    """

    def __init__(self, name, troubles, *, capacity_per_s, probe_timeout_s, seconds, random):
        self.name = name
        self.capacity_per_s = capacity_per_s
        self._probe_timeout_s = probe_timeout_s
        self._chance = random.random
        self._services = [random.lognormvariate(0.0, _SIGMA) * _MEDIAN_S for _ in range(_DRAWN)]
        self._tokens, self._filled_at = capacity_per_s * _BURST_S, 0.0
        self._to_come = list(troubles)
        self.trouble = _NONE
        #: When, if ever, everything under way is lost next.
        self._breaks_at = float("inf")
        #: Attempts and probes that were sent to it, and attempts beyond its capacity, by second.
        self.load, self.probes, self.turned_away = [0] * seconds, [0] * seconds, [0] * seconds
        self._look_ahead()

    def schedule(self, agenda):
        """Note when its troubles begin and end."""
        for trouble in self._to_come:
            agenda.at(trouble.begins, self._begins)
            agenda.at(trouble.ends, self._ends)

    def _begins(self, _now):
        self.trouble = self._to_come.pop(0)
        self._look_ahead()

    def _ends(self, _now):
        self.trouble = _NONE

    def _look_ahead(self):
        losses = [t.begins for t in self._to_come if t.kind in ("refuses", "silent")]
        self._breaks_at = min(losses, default=float("inf"))

    def ask(self, now, timeout_s):
        """Take an attempt; return when it ends, and how."""
        self.load[int(now)] += 1
        trouble = self.trouble
        kind = trouble.kind
        if kind == "refuses":
            return now + _REFUSED_S, REFUSED
        if kind == "silent":
            return now + timeout_s, UNHEARD
        if not self._has_room(now):
            self.turned_away[int(now)] += 1
            return now + _TURNED_AWAY_S, OVERLOAD
        ends = (
            self._services[int(self._chance() * _DRAWN)] * (trouble.factor if kind == "slow" else 1.0) + now
        )
        if kind == "errors" and self._chance() < trouble.share:
            return ends, ERROR
        if ends > self._breaks_at:
            lost = self._to_come[0]
            return (self._breaks_at, CUT_OFF) if lost.kind == "refuses" else (now + timeout_s, UNHEARD)
        return (ends, SUCCEEDED) if ends <= now + timeout_s else (now + timeout_s, UNHEARD)

    def _has_room(self, now):
        capacity = self.capacity_per_s
        since_s = now - self._filled_at
        tokens = self._tokens
        if since_s > 0.0:  # within a slot, clients come one after the other: see `World.run`
            tokens = min(capacity * _BURST_S, tokens + since_s * capacity)
            self._filled_at = now
        self._tokens = tokens - 1.0 if tokens >= 1.0 else tokens
        return tokens >= 1.0

    def probe(self, now):
        """Take a probe; return when its prober knows, and what."""
        self.probes[int(now)] += 1
        trouble = self.trouble if self.trouble.probes else _NONE
        took_s = _QUICKEST_PROBE_S + (_SLOWEST_PROBE_S - _QUICKEST_PROBE_S) * self._chance()
        if trouble.kind == "refuses":
            return now + _REFUSED_S, ProbeResult(self.name, alive=False, detail=REFUSED.detail)
        if trouble.kind == "slow":
            took_s *= trouble.factor
        if trouble.kind == "silent" or took_s > self._probe_timeout_s:
            return now + self._probe_timeout_s, ProbeResult(self.name, alive=False, detail=UNHEARD.detail)
        fails = trouble.kind == "errors" and self._chance() < trouble.share
        return now + took_s, judge(self.name, 503 if fails else 200, took_s * 1000.0)
