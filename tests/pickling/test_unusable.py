"""What cannot be rebuilt where a pickle is loaded: whoever uses it is told why, and nobody else suffers."""

import copy
import functools
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable, List

import pytest
import requests
from pickled_work import ask, forget
from pickles import MODEL_OPENAI, SECRET, block, made, why_unusable

from syncfailover import (
    ConfigurationError,
    Endpoint,
    EndpointRegistry,
    FailoverAdapter,
    FailoverClient,
    FailoverSession,
    unpickling,
)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

MISSING = "endpoint 'a': api_key: the environment variable PICKLED_KEY is not set, or empty"


@pytest.fixture
def missing(monkeypatch: Any) -> FailoverClient:
    """A client whose variable is gone by the time that a pickle of it is loaded."""
    monkeypatch.setenv("PICKLED_KEY", SECRET)
    settings = {"model": "m", "endpoints": [block("http://127.0.0.1:9", api_key="${PICKLED_KEY}")]}
    client = FailoverClient.from_mapping(settings)
    monkeypatch.delenv("PICKLED_KEY")
    return client


def parts(client: FailoverClient) -> List[Any]:
    """Everything of a client that pickles and is of no use without its key."""
    return [
        client,
        client.with_options(),
        client.registry,
        client.registry["a"],
        client.session,
        client._caller,
    ]


def test_loading_raises_nothing_and_using_tells(missing: FailoverClient) -> None:
    """It is an instance of what it stands for, and any attribute of it says what is missing."""
    for thing in parts(missing):
        assert why_unusable(pickle.dumps(thing)) == MISSING
        twin = pickle.loads(pickle.dumps(thing))  # noqa: S301 - our own
        assert isinstance(twin, type(thing))
        assert not hasattr(twin, "__dask_graph__")


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.chat("Hi"),
        lambda client: client.chat.completions.create(messages=[]),
        lambda client: client.with_options(timeout=5),
        lambda client: client.__enter__(),
        lambda client: setattr(client, "timeout", 5),
        lambda client: FailoverClient(client.registry),
        lambda client: client.close(),
    ],
)
def test_no_use_of_a_client_goes_unanswered(use: Callable[[Any], Any], missing: FailoverClient) -> None:
    """Whatever is done with it first, the error is the same."""
    twin = pickle.loads(pickle.dumps(missing))  # noqa: S301 - our own
    with pytest.raises(ConfigurationError, match=MISSING):
        use(twin)


def test_no_use_of_its_parts_goes_unanswered(missing: FailoverClient) -> None:
    """Registry, endpoint, session, calls and a mounted session tell the same, also handed to something new."""
    plain = requests.Session()
    missing.registry.mount(plain, MODEL_OPENAI)
    things = (missing.registry, missing.registry["a"], missing.session, missing.chat, plain)
    registry, endpoint, session, chat, mounted = pickle.loads(pickle.dumps(things))  # noqa: S301 - our own
    assert isinstance(mounted.get_adapter(MODEL_OPENAI + "/"), FailoverAdapter)
    uses: List[Callable[[], Any]] = [
        lambda: registry.acquire(["b"]),
        lambda: registry["a"],
        lambda: FailoverClient(registry),
        lambda: EndpointRegistry([endpoint]),
        lambda: FailoverSession([made(name="b"), endpoint]),
        lambda: endpoint.replace(weight=2),
        lambda: session.post("/chat/completions", json={}),
        lambda: chat("Hi"),
        lambda: mounted.post(MODEL_OPENAI + "/chat/completions", json={}),
    ]
    for use in uses:
        with pytest.raises(ConfigurationError, match=MISSING):
            use()


def test_it_travels_on_to_where_it_can_be_used(missing: FailoverClient, monkeypatch: Any) -> None:
    """A worker that lacks the key hands the same pickle on; and a copy tries again."""
    twins = [pickle.loads(pickle.dumps(thing)) for thing in parts(missing)]  # noqa: S301 - our own
    pickles = [pickle.dumps(twin) for twin in twins]
    assert not any(SECRET.encode() in pickled for pickled in pickles)
    monkeypatch.setenv("PICKLED_KEY", "new")
    for thing, pickled in zip(parts(missing), pickles):
        assert type(pickle.loads(pickled)) is type(thing)  # noqa: S301 - our own
    assert pickle.loads(pickles[0]).registry["a"].key() == "new"  # noqa: S301 - our own
    assert copy.deepcopy(twins[3]).key() == "new"
    assert isinstance(twins[3], Endpoint)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_does_not_wait_for_a_task_that_lacks_its_key(method: str, missing: FailoverClient) -> None:
    """The task fails and names the variable; an error in loading would have a pool wait forever."""
    with multiprocessing.get_context(method).Pool(1, forget, ("PICKLED_KEY",)) as pool:
        doing = pool.map_async(functools.partial(ask, missing), ["Hi", "there"])
        with pytest.raises(ConfigurationError, match=MISSING):
            doing.get(60)
        assert pool.apply(abs, (-1,)) == 1


def test_an_executor_goes_on_after_a_task_that_lacks_its_key(missing: FailoverClient) -> None:
    """The task fails and names the variable; an error in loading would break the executor."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, context, initializer=forget, initargs=("PICKLED_KEY",)) as executor:
        error = executor.submit(ask, missing, "Hi").exception(60)
        assert executor.submit(abs, -1).result(60) == 1
    assert isinstance(error, ConfigurationError)
    assert str(error) == MISSING


def test_a_pickle_of_another_version_is_refused(missing: FailoverClient, monkeypatch: Any) -> None:
    """It may mean something else here; the error names both versions."""
    monkeypatch.setenv("PICKLED_KEY", SECRET)
    pickles = [pickle.dumps(thing) for thing in parts(missing)]
    monkeypatch.setattr(unpickling, "__version__", "9.9")
    for pickled in pickles:
        assert why_unusable(pickled).startswith("pickle: one of syncfailover ")
        assert why_unusable(pickled).endswith("expected one of 9.9, which is here")
