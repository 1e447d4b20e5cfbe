"""How it is measured: small blocks of everybody in turn, and only what lies side by side is compared.

A machine that is busy with something else slows all contenders of a round alike, so the ratio of each round is taken
first and the median of the ratios afterwards.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from contenders import WARM_UP

HERE = Path(__file__).resolve().parent


class Spread(NamedTuple):
    """The median of many measurements, and between what the middle half of them lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values):
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self):
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


class Worker:
    """A contender in a process of its own."""

    def __init__(self, name, origins):
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "contenders.py"), name, *origins],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        #: Why it cannot take part; None where it can.
        self.missing = self._answer().get("missing")

    def run(self, calls):
        """Make so many calls; return the seconds of wall clock and of CPU that they took."""
        self._process.stdin.write(f"{calls}\n")
        answer = self._answer()
        if answer["wrong"]:
            raise SystemExit(
                f"{self.name}: {answer['wrong']} of {calls} replies were not what the upstream sends"
            )
        return answer["wall"], answer["cpu"]

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the contender's process died; its message is above")
        return json.loads(line)


def workers_for(names, origins):
    """Start everybody; return those who can take part, and of the others why they cannot."""
    workers = [Worker(name, origins) for name in names]
    absent = {worker.name: worker.missing for worker in workers if worker.missing}
    return [worker for worker in workers if not worker.missing], absent


def verify(upstream, names, calls):
    """Check by the upstream's own log that a call is one request; return per contender how many each origin served."""
    served = {}
    workers, _ = workers_for(names, upstream.origins)
    for worker in workers:
        before = upstream.served()
        worker.run(calls)
        expected = sum(before) + calls + WARM_UP
        after = upstream.served(expected)
        served[worker.name] = [now - then for now, then in zip(after, before)]
        worker.close()
        if sum(after) != expected:
            raise SystemExit(
                f"{worker.name}: {calls + WARM_UP} calls, but the upstream served {served[worker.name]}"
            )
    return served


def rounds_of(measures, rounds):
    """Measure everybody in turn, beginning elsewhere each round; return name -> one tuple of numbers per round.

    Args:
        measures: name -> a function that measures one block and returns a tuple of numbers.
        rounds: how often.

    """
    names = list(measures)
    results = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            results[name].append(measures[name]())
    return results


def ratios(results, baseline):
    """Return name -> for each number of a block the spread of its ratios to the baseline's block of the same round."""
    return {
        name: tuple(
            Spread.of([ours / theirs for ours, theirs in zip(column, base)])
            for column, base in zip(zip(*blocks), zip(*results[baseline]))
        )
        for name, blocks in results.items()
    }


def absolute(results):
    """Return name -> the spread of each number of a block."""
    return {name: tuple(Spread.of(column) for column in zip(*blocks)) for name, blocks in results.items()}
