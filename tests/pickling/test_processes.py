"""Pickles in other processes: pools, executors, functions by value; what arrives, and how."""

import functools
import multiprocessing
import pickle
import subprocess
import sys
import time
import timeit
from typing import Any

import pytest
from pickled_work import ask, completing, how_it_is, key, post, run_by_value
from pickles import SECRET, made

from syncfailover import ConfigurationError, FailoverClient
from syncfailover.runtime import metrics as metrics_module
from syncfailover.runtime import registry as registry_module

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_maps_over_a_client(method: str, from_file: FailoverClient, upstreams: Any) -> None:
    """`Pool.map` takes what is closed over a client, a session or a part of it, however its processes are started."""
    prompts = [f"prompt {number}" for number in range(8)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(functools.partial(ask, from_file), prompts) == ["Hello from upstream."] * 8
        assert [reply.text for reply in pool.map(from_file.chat, prompts[:2])] == ["Hello from upstream."] * 2
        over_session = functools.partial(post, from_file.session)
        assert pool.map(over_session, prompts[:2]) == ["Hello from upstream."] * 2
    sent = {request.header("authorization") for up in upstreams for request in up.calls.requests}
    assert sent == {f"Bearer {SECRET}-{name}" for name in "abc"}


def test_an_executor_takes_a_client_as_an_argument(worker: Any, from_variable: FailoverClient) -> None:
    """`ProcessPoolExecutor` works; what arrives has no thread, no count and nothing learned before its first call."""
    from_variable.chat("Hi")
    assert worker.submit(how_it_is, from_variable.with_options(timeout=9)).result(60) == {
        "threads": 1,
        "endpoints": ["a", "b", "c"],
        "total_requests": 0,
        "registry": "<EndpointRegistry a unknown, b unknown, c unknown>",
    }
    assert worker.submit(ask, from_variable, "Hi").result(60) == "Hello from upstream."


def test_a_client_that_may_not_travel_is_the_error_of_its_task(worker: Any) -> None:
    """Neither an executor nor a pool hangs, and both go on."""
    client = FailoverClient([made(api_key=SECRET)], model="m")
    assert isinstance(worker.submit(ask, client, "Hi").exception(60), ConfigurationError)
    assert worker.submit(abs, -1).result(60) == 1
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with pytest.raises(ConfigurationError, match="endpoint 'a': api_key: "):
            pool.map(functools.partial(ask, client), ["Hi"])
        assert pool.apply(abs, (-1,)) == 1


def test_a_function_over_batches_travels_by_value(worker: Any, from_variable: FailoverClient) -> None:
    """What Spark's `mapInPandas` does: cloudpickle takes a closure over a client, another process calls it on batches."""
    import cloudpickle  # noqa: PLC0415 - the other tests need none

    pickled = cloudpickle.dumps(completing(from_variable))
    assert SECRET.encode() not in pickled
    found = worker.submit(run_by_value, pickled, [["a", "b"], ["c"], []]).result(60)
    assert found == [["Hello from upstream."] * 2, ["Hello from upstream."], []]


def test_cloudpickle_takes_no_key_by_value(monkeypatch: Any) -> None:
    """A function whose closure holds a key stays where it is, also for a pickler that would take it along."""
    import cloudpickle  # noqa: PLC0415 - the other tests need none

    secret = SECRET
    for client in (FailoverClient([made(api_key=lambda: secret)]), FailoverClient([made(api_key=SECRET)])):
        with pytest.raises(ConfigurationError, match="endpoint 'a': api_key: "):
            cloudpickle.dumps(completing(client))
    monkeypatch.setattr(sys.modules["pickled_work"], "key", key)
    cloudpickle.register_pickle_by_value(sys.modules["pickled_work"])
    try:
        pickled = cloudpickle.dumps(FailoverClient([made(api_key=key)]))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules["pickled_work"])
    assert b"PICKLED_KEY" not in pickled  # its code would have been there


def test_it_arrives_without_io_and_without_a_thread(from_variable: FailoverClient) -> None:
    """In a fresh interpreter, unpickling opens no socket and no file of ours, and starts no thread."""
    code = (
        "import pickle, socket, sys, threading, syncfailover.client as c; real = socket.socket; made = [];"
        "socket.socket = type('S', (real,), {'__init__': lambda self, *a, **k: (made.append(1), real.__init__(self, *a, **k))[1]});"
        "client = pickle.load(sys.stdin.buffer); before = threading.active_count(), len(made);"
        "print(*before, client.chat('Hi').text, len(made))"
    )
    pickled = pickle.dumps(from_variable)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        input=pickled,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().strip() == "1 0 Hello from upstream. 1"


@pytest.mark.quiet
def test_it_arrives_within_a_millisecond(from_variable: FailoverClient) -> None:
    """Three endpoints, their keys read anew, nothing known of them yet: it takes no longer than making them."""
    pickled = pickle.dumps(from_variable)

    def load() -> None:
        registry_module._rebuilt._begin()
        metrics_module._rebuilt._begin()
        pickle.loads(pickled)  # noqa: S301 - our own

    assert min(timeit.repeat(load, timer=time.thread_time, number=10, repeat=20)) / 10 < 0.001
