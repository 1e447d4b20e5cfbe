"""How the tests start the command line: in a process of its own, with a made-up configuration."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, Tuple

from syncfailover.settings import KEY_VARIABLES
from syncfailover.settings_environ import URL_VARIABLES
from syncfailover.testing import FakeUpstream

KEY = "sk-made-up-0123456789"
#: What of a developer's environment would change what is tested.
PRIVATE = (
    *(name for names in KEY_VARIABLES.values() for name in names),
    *URL_VARIABLES.values(),
    *("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"),
)


def clean_environment(**extra: str) -> Dict[str, str]:
    """Return the environment without keys, proxies and settings, and with these variables."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in PRIVATE and not name.startswith("SYNCFAILOVER_")
    }
    return {**kept, **extra}


def command(*words: str, **environment: str) -> Dict[str, Any]:
    """Say how to start the command line in a process of its own."""
    return {
        "args": [sys.executable, "-m", "syncfailover", *words],
        "env": clean_environment(**environment),
        "stderr": subprocess.PIPE,
        "text": True,
    }


def run(*words: str, piped: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line to its end, with `piped` on its stdin."""
    return subprocess.run(
        **command(*words, **environment), stdout=subprocess.PIPE, input=piped, timeout=20, check=False
    )


def into_closed_pipe(*words: str) -> Tuple[int, str]:
    """Run a command that nobody listens to; return its exit code and what it complains of."""
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(**command(*words), stdout=writing, stdin=subprocess.DEVNULL) as process:
        os.close(writing)
        _, complaint = process.communicate(timeout=20)
        return process.returncode, complaint


def interrupt(process: "subprocess.Popen[str]", number: int = signal.SIGINT) -> Tuple[int, str, str]:
    """Send a process that signal; return its exit code and what it wrote to stdout and stderr."""
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def config_of(folder: Path, upstreams: Iterable[FakeUpstream], *options: str) -> str:
    """Write a configuration file with these endpoints, the first one first, and lines of options; return its path."""
    lines = [*options]
    for weight, up in enumerate(reversed(list(upstreams)), start=1):
        lines += ["[[endpoints]]", f'name = "{up.name}"', f'base_url = "{up.url}"', f"weight = {weight}"]
        lines += ['api_key = "${TEST_KEY}"', 'prices = { "gpt-4.1" = 8.0 }']
    path = folder / "test.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)
