"""A program that gevent patches: before it imports the package, after that, or when its client is made already.

    python patched.py WHEN WORK

The environment says where the upstreams are (`UPSTREAMS`, JSON) and whom their certificates are of (`AUTHORITY`). It
prints "ready" when something is to happen to them, waits for an answer, and prints in the end what came of it, as JSON.
"""

import json
import os
import sys
import time
import warnings
from contextlib import suppress
from typing import Any, Callable, Dict, List, Sequence


def patch() -> List[str]:
    """Patch everything, and return what gevent has to say about that."""
    from gevent import monkey  # noqa: PLC0415 - importing it is part of what is tried

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        monkey.patch_all()
    return [str(warning.message) for warning in told]


WHEN, WORK = sys.argv[1:]
complaints = patch() if WHEN == "before the import" else []

from syncfailover import ClientClosed, Endpoint, FailoverClient  # noqa: E402 - the order is what is tried


class First:
    """Chooses the first by name."""

    def pick(self, candidates: Sequence[Any]) -> Any:
        """Choose."""
        return min(candidates, key=lambda candidate: candidate.endpoint.name)


OPTIONS: Dict[str, Dict[str, Any]] = {
    "silence": {"timeout": 1.0, "probe_when": "never"},
    "queue": {"queue_timeout": 15.0, "max_retries": 0, "recovery_timeout": 60.0},
    "hedging": {"balancer": First(), "hedge_after": 50.0, "probe_when": "never", "timeout": 20.0},
}


def make_client() -> FailoverClient:
    """Make a client of all upstreams, as the work needs it."""
    where = json.loads(os.environ["UPSTREAMS"])
    verify = os.environ.get("AUTHORITY") or True
    endpoints = [
        Endpoint(name, url, f"sk-{name}", verify=verify, max_latency_ms=5000.0) for name, url in where.items()
    ]
    options = {"probe_interval": 0.1, "balancer": "round_robin", "timeout": 10.0, **OPTIONS.get(WORK, {})}
    return FailoverClient(endpoints, model="gpt-4.1", **options)


client = make_client() if WHEN == "after the client was made" else None
if WHEN != "before the import":
    complaints = patch()
if client is None:
    client = make_client()

import threading  # noqa: E402 - the same

import gevent  # noqa: E402
from gevent.socket import wait_read  # noqa: E402


def let_it_happen() -> None:
    """Wait until something has happened to the upstreams."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    wait_read(sys.stdin.fileno())
    os.read(sys.stdin.fileno(), 1)


def at_once(number: int, what: Callable[[int], Any]) -> List[Any]:
    """Do something in so many greenlets, and return what they do, or the errors in which they end."""

    def told(turn: int) -> Any:
        try:
            return what(turn)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            return f"{type(error).__name__}: {error}"

    greenlets = [gevent.spawn(told, turn) for turn in range(number)]
    gevent.joinall(greenlets, timeout=30.0)
    return [greenlet.value for greenlet in greenlets]


def asked(turn: int) -> bool:
    """Ask a question, and tell whether the answer is to this one."""
    return client.chat(f"question {turn}").text == f"question {turn}"


def until(what: Callable[[], bool]) -> bool:
    """Wait until something holds."""
    deadline = time.monotonic() + 15.0
    while not what() and time.monotonic() < deadline:
        time.sleep(0.01)
    return what()


def health(name: str) -> str:
    """Return what is known of an endpoint."""
    return client.status()[name].status.value


def threads() -> List[str]:
    """Name the threads of the package."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("syncfailover"))


def crowd() -> Any:
    """Fifty at once."""
    began = time.monotonic()
    answers = at_once(50, asked)
    return {"answers": answers, "took_s": time.monotonic() - began}


def death() -> Any:
    """Eight ask all the time, while an endpoint dies."""
    answers = at_once(8, asked)
    dead = gevent.spawn(until, lambda: health("a") == "unhealthy")

    def ask_on(turn: int) -> List[bool]:
        found = []
        while not dead.ready():
            found.append(asked(turn))
        return [*found, *(asked(turn) for _ in range(5))]

    gevent.spawn(let_it_happen)
    more = at_once(8, ask_on)
    return {"answers": answers, "more": more, "noticed": dead.value}


def while_others_go_on(what: Callable[[], Any]) -> Dict[str, Any]:
    """Do something, and tell what came of it, how long it took, and how long at most it held up a greenlet."""
    ticks = [time.monotonic()]

    def tick() -> None:
        while True:
            time.sleep(0.01)
            ticks.append(time.monotonic())

    ticking = gevent.spawn(tick)
    result = what()
    ticking.kill()
    ticks.append(time.monotonic())
    gaps = [after - before for before, after in zip(ticks, ticks[1:])]
    return {"result": result, "took_s": ticks[-1] - ticks[0], "longest_gap_s": max(gaps)}


def silence() -> Any:
    """Nobody answers."""
    return while_others_go_on(lambda: at_once(5, asked))


def patience() -> Any:
    """Everybody asks to wait."""
    return while_others_go_on(lambda: asked(1))


def monitor() -> Any:
    """Nobody asks, and an endpoint dies and comes back."""
    client.wait_until_ready(5.0)
    seen = []
    for state in ("healthy", "unhealthy", "healthy"):
        seen.append(until(lambda state=state: health("a") == state))
        let_it_happen()
    return {"threads": threads(), "seen": seen}


def streams() -> Any:
    """Twenty are read to the end, three are left in the middle, and three are stopped by others while they wait."""
    whole = at_once(20, lambda turn: client.chat(f"question {turn}", stream=True).collect().text)
    let_it_happen()

    def leave(_turn: int) -> str:
        with client.chat("a long one", stream=True) as stream:
            return next(event.text for event in stream if event.text)

    def be_stopped(_turn: int) -> float:
        stream = client.chat("a long one", stream=True)
        gevent.spawn_later(0.2, stream.close)
        began = time.monotonic()
        with suppress(ClientClosed):
            return len(list(stream))
        return time.monotonic() - began

    return {"whole": whole, "left": at_once(3, leave), "stopped": at_once(3, be_stopped)}


def queue() -> Any:
    """Nobody is up, and ten wait in line until somebody is."""
    client.wait_until_ready(0.1)
    down = until(lambda: all(health(name) == "unhealthy" for name in "abc"))
    waiting = gevent.spawn(at_once, 10, asked)
    in_line = until(lambda: client.registry.waiting() == 10)
    let_it_happen()
    return {"down": down, "in_line": in_line, "answers": waiting.get()}


def hedging() -> Any:
    """The first is late."""
    for _ in range(24):  # what a hedge may cost is saved up by calls that were in time
        asked(0)
    let_it_happen()
    began = time.monotonic()
    reply = client.chat("late")
    return {"took_s": time.monotonic() - began, "text": reply.text, "attempts": len(reply.attempts)}


def fork() -> Any:
    """A child asks, and so does its parent; each has a monitor. A greenlet is about to begin while it is forked."""
    at_once(8, asked)
    gevent.spawn(client._monitor.probe_all)
    gevent.sleep(0)
    pid = os.fork()
    fine = at_once(8, asked) == [True] * 8 and until(lambda: health("a") == "healthy")
    fine = fine and until(lambda: threads().count("syncfailover-monitor") == 1)
    if pid == 0:
        os._exit(0 if fine else 1)
    return {"parent": fine, "child": os.waitpid(pid, 0)[1] == 0}


def close() -> Any:
    """All ends that a client has begun."""
    at_once(5, asked)
    before = threads()
    began = time.monotonic()
    client.close()
    return {"before": before, "took_s": time.monotonic() - began, "ended": until(lambda: not threads())}


result = globals()[WORK]()
sys.stdout.write(json.dumps({**result, "complaints": complaints, "at": time.monotonic()}))
