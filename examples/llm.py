"""The one client of this process; the other examples import it from here.

Real keys come from the environment, separated by commas:

    HOLYSHEEP_API_KEYS=key-1,key-2 OPENROUTER_API_KEY=key-3 python examples/cron_job.py

Without them, or with SYNCFAILOVER_DEMO=1, two endpoints run inside this process and no network is needed.
"""

import os
import sys

from syncfailover import Endpoint, FailoverClient, providers
from syncfailover.testing import FakeUpstream

keys = [key for key in os.environ.get("HOLYSHEEP_API_KEYS", "").split(",") if key]
demo = not keys or os.environ.get("SYNCFAILOVER_DEMO") == "1"
upstreams = [FakeUpstream(f"relay-{number}").start() for number in (1, 2)] if demo else []

if not keys and "SYNCFAILOVER_DEMO" not in os.environ:
    print("no keys in HOLYSHEEP_API_KEYS: two fake endpoints answer", file=sys.stderr)
if demo:
    endpoints = [Endpoint(upstream.name, upstream.url, prices={"gpt-4.1": 8.0}) for upstream in upstreams]
else:
    endpoints = providers.holysheep(*keys)
    if "OPENROUTER_API_KEY" in os.environ:  # asked only while no key of the relay works
        endpoints.append(providers.openrouter(os.environ["OPENROUTER_API_KEY"], priority=1))

# Made at import, once per process, and shared by all threads. That is fine before a server forks its workers, too:
# the client opens no connection and starts no thread before its first call.
client = FailoverClient(endpoints, model="gpt-4.1", timeout=30)
