"""What `import` costs: fresh interpreters, one after the other, each timing only the import itself."""

import importlib.util
import os
import subprocess
import sys

from measure import HERE

BASELINE = "requests"
#: `syncfailover` loads what it exports on first use; `syncfailover.client` is all that a client needs, requests included.
NAMES = (BASELINE, "syncfailover", "syncfailover.client", "openai", "litellm")

_PROGRAM = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import {name}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def installed():
    """Return the names that can be imported here, and of the others that they cannot."""
    absent = {name: "not installed" for name in NAMES if importlib.util.find_spec(name) is None}
    return [name for name in NAMES if name not in absent], absent


def measure(name, cache):
    """Return the seconds of wall clock and of CPU that one import took, its byte code being kept under `cache`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parent),
        "PYTHONPYCACHEPREFIX": cache,  # for all alike, wherever they are installed
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    program = [sys.executable, "-c", _PROGRAM.format(name=name)]
    done = subprocess.run(program, env=environment, cwd=HERE, check=True, capture_output=True, text=True)
    wall, cpu = done.stdout.split()[-2:]
    return float(wall), float(cpu)
