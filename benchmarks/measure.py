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

from serving import WARM_UP

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


class Process:
    """A program of ours that answers lines of JSON with lines of JSON; `asked` of it comes back from `answer`."""

    def __init__(self, name, program, *arguments):
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        #: What it said when it was ready.
        self.greeting = self.answer()

    def ask(self, **question):
        """Send a question; the answer may be fetched later."""
        self._process.stdin.write(json.dumps(question) + "\n")

    def answer(self):
        """Wait for the next answer."""
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its process died; the message is above")
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=30)


class Worker(Process):
    """A contender in a process of its own."""

    def __init__(self, name, origins):
        super().__init__(name, "serving.py", name, *origins)
        #: Why it cannot take part; None where it can.
        self.missing = self.greeting.get("missing")
        #: Lines "connection pool is full" of urllib3 so far.
        self.discards = 0

    def run(self, calls, threads=1):
        """Have each of the threads make so many calls; return the seconds of wall clock and of CPU that all took."""
        self.ask(calls=calls, threads=threads)
        answer = self.answer()
        if answer["wrong"]:
            raise SystemExit(
                f"{self.name}: {answer['wrong']} of {calls * threads} replies were not what the upstream sends"
            )
        self.discards = answer["discards"]
        return answer["wall"], answer["cpu"]


def workers_for(names, origins):
    """Start everybody; return those who can take part, and of the others why they cannot."""
    workers = [Worker(name, origins) for name in names]
    absent = {worker.name: worker.missing for worker in workers if worker.missing}
    return [worker for worker in workers if not worker.missing], absent


def verify(upstream, names, calls, threads=1):
    """Check by the upstream's own log that a call is one request; return per contender how many each origin served."""
    served = {}
    workers, _ = workers_for(names, upstream.origins)
    for worker in workers:
        before, asked = upstream.served(), threads * (calls + WARM_UP)
        worker.run(calls, threads)
        expected = sum(before) + asked
        after = upstream.served(expected)
        served[worker.name] = [now - then for now, then in zip(after, before)]
        worker.close()
        if sum(after) != expected:
            raise SystemExit(f"{worker.name}: {asked} calls, but the upstream served {served[worker.name]}")
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
