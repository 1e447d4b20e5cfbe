"""What is simulated: which endpoints are in which trouble, when, and who calls."""

from typing import NamedTuple, Optional, Tuple

from .upstream import Trouble

#: Seconds: the trouble, and the end of all calls. The breaker's 30 s, and the ten of the slow start, fit in between.
BEGINS, ENDS, UNTIL = 6.0, 46.0, 72.0
ENDPOINTS = 5
FLEET = 10_000


class Scenario(NamedTuple):
    """One course of events for a fleet."""

    name: str
    title: str
    #: The troubles of the first endpoint, or of all.
    troubles: Tuple[Trouble, ...] = ()
    everywhere: bool = False
    #: Calls per second and client: spread evenly over the magnitudes between these two; 0, 0 for no calls at all.
    rates: Tuple[float, float] = (1.0, 100.0)
    until: float = UNTIL
    #: Whether there are probes.
    probes: bool = True
    #: Seconds that a call may wait in line.
    queue_s: float = 0.0
    #: Clients in the whole fleet; of these, one in so many is simulated.
    fleet: int = FLEET
    one_in: int = 20
    #: When whoever probes for others is killed.
    killed_at: Optional[float] = None

    @property
    def begins(self):
        return self.troubles[0].begins

    @property
    def ends(self):
        return self.troubles[-1].ends


def _trouble(kind, **more):
    return (Trouble(kind, BEGINS, ENDS, **more),)


_FLAPS = tuple(Trouble("refuses", start, start + 5.0) for start in (6.0, 16.0, 26.0, 36.0))

#: The outages, each for the whole mix of clients.
OUTAGES = (
    Scenario("dead", "one endpoint of five is dead: it refuses connections", _trouble("refuses")),
    Scenario("silent", "one endpoint of five takes requests and never answers", _trouble("silent")),
    Scenario(
        "all-dead", "all endpoints are dead: they refuse connections", _trouble("refuses"), everywhere=True
    ),
    Scenario(
        "all-silent", "all endpoints take requests and never answer", _trouble("silent"), everywhere=True
    ),
    Scenario("all-errors", "all endpoints answer every call with 500", _trouble("errors"), everywhere=True),
    Scenario("flapping", "one endpoint of five is dead for 5 s, well for 5 s, four times over", _FLAPS),
    Scenario(
        "brown-out",
        "one endpoint of five answers 30 % of calls and probes with an error",
        _trouble("errors", share=0.3),
    ),
    Scenario(
        "slow",
        "one endpoint of five is ten times as slow, and its probes with it",
        _trouble("slow", factor=10.0),
    ),
    Scenario(
        "slow-unseen",
        "one endpoint of five is ten times as slow, but its probes are quick",
        _trouble("slow", factor=10.0, probes=False),
    ),
    Scenario(
        "all-dead-queued",
        "all endpoints are dead, and calls may wait in line for 10 s (`queue_timeout=10`)",
        _trouble("refuses"),
        everywhere=True,
        queue_s=10.0,
    ),
)

#: The same outage for clients that all call equally often.
RATES = tuple(
    Scenario(
        f"{name}-at-{rate}",
        f"{what}, {rate} calls per second and client",
        _trouble("refuses"),
        everywhere=everywhere,
        rates=(rate, rate),
        one_in=one_in,
    )
    for name, what, everywhere in (("dead", "one dead", False), ("all-dead", "all dead", True))
    for rate, one_in in ((1, 4), (10, 20), (100, 100))
)

#: What probes find without calls, and calls without probes.
DETECTION = (
    Scenario("probes-alone", "refuses", _trouble("refuses"), rates=(0, 0), until=20.0, one_in=1),
    Scenario("probes-alone-silent", "silent", _trouble("silent"), rates=(0, 0), until=20.0, one_in=1),
    Scenario("traffic-alone", "refuses", _trouble("refuses"), probes=False),
    Scenario("traffic-alone-silent", "silent", _trouble("silent"), probes=False),
)

#: Who probes: 320 processes on ten hosts, nobody calls, and half-way the probers are killed.
PROBING = Scenario(
    "probing",
    "320 processes on ten hosts, no trouble",
    (Trouble("", 20.0, 40.0),),
    rates=(0, 0),
    until=60.0,
    fleet=320,
    one_in=1,
    killed_at=40.0,
)

#: Scenarios for which sharing is looked at.
SHARED = ("dead", "silent", "all-dead", "flapping", "brown-out", "probing")
ALL = {scenario.name: scenario for scenario in (*OUTAGES, *RATES, *DETECTION, PROBING)}

#: Who knows when: panels of lines, each with what it shows.
KNOWLEDGE = (
    (
        "Processes alone, one endpoint in trouble",
        (
            ("refuses: probes and calls", ("dead", "alone")),
            ("refuses: probes without calls", ("probes-alone", "alone")),
            ("refuses: calls without probes", ("traffic-alone", "alone")),
            ("silent: probes without calls", ("probes-alone-silent", "alone")),
        ),
    ),
    (
        "Probes and calls, one endpoint refuses",
        (
            ("alone", ("dead", "alone")),
            ("shared on each host (SQLite)", ("dead", "sqlite")),
            ("shared in the fleet (Redis)", ("dead", "redis")),
        ),
    ),
)
