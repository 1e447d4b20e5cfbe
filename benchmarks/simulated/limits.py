"""The limits of the issue, and what was measured of each; a figure is compared as it is shown, to two decimals."""

from typing import Dict, NamedTuple

from .scenarios import RATES
from .sharings import SHARINGS

_RATES = tuple(scenario.name for scenario in RATES)
_ONE = ("dead", "silent", *(name for name in _RATES if name.startswith("dead")))
_ALL = ("all-dead", "all-silent", "all-errors", *(name for name in _RATES if name.startswith("all-dead")))
_PROBES = ("probes-alone", "probes-alone-silent")
_TRAFFIC = ("traffic-alone", *_ONE[2:])


class Limit(NamedTuple):
    """A limit of one kind."""

    what: str
    most: float
    #: The scenarios that it is for.
    scenarios: tuple
    #: The figure that it bounds.
    of: object


class Measured(NamedTuple):
    """What one scenario came to, by how processes share."""

    limit: Limit
    scenario: str
    values: Dict[str, float]

    def is_kept(self, sharing):
        return round(self.values[sharing], 2) <= self.limit.most


LIMITS = (
    Limit(
        "one of five in trouble: attempts per call, worst second", 1.2, _ONE, lambda f: f.peak_amplification
    ),
    Limit("all in trouble: attempts per call, mean", 1.2, _ALL, lambda f: f.mean_amplification),
    Limit("all in trouble: attempts per call, worst second", 1.2, _ALL, lambda f: f.peak_amplification),
    Limit(
        "after recovery: most load of any endpoint in any second, by its steady load",
        1.3,
        (*_ONE, *_ALL, "flapping", "brown-out", "slow"),
        lambda f: f.peak_after,
    ),
    Limit("detection by probes alone: seconds, the last client", 7.0, _PROBES, lambda f: f.knew_s.most),
    Limit(
        "detection by traffic: attempts that meet it, the last client", 3.0, _TRAFFIC, lambda f: f.met.most
    ),
)


def measured(done):
    """Return what was measured of each limit; `done` has `Figures` by name of scenario and sharing."""
    found = []
    for limit in LIMITS:
        for name in limit.scenarios:
            values = {s: limit.of(done[name, s]) for s in SHARINGS if (name, s) in done}
            if values:
                found.append(Measured(limit, name, values))
    return found
