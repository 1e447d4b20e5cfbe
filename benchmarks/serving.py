"""How a contender is measured in a process of its own, so that nobody pays for another's heap, threads or imports.

`python serving.py NAME ORIGIN...` serves one contender: it reads per line of JSON how many threads are to make how
many calls each, makes them, and answers with a line of JSON.
"""

import concurrent.futures
import contextlib
import json
import logging
import os
import sys
import threading
import time

from contenders import CONTENDERS, REQUIRED
from options import WITH_OPTIONS
from upstream import TEXT

#: Untimed calls of each thread before each block: another process had the caches in between.
WARM_UP = 3


class _Discards(logging.Handler):
    """Counts what urllib3 says when it has to throw a connection away."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.count = 0
        logging.getLogger("urllib3.connectionpool").addHandler(self)

    def emit(self, record):
        self.count += "pool is full" in record.msg


def serve(name, origins):
    """Answer each question on standard input with the seconds that so many calls took, until it ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    discards = _Discards()
    try:
        call, text = {**CONTENDERS, **WITH_OPTIONS}[name](origins)
    except ImportError:
        if name in REQUIRED:
            raise
        out.write(json.dumps({"missing": "not installed"}) + "\n")
        return
    out.write(json.dumps({}) + "\n")
    for line in sys.stdin:
        question = json.loads(line)
        count, threads = question["calls"], question["threads"]
        wall, cpu, replies = _alone(call, count) if threads == 1 else _together(call, count, threads)
        wrong = sum(text(reply) != TEXT for reply in replies)
        answer = {"wall": wall, "cpu": cpu, "wrong": wrong, "discards": discards.count}
        out.write(json.dumps(answer) + "\n")


def _alone(call, count):
    for _ in range(WARM_UP):
        call()
    wall, cpu = time.perf_counter(), time.process_time()
    replies = [call() for _ in range(count)]
    return time.perf_counter() - wall, time.process_time() - cpu, replies


def _together(call, count, threads):
    """Let each of the threads make so many calls, all at once; the last one ends the measurement."""
    begin = threading.Barrier(threads + 1, timeout=60)

    def work():
        try:
            for _ in range(WARM_UP):
                call()
        except BaseException:
            begin.abort()
            raise
        begin.wait()
        return [call() for _ in range(count)]

    with concurrent.futures.ThreadPoolExecutor(threads) as executor:
        working = [executor.submit(work) for _ in range(threads)]
        with contextlib.suppress(threading.BrokenBarrierError):  # the reason comes with the results
            begin.wait()
        wall, cpu = time.perf_counter(), time.process_time()
        concurrent.futures.wait(working)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall, cpu, [reply for done in working for reply in done.result()]


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
    sys.stderr.flush()
    os._exit(0)  # some libraries' threads would keep it
