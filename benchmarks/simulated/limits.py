"""The limits of the issue, and what was measured of each; a figure is compared as it is shown, to two decimals."""

from math import sqrt
from typing import Dict, NamedTuple, Tuple

from .scenarios import RATES
from .sharings import SHARINGS

_RATES = tuple(scenario.name for scenario in RATES)
_ONE = ("dead", "silent", *(name for name in _RATES if name.startswith("dead")))
_ALL = ("all-dead", "all-silent", "all-errors", *(name for name in _RATES if name.startswith("all-dead")))
_PROBES = ("probes-alone", "probes-alone-silent")
_TRAFFIC = ("traffic-alone", *_ONE[2:])


#: What the worst of many seconds is above their mean, in standard deviations.
_DEVIATIONS = 3.0


def _of_amplification(value, figures):
    calls = figures.calls / (figures.ends - figures.begins)
    return sqrt(max(0.0, value - 1.0) / calls)


class Limit(NamedTuple):
    """A limit of one kind."""

    what: str
    most: float
    #: The scenarios that it is for.
    scenarios: tuple
    #: The figure that it bounds, and the standard deviation that chance gives it.
    of: object
    chance: object = lambda _figures: 0.0


class Measured(NamedTuple):
    """What one scenario came to, by how processes share."""

    limit: Limit
    scenario: str
    #: Each figure, and the standard deviation that chance gives it in a sample as large as this.
    values: Dict[str, Tuple[float, float]]

    def shown(self, sharing):
        """Return the figure, marked where it is beyond the limit; "" where it was not run."""
        if sharing not in self.values:
            return ""
        value, deviation = self.values[sharing]
        if round(value, 2) <= self.limit.most:
            return f"{value:.2f}"
        by_chance = round(value - _DEVIATIONS * deviation, 2) <= self.limit.most
        return f"({value:.2f})" if by_chance else f"**{value:.2f}**"


LIMITS = (
    Limit(
        "one of five in trouble: attempts per call, worst second", 1.2, _ONE, lambda f: f.peak_amplification
    ),
    Limit("all in trouble: attempts per call, mean", 1.2, _ALL, lambda f: f.mean_amplification),
    Limit(
        "all in trouble: attempts per call, worst second",
        1.2,
        _ALL,
        lambda f: f.peak_amplification,
        lambda f: _of_amplification(f.peak_amplification, f),
    ),
    Limit(
        "after recovery: most load of any endpoint in any second, by its steady load",
        1.3,
        (*_ONE, *_ALL, "flapping", "brown-out", "slow"),
        lambda f: f.peak_after,
        lambda f: sqrt(f.peak_after / f.steady),
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
            values = {
                s: (limit.of(done[name, s]), limit.chance(done[name, s]))
                for s in SHARINGS
                if (name, s) in done
            }
            if values:
                found.append(Measured(limit, name, values))
    return found
