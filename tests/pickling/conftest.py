"""What the tests of pickles share: clients whose keys have a source, and a process that works for them."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from pickles import SECRET, block

from syncfailover import FailoverClient
from syncfailover.runtime import metrics as metrics_module
from syncfailover.runtime import registry as registry_module
from syncfailover.testing import FakeUpstream


@pytest.fixture
def forgetful() -> None:
    """Forget what earlier tests have unpickled."""
    registry_module._rebuilt._begin()
    metrics_module._rebuilt._begin()


@pytest.fixture
def upstreams(fake_upstreams: Callable[..., List[FakeUpstream]]) -> List[FakeUpstream]:
    """Three upstreams that all say the same."""
    return fake_upstreams(3, text="Hello from upstream.")


@pytest.fixture(scope="session")
def worker() -> Iterator[ProcessPoolExecutor]:
    """One process for several tests, spawned with the key of these tests in its environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PICKLED_KEY", SECRET)
        executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        executor.submit(os.getpid).result(60)
    with executor:
        yield executor


@pytest.fixture
def from_variable(upstreams: List[FakeUpstream], monkeypatch: Any) -> Any:
    """A client of three endpoints whose key is in a variable; closed after the test."""
    monkeypatch.setenv("PICKLED_KEY", SECRET)
    blocks = [block(up.url, name, api_key="${PICKLED_KEY}") for name, up in zip("abc", upstreams)]
    with FailoverClient.from_mapping({"endpoints": blocks, "model": "m", "probe_when": "never"}) as client:
        yield client


@pytest.fixture
def from_file(upstreams: List[FakeUpstream], tmp_path: Path) -> Any:
    """A client of a settings file that holds its keys as text; closed after the test."""
    path = tmp_path / "llm.toml"
    lines = ["model = 'm'", "probe_when = 'never'"]
    for name, up in zip("abc", upstreams):
        lines += [
            "[[endpoints]]",
            f"name = '{name}'",
            f"base_url = '{up.url}'",
            f"api_key = '{SECRET}-{name}'",
        ]
    path.write_text("\n".join(lines), encoding="utf-8")
    with FailoverClient.from_file(path) as client:
        yield client
