"""What a client costs that nobody calls: CPU while it probes three endpoints, and memory over many probes.

`python idle.py ORIGIN...` serves one client: it reads what to measure per line of JSON, and answers with one.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path

from measure import Process

#: Seconds between two probes where CPU is measured: the client's own default.
INTERVAL_S = 2.0
#: Seconds between two probes where memory is measured, so that thousands take no hour.
HASTE_S = 0.002
#: Probes after which memory is first looked at (everything has grown to its size), and for the last time.
SETTLED, PROBES = 2_000, 10_000
#: Seconds that so many probes may take at most.
PATIENCE_S = 300.0


def cpu_share(origins, seconds):
    """Return the share of one core that a client takes over so many seconds in which nobody calls it."""
    client = Process("the idle client", "idle.py", str(INTERVAL_S), *origins)
    try:
        client.ask(rest=seconds)
        answer = client.answer()
    finally:
        client.close()
    return answer["cpu"] / answer["wall"]


def growth(upstream, settled=SETTLED, probes=PROBES):
    """Return (bytes resident, blocks allocated) of a client once so many probes were served, and once all were."""
    client = Process("the probing client", "idle.py", str(HASTE_S), *upstream.origins)
    try:
        return [_memory(client, upstream, count) for count in (settled, probes)]
    finally:
        client.close()


def _memory(client, upstream, probes):
    until = time.monotonic() + PATIENCE_S
    while upstream.probed() < probes:
        if time.monotonic() > until:
            raise SystemExit(f"the client made {upstream.probed()} of {probes} probes in {PATIENCE_S:.0f} s")
        time.sleep(0.05)
    client.ask(rest=None)
    answer = client.answer()
    return answer["resident"], answer["blocks"]


def serve(interval_s, origins):
    """Make a client that probes, and answer questions about the process until standard input ends."""
    from syncfailover import Endpoint, FailoverClient  # noqa: PLC0415 - the parent need not have it in its process

    endpoints = [
        Endpoint(f"relay-{n}", origin + "/v1", max_latency_ms=1000) for n, origin in enumerate(origins)
    ]
    with FailoverClient(endpoints, model="gpt-4.1", probe_interval=interval_s) as client:
        if not client.wait_until_ready(5.0):
            raise RuntimeError("the monitor found nobody alive")
        _say({})
        for line in sys.stdin:
            rest = json.loads(line)["rest"]
            _say(_memory_now() if rest is None else _cpu_over(rest))


def _cpu_over(seconds):
    wall, cpu = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _memory_now():
    gc.collect()
    blocks = sys.getallocatedblocks()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {"resident": pages * os.sysconf("SC_PAGE_SIZE"), "blocks": blocks}


def _say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(float(sys.argv[1]), sys.argv[2:])
