"""joblib: a client in the arguments, and in closures, of work that real processes do."""

import os
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator, List, Tuple

import joblib
import pytest
from joblib.externals.loky import get_reusable_executor
from pickled_work import ask
from pickles import SECRET, block

from syncfailover import FailoverClient
from syncfailover.testing import FakeUpstream

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture
def client(echoes: List[FakeUpstream], monkeypatch: Any) -> Iterator[FailoverClient]:
    """A client whose key is in a variable; loky's processes are started anew, with that variable, and ended."""
    monkeypatch.setenv("PICKLED_KEY", SECRET)
    blocks = [block(up.url, name, api_key="${PICKLED_KEY}") for name, up in zip("abc", echoes)]
    with FailoverClient.from_mapping({"endpoints": blocks, "model": "m"}) as made:
        yield made
    get_reusable_executor().shutdown(wait=True)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_an_endpoint_dies_under_load(
    backend: str, client: FailoverClient, echoes: List[FakeUpstream]
) -> None:
    """Two processes, or threads, answer 300 prompts in order; no call fails while an endpoint dies and comes back."""
    prompts = [f"prompt {number}" for number in range(300)]
    with ThreadPoolExecutor(1) as aside:
        killing = aside.submit(_kill_in_mid_run, echoes)
        work = (joblib.delayed(ask)(client, prompt) for prompt in prompts)
        assert joblib.Parallel(n_jobs=2, backend=backend)(work) == prompts
        assert killing.result() > 0
    sent = {request.header("authorization") for up in echoes for request in up.calls.requests}
    assert sent == {f"Bearer {SECRET}"}


def _kill_in_mid_run(echoes: List[FakeUpstream]) -> int:
    """Kill the first upstream when it has served, revive it when the others have; tell how much it served."""
    assert echoes[0].calls.wait_for(20, 60.0)
    echoes[0].kill()
    seen = len(echoes[1].calls.requests)
    assert echoes[1].calls.wait_for(seen + 30, 60.0)
    echoes[0].revive()
    return len(echoes[0].calls.requests)


def test_each_process_has_one_registry_for_all_its_tasks(client: FailoverClient) -> None:
    """Tasks that each bring a pickle of their own, by value, find what the earlier ones have learned."""

    def work(prompt: str) -> Tuple[int, int, str]:  # a closure: loky pickles it by value
        return os.getpid(), id(client.registry), client.chat(prompt).text

    prompts = [f"prompt {number}" for number in range(40)]
    found = joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(work)(prompt) for prompt in prompts)
    assert [text for _pid, _registry, text in found] == prompts
    processes = {pid for pid, _registry, _text in found}
    assert os.getpid() not in processes
    assert len({(pid, registry) for pid, registry, _text in found}) == len(processes)


def test_a_client_that_may_not_travel_says_so(echoes: List[FakeUpstream], client: FailoverClient) -> None:
    """The error of joblib tells ours as its cause, which names the endpoint; nothing hangs, and the next work is done."""
    literal = FailoverClient([client.registry["a"].replace(api_key=SECRET)], model="m")
    with pytest.raises(pickle.PicklingError) as caught:
        joblib.Parallel(n_jobs=2)(joblib.delayed(ask)(literal, "Hi") for _ in range(2))
    told = "".join(traceback.format_exception(type(caught.value), caught.value, caught.value.__traceback__))
    assert "NotCarried: endpoint 'a': api_key: a key that was passed as text is not allowed" in told
    assert SECRET not in told
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(ask)(client, p) for p in "ab") == ["a", "b"]
