"""multiprocessing: a pool started in each way that there is; its workers have the program's client, forked or made anew."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import List

import pytest
from serving import PATIENCE_S, SITES, environ_of

from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server

#: Seconds that a program may go on after its last word.
EXIT_S = 3.0


@pytest.mark.parametrize("warm", ["", "1"], ids=["unused", "used by the parent"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_endpoint_dies_under_load(
    method: str, warm: str, tmp_path: Path, echoes: List[FakeUpstream]
) -> None:
    """No call fails, each process counts its own, and the program, which closes nothing, ends at once and silently."""
    command = [
        sys.executable,
        "-W",
        "ignore:This process:DeprecationWarning",
        str(SITES / "pool_program.py"),
        method,
    ]
    environ = environ_of(echoes, tmp_path / "log", WARM=warm)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True) as program:
        answers = []
        for line in program.stdout:
            answers.append(json.loads(line))
            if len(answers) == 60:
                echoes[0].kill()
            if len(answers) == 140:
                echoes[0].revive()
        said = time.monotonic()
        stderr = program.stderr.read()
        assert (program.wait(PATIENCE_S), stderr) == (0, "")
        assert time.monotonic() - said < EXIT_S
    assert len(answers) == 201
    assert [answer for answer in answers if answer["text"] != answer["question"]] == []
    workers = {answer["pid"] for answer in answers[:-1]}
    assert len(workers) == 2
    assert answers[-1]["pid"] not in workers
    assert {(answer["mode"], answer["inherited"]) for answer in answers} == {("active", False)}
    counts = [max(answer["calls"] for answer in answers if answer["pid"] == pid) for pid in workers]
    used_by_each = 3 if warm and method != "fork" else 0
    assert sum(counts) == 200 + 2 * used_by_each
