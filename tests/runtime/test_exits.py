"""Programs that forget `close()`: they end at once and silently, whatever their threads are at."""

import json
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List

import pytest

from syncfailover.testing import FakeUpstream, Hang, Stream

#: Seconds that a program may go on after its last word; most of it is Python taking itself apart, on a busy machine.
EXIT_S = 2.0

#: What each program begins with: an endpoint that never answers is "slow"; `last_word` is the last thing that it does.
BEGIN = """
import atexit, gc, json, os, sys, threading
def last_word(word="done"):
    print(word, flush=True)
URLS = json.loads(sys.argv[1])
"""
CLIENT = """
from syncfailover import Endpoint, FailoverClient
def client_of(*names, **options):
    endpoints = [Endpoint(name, URLS[name]) for name in names]
    return FailoverClient(endpoints, model="m", probe_interval=0.05, **options)
"""

PROGRAMS: Dict[str, str] = {
    "after calls": BEGIN
    + CLIENT
    + """
client = client_of("a", "b", "c")
client.wait_until_ready()
for _ in range(6):
    client.chat("Hi")
last_word()
""",
    "while threads call": BEGIN
    + CLIENT
    + """
client = client_of("a", "b", "c")
def work():
    while True:
        client.chat("Hi", stream=True).collect()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
while client.metrics()["total_requests"] < 20:
    client.chat("Hi")
last_word()
""",
    "while threads wait for an answer": BEGIN
    + CLIENT
    + """
client = client_of("slow")
for stream in (False, True):
    threading.Thread(target=client.chat, args=("Hi",), kwargs={"stream": stream}, daemon=True).start()
while client.status()["slow"].in_flight < 2:
    pass
last_word()
""",
    "while threads wait in line": BEGIN
    + CLIENT
    + """
client = client_of("a", queue_timeout=20.0)
client.registry.force_open("a")
for _ in range(2):
    threading.Thread(target=client.chat, args=("Hi",), daemon=True).start()
while client.registry.waiting() < 2:
    pass
last_word()
""",
    "with a stream half read": BEGIN
    + CLIENT
    + """
stream = client_of("streaming").chat("Hi", stream=True)
next(iter(stream))
last_word()
""",
    "with a call at exit": BEGIN
    + """
def at_exit():
    last_word(client.chat("Hi").text)
    last_word(client.chat("Hi", stream=True).collect().text)
atexit.register(at_exit)
"""
    + CLIENT
    + """
client = client_of("a", "b")
client.wait_until_ready()
client.chat("Hi")
""",
    "with the first call at exit": BEGIN
    + CLIENT
    + """
client = client_of("a", "b", hedge_after="p95")
atexit.register(lambda: (client.wait_until_ready(), last_word(client.chat("Hi").text)))
""",
    "while it is probed": BEGIN
    + """
def at_exit():
    before = client.registry.probed_at("a")
    while client.registry.probed_at("a") == before:
        pass
    last_word()
atexit.register(at_exit)
"""
    + CLIENT
    + """
client = client_of("a")
client.wait_until_ready()
""",
    "with a call when it is dropped": BEGIN
    + CLIENT
    + """
class Dropped:
    def __init__(self):
        self.client = client_of("a", "b")
        self.client.wait_until_ready()
        self.client.chat("Hi")
        self.itself = self
    def __del__(self):
        last_word(self.client.chat("Hi").text)
Dropped()
""",
    "in a child and in its parent": BEGIN
    + CLIENT
    + """
client = client_of("a", "b", "c")
client.chat("Hi")
child = os.fork()
client.chat("Hi")
if child:
    os.waitpid(child, 0)
last_word()
""",
    "by sys.exit": BEGIN
    + CLIENT
    + """
client = client_of("a", "b", "c")
client.chat("Hi")
last_word()
sys.exit(0)
""",
}


@pytest.fixture
def urls(fake_upstreams: Callable[..., List[FakeUpstream]]) -> Dict[str, str]:
    """Where the upstreams are: three that answer, one that never does, one that streams for a minute."""
    upstreams = dict(zip(["a", "b", "c", "slow", "streaming"], fake_upstreams(5)))
    upstreams["slow"].calls.always(Hang())
    upstreams["streaming"].calls.always(Stream(tokens=600, interval_s=0.1))
    return {name: upstream.url for name, upstream in upstreams.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_forgets_to_close(name: str, urls: Dict[str, str]) -> None:
    """It ends soon after its last word, with status 0, and says nothing that it did not mean to say."""
    # Since 3.12 Python says of any fork of a program with threads that it may end badly.
    warn = ["-W", "always", "-W", "ignore:This process"]
    command: List[Any] = [sys.executable, *warn, "-c", PROGRAMS[name], json.dumps(urls)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as program:
        words = []
        for word in program.stdout:
            words.append(word.strip())
            spoken = time.monotonic()
        stderr = program.stderr.read()
        assert (program.wait(20.0), stderr) == (0, "")
        assert time.monotonic() - spoken < EXIT_S
    assert words
    assert set(words) <= {"done", *(f"Hello from upstream-{number}." for number in range(1, 6))}
