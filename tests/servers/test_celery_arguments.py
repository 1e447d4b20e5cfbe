"""Celery: clients as arguments of tasks, pickled, in the two processes of a real worker."""

import base64
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from pickles import SECRET, block
from serving import PATIENCE_S, SITES, program

from syncfailover import ConfigurationError, FailoverClient
from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: Any) -> Iterator[Any]:
    """The module of tasks, whose queue is a directory."""
    for folder in ("queue", "control", "results"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("CELERY_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(SITES))
    yield import_module("argument_tasks")
    del sys.modules["argument_tasks"]


@contextmanager
def worker(home: Path) -> Iterator[None]:
    """Run a worker with two processes, in whose environment the key of these tests is."""
    environ = {name: value for name, value in os.environ.items() if name != "ONLY_HERE"}
    environ.update(PICKLED_KEY=SECRET, C_FORCE_ROOT="1", PYTHONPATH=os.pathsep.join(sys.path))
    command = [program("celery"), "-A", "argument_tasks", "worker", "--concurrency=2", "--loglevel=error"]
    with (home / "log").open("wb") as log:
        running = subprocess.Popen(command, cwd=home, env=environ, stdout=log, stderr=log)
        try:
            yield
        finally:
            running.send_signal(signal.SIGQUIT)
            running.wait(PATIENCE_S)


def client_of(upstreams: List[FakeUpstream], variable: str) -> FailoverClient:
    """Make a client whose key is in a variable."""
    blocks = [block(up.url, name, api_key=f"${{{variable}}}") for name, up in zip("abc", upstreams)]
    return FailoverClient.from_mapping({"endpoints": blocks, "model": "m"})


def test_a_client_is_an_argument(
    tasks: Any, tmp_path: Path, echoes: List[FakeUpstream], monkeypatch: Any
) -> None:
    """Each process has one registry for all its tasks; no message holds a key, and a task whose key is missing fails alone."""
    monkeypatch.setenv("PICKLED_KEY", SECRET)
    monkeypatch.setenv("ONLY_HERE", SECRET)
    client, only_here = client_of(echoes, "PICKLED_KEY"), client_of(echoes, "ONLY_HERE")
    literal = FailoverClient([client.registry["a"].replace(api_key=SECRET)], model="m")

    prompts = [f"prompt {number}" for number in range(40)]
    missing = tasks.ask.delay(only_here, "Hi")
    asked = [tasks.ask.delay(client, prompt) for prompt in prompts]
    with pytest.raises(Exception, match="endpoint 'a': api_key: "):
        tasks.ask.delay(literal, "Hi")
    bodies = [json.loads(path.read_bytes())["body"] for path in (tmp_path / "queue").iterdir()]
    assert len(bodies) == 41
    assert not any(SECRET.encode() in base64.b64decode(body) for body in bodies)

    echoes[0].kill()
    with worker(tmp_path):
        found = [result.get(60, interval=0.02) for result in asked]
        with pytest.raises(ConfigurationError, match="the environment variable ONLY_HERE is not set"):
            missing.get(60, interval=0.02)
        assert tasks.ask.delay(client, "still there").get(60, interval=0.02)[2] == "still there"
    assert [text for _pid, _registry, text in found] == prompts
    assert len({(pid, registry) for pid, registry, _ in found}) == len({pid for pid, _, _ in found})
    assert SECRET not in (tmp_path / "log").read_text()
