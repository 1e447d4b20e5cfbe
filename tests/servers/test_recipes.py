"""The recipes for more than one machine: the very programs of examples/, with real workers, one of which is killed."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

import pytest
from redis_servers import RedisServer
from serving import PATIENCE_S, children, eventually, free_port, program

from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROMPTS = [f"prompt {number}" for number in range(300)]


@pytest.fixture
def place(tmp_path: Path, echoes: List[FakeUpstream]) -> Iterator[Dict[str, str]]:
    """An environment with keys for two upstreams and a Redis, and a file of prompts."""
    server = RedisServer(tmp_path).start()
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    yield {
        **os.environ,
        "HOLYSHEEP_API_KEYS": "key-1,key-2",
        "HOLYSHEEP_BASE_URL": echoes[0].url,
        "OPENROUTER_API_KEY": "key-3",
        "OPENROUTER_BASE_URL": echoes[1].url,
        "REDIS_URL": server.url,
        "C_FORCE_ROOT": "1",
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES), *sys.path]),
    }
    server.kill()


@contextmanager
def running(
    command: Sequence[str], home: Path, environ: Dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program beside the test; what it says is in a file."""
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=home, env=environ, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()


@contextmanager
def asking(example: str, home: Path, environ: Dict[str, str], *before: str) -> Iterator[Any]:
    """Run a recipe over the prompts; yield a function that returns its answers once they are all there."""
    command = [sys.executable, str(EXAMPLES / example), *before, str(home / "prompts.txt")]
    with subprocess.Popen(command, cwd=home, env=environ, stdout=subprocess.PIPE) as process:
        yield lambda: [json.loads(line) for line in process.communicate(timeout=90)[0].splitlines()]
        process.kill()


def asked(upstreams: Sequence[FakeUpstream]) -> int:
    """Count the calls that arrived."""
    return sum(len(upstream.calls.requests) for upstream in upstreams)


def test_celery_answers_all_prompts_and_repeats_none_when_it_is_asked_again(
    place: Dict[str, str], tmp_path: Path, echoes: List[FakeUpstream]
) -> None:
    """A process of the worker is killed, and an endpoint: every prompt has its own answer, in order; then nothing is asked twice."""
    worker = ["-A", "celery_prompts", "worker", "--concurrency=4", "--loglevel=error"]
    with running([program("celery"), *worker], tmp_path, place) as celery:
        with asking("celery_prompts.py", tmp_path, place) as answers:
            eventually(lambda: asked(echoes) > 50, "the first prompts are asked")
            os.kill(children(celery.pid)[0], signal.SIGKILL)
            eventually(lambda: asked(echoes) > 120, "more prompts are asked")
            echoes[0].kill()
            assert [answer.get("text") for answer in answers()] == PROMPTS
        before = asked(echoes)
        with asking("celery_prompts.py", tmp_path, place) as answers:
            assert [answer.get("text") for answer in answers()] == PROMPTS
        assert asked(echoes) == before


def test_dask_answers_all_prompts_though_a_worker_is_killed(
    place: Dict[str, str], tmp_path: Path, echoes: List[FakeUpstream]
) -> None:
    """A worker is killed, and an endpoint: every prompt has its own answer, in order; no key travels to the scheduler."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "dask"]
    keyless = {name: value for name, value in place.items() if not name.endswith(("_KEY", "_KEYS"))}
    with ExitStack() as stack:
        scheduler = [*dask, "scheduler", "--host=127.0.0.1", f"--port={port}", "--no-dashboard"]
        stack.enter_context(running(scheduler, tmp_path, keyless))
        options = ["--host=127.0.0.1", "--no-nanny", "--nthreads=4", "--no-dashboard"]
        workers = [
            stack.enter_context(running([*dask, "worker", address, *options], tmp_path, place))
            for _ in range(2)
        ]
        answers = stack.enter_context(asking("dask_prompts.py", tmp_path, place, address))
        eventually(lambda: asked(echoes) > 30, "the first prompts are asked")
        workers[0].kill()
        eventually(lambda: asked(echoes) > 120, "more prompts are asked")
        echoes[0].kill()
        assert [answer.get("text") for answer in answers()] == PROMPTS
    log = (tmp_path / "log").read_text()
    assert not [key for key in ("key-1", "key-2", "key-3") if key in log]
