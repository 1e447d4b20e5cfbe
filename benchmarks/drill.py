"""The drill: eight threads call three endpoints while the first, A, is at fault for some seconds; everybody in turn."""

import contextlib
import sys
import time
from typing import NamedTuple, Optional

import drilled
from endpoint import FAULTS
from measure import Process

THREADS = 8
#: Faults that A itself sees the calls of; at the others its port is shut or silent, and the callers' dials are counted.
SEEN_AT_A = ("503", "429", "hang")
#: A call of more seconds than this is slow.
SLOW_S = 1.0
#: Seconds after its recovery in which A answers what it held while off the network: that is nobody's return.
BLACKHOLE_S = 0.05


class Times(NamedTuple):
    """When things happen, in seconds from the beginning of the load."""

    settled: float
    fault: float
    mended: float
    end: float


FULL = Times(1.0, 5.0, 12.0, 20.0)
QUICK = Times(0.5, 2.0, 8.0, 9.0)


class Score(NamedTuple):
    """How one contender fared at one fault."""

    failed: int
    #: Calls per second during the fault, in those before.
    kept: float
    before_per_s: float
    slow: int
    slowest_s: float
    #: What reached A, or tried to, while it was at fault.
    at_a: int
    #: The same by the contender's own ledger; None where it keeps none.
    by_ledger: Optional[int]
    #: Seconds from A's recovery to its first good answer after it; None where there was none.
    back_s: Optional[float]
    failures: list
    #: Seconds after the fault began at which the calls to A were begun.
    when: list


class Missing(NamedTuple):
    """Why a contender could not take part."""

    why: str


def run(name, fault, times, threads=THREADS):
    """Put one contender through one fault, with fresh endpoints; return its `Score`, or why it is `Missing`."""
    with contextlib.ExitStack() as stack:
        endpoints = [_closing(stack, Process(f"endpoint {letter}", "endpoint.py")) for letter in "ABC"]
        origins = [f"http://127.0.0.1:{endpoint.greeting['port']}" for endpoint in endpoints]
        contender = _closing(stack, Process(name, "drilled.py", name, *origins))
        if "missing" in contender.greeting:
            return Missing(contender.greeting["missing"])
        began = time.monotonic() + 0.5
        contender.ask(begin=began, end=began + times.end, threads=threads)
        time.sleep(began + times.fault - time.monotonic())
        endpoints[0].ask(do=fault)
        at_fault = endpoints[0].answer()["began"]
        time.sleep(began + times.mended - time.monotonic())
        endpoints[0].ask(do="mend")
        mended = endpoints[0].answer()["done"]
        seen = contender.answer()
        logs = []
        for endpoint in endpoints:
            endpoint.ask(do="log")
            logs.append(endpoint.answer()["calls"])
    _check(name, fault, seen, logs)
    return _score(seen, logs[0], fault, began, times, at_fault, mended)


def _closing(stack, process):
    stack.callback(process.close)
    return process


def _check(name, fault, seen, logs):
    """Hold the answers that callers got against those that the endpoints gave."""
    answered = sum(failure is None for _began, _ended, failure in seen["calls"])
    given = sum(status == 200 for log in logs for _at, status in log)
    if seen["stuck"] or answered > given:
        raise SystemExit(
            f"{name}, {fault}: {seen['stuck']} threads are stuck; {answered} answers, {given} given"
        )


def _score(seen, log, fault, began, times, at_fault, mended):
    calls = seen["calls"]
    good = [ended - began for _began, ended, failure in calls if failure is None]
    before = sum(times.settled <= at < times.fault for at in good) / (times.fault - times.settled)
    during = sum(times.fault <= at < times.mended for at in good) / (times.mended - times.fault)
    took = [ended - began for began, ended, _failure in calls]
    # one that was under way when the fault began was not sent to a dead endpoint
    if fault in SEEN_AT_A:
        at_a = [at for at, status in log if at_fault <= at < mended and status != 200]
    else:
        at_a = [at for at in seen["dials"] if at_fault <= at < mended]
    ledger = [at for at, outcome in seen["attempts"] if at_fault <= at < mended and outcome != "ok"]
    back = [at - mended for at, status in log if at >= mended + BLACKHOLE_S and status == 200]
    return Score(
        sum(failure is not None for _began, _ended, failure in calls),
        during / before,
        before,
        sum(seconds > SLOW_S for seconds in took),
        max(took),
        len(at_a),
        len(ledger) if seen["attempts"] else None,
        min(back, default=None),
        seen["failures"],
        sorted(round(at - at_fault, 3) for at in at_a),
    )


def run_all(names, faults, times):
    """Put everybody through every fault, one after the other; return (fault, name) -> `Score` or `Missing`."""
    scores = {}
    for fault in faults:
        for name in names:
            scores[fault, name] = score = run(name, fault, times)
            sys.stderr.write(f"  {fault}, {name}: {score}\n")
    return scores


ALL_FAULTS, ALL_NAMES = tuple(FAULTS), tuple(drilled.CONTENDERS)
