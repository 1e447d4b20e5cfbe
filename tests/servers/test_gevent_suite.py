"""gevent: the suite's core in processes in which everything is patched."""

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

pytestmark = pytest.mark.server

HERE = Path(__file__).parent
#: Seconds for a share of the suite, on a machine that has other things to do.
SUITE_S = 400.0
#: What is run in one process.
SHARES = {
    "what acts": ["runtime"],
    "doors": ["api", "contrib", "test_[n-z]*.py"],
    "what decides": ["policy", "completion", "scenarios"],
    "calls": ["test_[a-m]*.py"],
}

Run = Future  # of a subprocess.CompletedProcess; Python 3.8 does not let it say so


@pytest.fixture(scope="module")
def runs(request: Any) -> Iterator[Dict[str, Run]]:
    """All shares that are asked for, two at a time: most of their time is waiting."""
    asked = [item.callspec.params["share"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(2) as two:
        yield {share: two.submit(run_patched, share) for share in asked}


def run_patched(share: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a share to its end."""
    tests = HERE.parent
    places = [place for pattern in SHARES[share] for place in sorted(tests.glob(pattern))]
    command = [sys.executable, str(HERE / "patched_suite.py"), *map(str, places)]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        command, cwd=tests.parent, env=outside, capture_output=True, timeout=SUITE_S, check=False
    )


@pytest.mark.parametrize("share", SHARES)
def test_the_suites_core_runs_patched(share: str, runs: Dict[str, Run]) -> None:
    """All is well but for what `patched_suite.py` leaves out."""
    try:
        run = runs[share].result()
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"not done after {SUITE_S:g} s: {str(late.output)[-3000:]}") from None
    assert run.returncode == 0, (run.stdout + run.stderr).decode()[-6000:]
