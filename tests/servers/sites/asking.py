"""What legacy code does: one client per program, made at import. Every site here serves these two functions.

The environment says where the upstreams are (`UPSTREAMS`, JSON), where the package may log (`LOG`), and whether the
client is used before anybody forks (`WARM`), so that its threads and idle connections are there to be inherited. It may
say where all processes share what they know (`STATE`), and how often they probe (`PROBE_INTERVAL`, seconds).
"""

import json
import logging
import os
from typing import Any, Dict

from syncfailover import Endpoint, FailoverClient

log = logging.FileHandler(os.environ["LOG"])
log.setFormatter(logging.Formatter("%(process)d %(levelname)s %(message)s"))
logging.getLogger("syncfailover").addHandler(log)

client = FailoverClient(
    [
        Endpoint(name, url, f"sk-{name}", max_latency_ms=5000.0)
        for name, url in json.loads(os.environ["UPSTREAMS"]).items()
    ],
    model="gpt-4.1",
    balancer="round_robin",
    timeout=20.0,
    probe_interval=float(os.environ.get("PROBE_INTERVAL", "0.2")),
    state=os.environ.get("STATE"),
)
if os.environ.get("WARM"):
    client.wait_until_ready()
    for _ in range(3):
        client.chat("Hello")


def ask(question: str, stream: bool) -> Dict[str, Any]:
    """Answer a question, and say who does."""
    reply = client.chat(question, stream=True).collect() if stream else client.chat(question)
    return {"text": reply.text, "pid": os.getpid()}


def state() -> Dict[str, Any]:
    """Say what this process knows."""
    now = client.status()
    return {
        "pid": os.getpid(),
        "mode": now.mode,
        "inherited": now.inherited,
        "state": now.state,
        "health": {endpoint.name: endpoint.status.value for endpoint in now.endpoints},
        "calls": client.metrics()["total_requests"],
    }
