"""Dask: real workers of `distributed`, in processes of their own, that share clients with the program."""

import os
from typing import Any, Iterator, List, Tuple

import dask
import pytest
from distributed import Client, LocalCluster, get_worker
from pickled_work import ask
from pickles import SECRET, block

from syncfailover import ConfigurationError, FailoverClient
from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.server


@pytest.fixture
def workers(monkeypatch: Any) -> Iterator[Client]:
    """Two workers with two threads each, in whose environment the key of these tests is."""
    monkeypatch.setenv("PICKLED_KEY", SECRET)
    options = {"n_workers": 2, "threads_per_worker": 2, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as dask_client:
        yield dask_client


@pytest.fixture
def client(workers: Client, echoes: List[FakeUpstream]) -> Iterator[FailoverClient]:
    """A client whose key is in a variable."""
    blocks = [block(up.url, name, api_key="${PICKLED_KEY}") for name, up in zip("abc", echoes)]
    with FailoverClient.from_mapping({"endpoints": blocks, "model": "m"}) as made:
        yield made


def test_an_endpoint_dies_under_load(
    workers: Client, client: FailoverClient, echoes: List[FakeUpstream]
) -> None:
    """A map over 400 prompts, the client among its arguments: no call fails, and each worker has one registry for all of it."""

    def work(prompt: str, llm: FailoverClient) -> Tuple[str, int, str]:  # by value, for it is a closure
        return get_worker().address, id(llm.registry), llm.chat(prompt).text

    prompts = [f"prompt {number}" for number in range(400)]
    futures = workers.map(work, prompts, llm=client)
    assert echoes[0].calls.wait_for(30, 60.0)
    echoes[0].kill()
    seen = len(echoes[1].calls.requests)
    assert echoes[1].calls.wait_for(seen + 30, 60.0)
    echoes[0].revive()
    found = workers.gather(futures)
    assert [text for _worker, _registry, text in found] == prompts
    assert len({worker for worker, _registry, _text in found}) == 2
    assert len({(worker, registry) for worker, registry, _text in found}) == 2
    assert client.metrics()["total_requests"] == 0
    sent = {request.header("authorization") for up in echoes for request in up.calls.requests}
    assert sent == {f"Bearer {SECRET}"}


def test_every_way_to_hand_a_client_over(workers: Client, client: FailoverClient) -> None:
    """As an argument, scattered, in a delayed function, as a method, and back from a worker to the program."""
    assert workers.submit(ask, client, "one").result(60) == "one"
    [scattered] = workers.scatter([client], broadcast=True)
    assert workers.submit(ask, scattered, "two").result(60) == "two"
    assert dask.compute(*[dask.delayed(ask)(client, prompt) for prompt in "abc"]) == ("a", "b", "c")
    assert workers.submit(client.chat, "three").result(60).text == "three"
    returned = workers.submit(lambda llm: llm, client, pure=False).result(60)
    assert returned.chat("four").text == "four"
    returned.close()


def test_a_worker_that_dies_has_its_work_done_elsewhere(workers: Client, client: FailoverClient) -> None:
    """The client travels on to the worker that takes its place."""

    def work(prompt: str, llm: FailoverClient) -> str:
        return str(llm.chat(prompt).text)

    def die(path: str) -> str:
        if not os.path.exists(path):  # noqa: PTH110 - runs in a worker, by value
            open(path, "w").close()  # noqa: PTH123
            os._exit(1)
        return "died once"

    flag = f"/tmp/syncfailover-dask-{os.getpid()}"  # noqa: S108 - removed below
    try:
        dying = workers.submit(die, flag)
        futures = workers.map(work, [f"prompt {number}" for number in range(100)], llm=client)
        assert dying.result(60) == "died once"
        assert workers.gather(futures) == [f"prompt {number}" for number in range(100)]
    finally:
        os.unlink(flag)  # noqa: PTH108


def test_what_is_missing_or_refused_is_the_error_of_the_task(
    workers: Client, client: FailoverClient, monkeypatch: Any
) -> None:
    """A variable that the workers lack is named, a literal key does not leave the program, and no worker is lost."""
    at_work = set(workers.scheduler_info()["workers"])
    monkeypatch.setenv("ONLY_HERE", "key")
    blocks = [block("http://127.0.0.1:9", api_key="${ONLY_HERE}")]
    only_here = FailoverClient.from_mapping({"endpoints": blocks, "model": "m"})
    with pytest.raises(ConfigurationError, match="the environment variable ONLY_HERE is not set"):
        workers.submit(ask, only_here, "Hi").result(60)
    literal = FailoverClient([client.registry["a"].replace(api_key=SECRET)], model="m")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of a type that Dask chooses
        workers.submit(ask, literal, "Hi").result(60)
    errors = [caught.value]
    while errors[-1].__cause__ is not None:
        errors.append(errors[-1].__cause__)
    assert any(isinstance(error, ConfigurationError) for error in errors)
    assert SECRET not in str(errors)
    assert workers.submit(ask, client, "still there").result(60) == "still there"
    assert set(workers.scheduler_info()["workers"]) == at_work
