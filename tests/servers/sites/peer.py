"""A process of a fleet: it does what stdin says, one JSON list per line, and answers on stdout.

The environment says where the upstreams are (`UPSTREAMS`, JSON), where peers meet (`STATE`) and what else the client is
made with (`OPTIONS`, JSON).
"""

import json
import os
import sys
import time
from typing import Any, Callable, Dict

from syncfailover import Endpoint, FailoverClient, FailoverError

OPTIONS = json.loads(os.environ["OPTIONS"])
PRIORITIES = OPTIONS.pop("priorities", {})

client = FailoverClient(
    [
        Endpoint(name, url, f"sk-secret-{name}", max_latency_ms=5000.0, priority=PRIORITIES.get(name, 0))
        for name, url in json.loads(os.environ["UPSTREAMS"]).items()
    ],
    model="gpt-4.1",
    state=os.environ["STATE"],
    **OPTIONS,
)


def ask(count: int = 1) -> Dict[str, Any]:
    """Ask; say how many answers there were, who gave the last one, and how long the slowest took."""
    slowest_s, last, failed = 0.0, None, []
    for _ in range(count):
        began = time.monotonic()
        try:
            last = client.chat("Hello").endpoint
        except FailoverError as error:
            failed.append(str(error))
        slowest_s = max(slowest_s, time.monotonic() - began)
    return {"endpoint": last, "failed": failed, "slowest_s": slowest_s}


def status() -> Dict[str, Any]:
    """Say what this process knows."""
    now = client.status()
    health = {endpoint.name: endpoint.status.value for endpoint in now.endpoints}
    breakers = {endpoint.name: endpoint.breaker.value for endpoint in now.endpoints}
    return {"state": now.state, "health": health, "breakers": breakers}


def wait(what: str, name: str, value: str, patience_s: float = 20.0) -> float:
    """Wait until something is known, and say at what time that was; 0 if never."""
    until = time.time() + patience_s
    while time.time() < until:
        if status()[what][name] == value:
            return time.time()
        time.sleep(0.002)
    return 0.0


def probes(name: str) -> bool:
    """Say whether this process probes an endpoint."""
    return client.registry.peers.may_probe(name)


def start() -> bool:
    """Begin to probe."""
    return client.wait_until_ready()


def close() -> None:
    """Close the client."""
    client.close()


COMMANDS: Dict[str, Callable[..., Any]] = {f.__name__: f for f in (ask, status, wait, probes, start, close)}


def say(what: Any) -> None:
    """Answer."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    say("ready")
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        say(COMMANDS[command](*arguments))
