"""What a run comes to: the figures that tables and limits are made of."""

from statistics import mean
from typing import NamedTuple

#: The first seconds do not count as steady: nothing is under way yet.
_SETTLED_S = 1
#: Of its steady load, what an endpoint takes again when it counts as returned.
_RETURNED = 0.9


class Spread(NamedTuple):
    """The median, what 99 of 100 are within, and the most; None where there is nothing."""

    median: float
    nearly_all: float
    most: float

    @classmethod
    def of(cls, values):
        ordered = sorted(values)
        if not ordered:
            return None
        last = len(ordered) - 1
        return cls(ordered[last // 2], ordered[int(last * 0.99)], ordered[last])


class Figures:
    """One run, seen as a whole.

    Args:
        run: see `fleet.Run`.

    """

    def __init__(self, run):
        self.run = run
        self.scenario = scenario = run.scenario
        #: How many clients of the fleet each one simulated stands for.
        self.scale = scenario.fleet / run.clients
        self.begins, self.ends, self.until = int(scenario.begins), int(scenario.ends), int(scenario.until)
        steady = range(_SETTLED_S, self.begins)
        #: Calls per second to each endpoint before the trouble.
        self.steady = mean(mean(load[s] for s in steady) for load in run.load) if any(run.calls) else 0.0

    @property
    def calls(self):
        """Calls begun during the trouble."""
        return sum(self.run.calls[self.begins : self.ends])

    @property
    def failed(self):
        """Of these, those that failed; and the same of those begun after it."""
        failed = self.run.failed
        return sum(failed[self.begins : self.ends]), sum(failed[self.ends :])

    def amplification(self, second):
        """Return the attempts of a second by the calls begun in it."""
        calls = self.run.calls[second]
        return sum(load[second] for load in self.run.load) / calls if calls else None

    @property
    def mean_amplification(self):
        """Attempts by calls, over the whole trouble."""
        return sum(sum(load[self.begins : self.ends]) for load in self.run.load) / self.calls

    @property
    def peak_amplification(self):
        """Attempts by calls, in the worst second from the beginning of the trouble on."""
        return max(self.amplification(second) for second in range(self.begins, self.until))

    def share_of_steady(self, endpoint, second):
        """Return an endpoint's load in a second by its steady one."""
        return self.run.load[endpoint][second] / self.steady

    def _peak(self, first, last):
        return max(
            self.share_of_steady(endpoint, second)
            for endpoint in range(len(self.run.load))
            for second in range(first, last)
        )

    @property
    def peak_during(self):
        """The highest load of any endpoint in any second of the trouble, by its steady one."""
        return self._peak(self.begins, self.ends)

    @property
    def peak_after(self):
        """The same after the trouble."""
        return self._peak(self.ends, self.until)

    @property
    def returned_s(self):
        """Seconds from the end of the trouble until the endpoint had nearly its steady load; None where it never had."""
        for second in range(self.ends, self.until):
            if self.share_of_steady(0, second) >= _RETURNED:
                return second - self.ends + 1
        return None

    @property
    def knew_s(self):
        """Seconds until a client knew of the trouble."""
        return Spread.of(s for s in self.run.knew_s if s is not None)

    @property
    def never_knew(self):
        """Of the clients, the share that did not notice."""
        return sum(s is None for s in self.run.knew_s) / self.run.clients

    @property
    def met(self):
        """Attempts of a client that met the trouble before it knew."""
        return Spread.of(self.run.met)

    @property
    def took_s(self):
        """Seconds that a call begun during the trouble took."""
        return Spread.of(took for second, took in self.run.times if self.begins <= second < self.ends)

    @property
    def probes_per_s(self):
        """Probes that an endpoint of the whole fleet sees in a second."""
        seen = mean(sum(probes[self.begins : self.until]) for probes in self.run.probes)
        return seen / (self.until - self.begins) * (1.0 if self.run.sharing == "redis" else self.scale)
