"""What `client.map` costs beside a bare loop over `client.chat` in threads: python benchmarks/mapping.py.

Rounds of everybody in turn, and what is compared is what lies side by side, as in measure.py. CPU is this process's.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(
    1, str(Path(__file__).resolve().parent.parent)
)  # the checkout, also where nothing is installed

from upstream import TEXT, Upstream

from syncfailover import Endpoint, FailoverClient

BARE = "bare loop, threads"


def bare(client, prompts, concurrency):
    """Let threads take prompts of one iterator: the least that one can write."""
    results, left, lock = [None] * len(prompts), iter(enumerate(prompts)), threading.Lock()

    def work():
        while True:
            with lock:
                place, prompt = next(left, (None, None))
            if place is None:
                return
            try:
                results[place] = client.chat(prompt)
            except Exception as error:  # noqa: BLE001 - a value, as in a map
                results[place] = error

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def pool(client, prompts, concurrency):
    """Use what the standard library has."""
    with ThreadPoolExecutor(concurrency) as executor:
        return list(executor.map(client.chat, prompts))


def mapped(client, prompts, concurrency):
    return client.map(prompts, concurrency=concurrency)


def kept(client, prompts, concurrency):
    with tempfile.TemporaryDirectory() as home:
        return client.map(prompts, concurrency=concurrency, checkpoint=Path(home, "run.sqlite"))


CONTENDERS = {
    BARE: bare,
    "ThreadPoolExecutor.map": pool,
    "client.map": mapped,
    "client.map, checkpoint": kept,
}


def measure(client, contender, prompts, concurrency):
    """Return the microseconds of wall clock and of CPU that one prompt took."""
    wall, cpu = time.perf_counter(), time.process_time()
    results = contender(client, prompts, concurrency)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if [reply.text for reply in results] != [TEXT] * len(prompts):
        raise SystemExit("a reply was not what the upstream sends")
    return wall * 1e6 / len(prompts), cpu * 1e6 / len(prompts)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args(arguments)
    prompts = [f"Question {number}: explain failover." for number in range(chosen.prompts)]
    taken = {name: [] for name in CONTENDERS}
    with Upstream() as upstream:
        endpoints = [Endpoint(f"e{n}", f"{origin}/v1", "key") for n, origin in enumerate(upstream.origins)]
        with FailoverClient(endpoints, model="gpt-4.1") as client:
            for contender in CONTENDERS.values():
                measure(client, contender, prompts[:200], chosen.concurrency)  # connections are opened
            for _ in range(chosen.rounds):
                for name, contender in CONTENDERS.items():
                    taken[name].append(measure(client, contender, prompts, chosen.concurrency))
    print(
        f"{chosen.prompts} prompts, concurrency {chosen.concurrency}, {chosen.rounds} rounds; medians, per prompt:"
    )
    for name, times in taken.items():
        wall, cpu = (statistics.median(column) for column in zip(*times))
        more = [
            statistics.median(mine[kind] - base[kind] for mine, base in zip(times, taken[BARE]))
            for kind in (0, 1)
        ]
        print(
            f"{name:24} {wall:6.0f} us wall ({more[0]:+5.0f}), {cpu:6.0f} us CPU ({more[1]:+5.0f}), "
            f"{1e6 / wall:6.0f} prompts/s"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
