"""mod_wsgi says that an interpreter ends; then no thread of ours is left in it. tests/servers has the real one."""

import subprocess
import sys

from syncfailover.testing import FakeUpstream

#: mod_wsgi puts itself into each of its interpreters before anything else is imported there.
PROGRAM = """
import sys, threading, types
subscribed = []
sys.modules["mod_wsgi"] = types.SimpleNamespace(subscribe_shutdown=subscribed.append)
from syncfailover import Endpoint, FailoverClient
def ours():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("syncfailover-")]
endpoints = [Endpoint(name, sys.argv[1], f"sk-{name}") for name in "ab"]
client = FailoverClient(
    endpoints, model="m", probe_interval=0.05, state=f"sqlite:///{sys.argv[2]}", hedge_after=20.0
)
client.chat("Hello")
client.chat("Hello", stream=True).collect()
client.wait_until_ready()
before = ours()
assert {"syncfailover-monitor", "syncfailover-peers", "syncfailover-timer"} <= set(before), before
for callback in subscribed:
    callback("process_stopping", shutdown_reason="shutdown_signal")
assert not ours(), ours()
other = FailoverClient(endpoints, model="m")
print(client.chat("Hello").text, other.chat("Hello").text)
assert not ours(), ours()
"""


def test_no_thread_outlives_the_announcement(tmp_path):
    """All threads end when the end is announced, none starts any more, and the last requests are served, silently."""
    with FakeUpstream("a", text="{prompt}") as upstream:
        command = [sys.executable, "-c", PROGRAM, upstream.url, str(tmp_path / "health.sqlite")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("Hello Hello\n", "")
