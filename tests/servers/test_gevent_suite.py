"""gevent: the suite's core in a process in which everything is patched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.server

HERE = Path(__file__).parent
#: Seconds for a share of the suite, on a machine that has other things to do.
SUITE_S = 400.0
#: Shares that take about as long as each other.
CORE = {
    "what decides": ["policy", "completion", "scenarios"],
    "what acts": ["runtime"],
    "doors": ["api", "contrib", "test_[n-z]*.py"],
    "calls": ["test_[a-m]*.py"],
}


@pytest.mark.parametrize("share", CORE)
def test_the_suites_core_runs_patched(share: str) -> None:
    """All is well but for what `patched_suite.py` leaves out."""
    tests = HERE.parent
    places = [place for pattern in CORE[share] for place in sorted(tests.glob(pattern))]
    command = [sys.executable, str(HERE / "patched_suite.py"), *map(str, places)]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    try:
        run = subprocess.run(
            command, cwd=tests.parent, env=outside, capture_output=True, timeout=SUITE_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"not done after {SUITE_S:g} s: {str(late.output)[-3000:]}") from None
    assert run.returncode == 0, (run.stdout + run.stderr).decode()[-6000:]
