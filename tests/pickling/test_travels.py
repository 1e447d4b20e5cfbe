"""What travels in a pickle, and what stays behind; and copies within a process."""

import copy
import pickle
import threading
from decimal import Decimal
from typing import Any, Dict, List

import pytest
import requests
from fleet import endpoints_of
from pickled_work import Named, Sticky, post
from pickles import MODEL_OPENAI, SECRET, block, loaded, made
from urllib3.util.retry import Retry

from syncfailover import (
    Cheapest,
    EndpointRegistry,
    FailoverClient,
    FailoverRetry,
    FailoverSession,
    LeastBusy,
    LowestLatency,
    RoundRobin,
    Timeouts,
    WeightedRoundRobin,
)
from syncfailover.client import _OWN
from syncfailover.policy.breaker import BreakerState
from syncfailover.policy.retry import RetryBudget
from syncfailover.testing import FakeUpstream


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_everything_travels_by_every_protocol(protocol: int, from_file: FailoverClient) -> None:
    """Client, child, session, registry, endpoint, and each part of a client that makes calls."""
    child = from_file.with_options(timeout=4)
    things = [from_file, child, from_file.session, from_file.registry, from_file.registry.endpoints[0]]
    things += [from_file.chat, from_file.chat.completions.create, from_file.completions, from_file.responses]
    things += [from_file.embeddings, from_file.models]
    for thing in things:
        twin = loaded(thing, protocol)
        assert type(twin) is type(thing)
    assert loaded(from_file.chat, protocol)("Hi").text == "Hello from upstream."


def test_the_terms_of_a_client_travel() -> None:
    """Times, retries, waiting, hedging, budget, model and probing are as they were."""
    original = FailoverClient(
        [made()],
        model="m",
        timeout=Timeouts(20.0, 2.0, stall=5.0),
        max_retries=FailoverRetry(
            5, backoff_base_s=0.1, status_forcelist=[418], allowed_methods=["GET"], connect=2
        ),
        queue_timeout=3.0,
        hedge_after=250,
        budget_usd=Decimal("1.25"),
        probe_when="idle",
        probe_interval=7.0,
    )
    twin = loaded(original)
    ours, theirs = original._caller.terms.options(), twin._caller.terms.options()
    retry = theirs["max_retries"]
    assert vars(retry) == vars(ours["max_retries"])
    assert type(retry) is FailoverRetry
    assert retry.new(total=1).backoff_base_s == 0.1
    assert {**theirs, "max_retries": 0} == {**ours, "max_retries": 0}
    assert isinstance(theirs["budget_usd"], Decimal)
    assert (twin._caller.model, twin._monitor.probe_when, twin._monitor.interval) == ("m", "idle", 7.0)
    assert loaded(FailoverClient([made()], max_retries=Retry(2)))._caller.terms.retry.total == 2


def test_every_option_of_a_registry_travels() -> None:
    """What was given, and not with its default, is there; clock, sleep and chance are the other process' own."""
    options: Dict[str, Any] = {
        name: default + 0.5 if isinstance(default, float) else default + 1
        for name, default in (EndpointRegistry.__init__.__kwdefaults__ or {}).items()
        if type(default) in (int, float)
    }
    options.update(balancer="least_busy", failure_rate=0.5)
    twin = loaded(EndpointRegistry([made()], **options))
    assert twin._given == options
    assert len(options) >= 15
    assert loaded(EndpointRegistry([made()]))._given == {}


def test_everything_of_an_endpoint_travels() -> None:
    """Every field is as it was; what has no key travels freely."""
    original = made(
        weight=2.5,
        priority=3,
        health_check_path="models",
        models={"m": "n", "gpt-*": "openai/gpt-*"},
        context_window={"m": 5},
        headers={"HTTP-Referer": "https://example.com", "X-Title": "our app"},
        params={"api-version": "2024-10-21"},
        auth="api-key",
        prices={"m": {"input": 1, "output": Decimal(2)}},
        max_concurrency=4,
        verify=False,
        proxies={"https": "http://proxy:3128", "no": "localhost"},
        call_path="deployments/{model}/{path}",
        fields=["stop"],
    )
    assert loaded(original).keywords() == original.keywords()
    assert loaded(made(proxies={})).proxies == {}
    assert loaded(made()).keywords() == made().keywords()
    assert loaded(original).serves("gpt-4.1") == "openai/gpt-4.1"


def test_the_headers_and_parameters_of_a_child_travel(upstreams: List[FakeUpstream]) -> None:
    """What `with_options` added is sent from the other process, too; the child is a client of its own there."""
    endpoints = [endpoint.replace(api_key=None) for endpoint in endpoints_of(upstreams[:1])]
    parent = FailoverClient(endpoints, model="m", probe_when="never")
    child = parent.with_options(model="n", default_headers={"X-Title": "t"}, default_query={"v": [1, True]})
    twin = loaded(child)
    parent.close()
    twin.chat("Hi")
    request = upstreams[0].calls.requests[-1]
    assert (request.json()["model"], request.header("x-title")) == ("n", "t")
    assert request.path.endswith("?v=1&v=true")
    twin.close()


@pytest.mark.parametrize("balancer", [RoundRobin, WeightedRoundRobin, LowestLatency, LeastBusy, Cheapest])
def test_a_balancer_travels_without_what_it_learned(
    balancer: Any, upstreams: List[FakeUpstream], monkeypatch: Any
) -> None:
    """An object of ours begins anew, and takes no endpoint along."""
    monkeypatch.setenv("PICKLED_KEY", SECRET)
    blocks = [block(up.url, name, api_key="${PICKLED_KEY}") for name, up in zip("abc", upstreams)]
    options = {"endpoints": blocks, "model": "m", "balancer": balancer(), "probe_when": "never"}
    with FailoverClient.from_mapping(options) as client:
        for _ in range(4):
            client.chat("Hi")
        twin = loaded(client)
        used, fresh = client.registry._given["balancer"], twin.registry._given["balancer"]
        assert type(fresh) is balancer
        assert pickle.dumps(fresh) == pickle.dumps(balancer()) == pickle.dumps(used)
        assert twin.chat("Hi").text


def test_a_balancer_of_a_callers_own_travels() -> None:
    """What a subclass keeps is kept."""
    twin = loaded(Sticky("b"))
    assert (twin.favourite, twin._queue) == ("b", ())


def test_a_retry_budget_travels_as_it_was_made() -> None:
    """What was spent, and when, stays behind: the clock of another machine is another one."""
    budget = RetryBudget(ratio=0.5, per_second=2.0, capacity=10.0, tokens=4.0)
    budget.withdraw(1e9)
    twin = loaded(budget)
    assert (twin.ratio, twin.per_second, twin.capacity, twin.tokens, twin._earned_at) == (0.5, 2, 10, 4, None)


def test_listeners_and_counters_stay_behind(from_variable: FailoverClient) -> None:
    """`client.on` callbacks are no configuration, and neither is what was counted."""
    heard: List[Any] = []
    from_variable.on("attempt", heard.append)
    from_variable.chat("Hi")
    twin = loaded(from_variable)
    assert twin.metrics()["total_requests"] == 0
    before = len(heard)
    assert before > 0
    twin.chat("Hi")
    assert len(heard) == before


def test_a_mounted_session_travels(from_variable: FailoverClient, upstreams: Any) -> None:
    """A plain `requests.Session` keeps its failover, under the same prefix and on the same terms."""
    session = requests.Session()
    session.headers["X-Title"] = "ours"
    from_variable.registry.mount(session, MODEL_OPENAI, timeout=4.0, probe_when="never")
    twin = loaded(session)
    adapter = twin.get_adapter(MODEL_OPENAI + "/models")
    assert (adapter.terms.timeouts.total, adapter.monitor.probe_when) == (4.0, "never")
    reply = twin.post(MODEL_OPENAI + "/chat/completions", json={"model": "m", "messages": []})
    assert reply.status_code == 200
    assert upstreams[0].calls.requests[-1].header("x-title") == "ours"
    assert upstreams[0].calls.requests[-1].header("authorization") == f"Bearer {SECRET}"
    assert adapter._owns_terms
    twin.close()
    assert adapter.transports._closed
    session.close()


def test_a_session_travels_with_what_it_was_given(from_variable: FailoverClient) -> None:
    """Headers, parameters and hooks of a session are as they were; cookies, which servers set, stay behind."""
    session = from_variable.session
    session.headers["X-Title"] = "ours"
    session.params = {"api-version": "1"}
    session.hooks["response"].append(_stamp)
    session.cookies.set("session", SECRET, domain="example.com")
    twin = loaded(session)
    assert (twin.headers["X-Title"], twin.params, len(twin.cookies)) == ("ours", {"api-version": "1"}, 0)
    assert post(twin, "Hi") == "Hello from upstream."
    assert twin.get("/models").stamped
    twin.close()
    assert twin.closed
    assert not session.closed


def _stamp(response: Any, **_options: Any) -> None:
    response.stamped = True


def test_a_session_with_include_keys_travels_whole() -> None:
    """Keys, cookies and `auth` go along if the caller says so."""
    session = FailoverSession([made(api_key=SECRET)], include_keys=True)
    session.auth = ("user", SECRET)
    session.headers["Authorization"] = "Bearer x"
    session.cookies.set("session", "c", domain="example.com")
    twin = pickle.loads(pickle.dumps(session))  # noqa: S301 - our own
    assert (twin.auth, twin.cookies["session"]) == (("user", SECRET), "c")
    assert twin.registry["a"].key() == SECRET
    assert twin.registry.include_keys


def test_a_subclass_travels_with_what_it_has_of_its_own() -> None:
    """Its constructor is not asked again; what it put beside ours is there."""
    original = Named("ours")
    twin = loaded(original)
    assert (type(twin), twin.name, twin._caller.model) == (Named, "ours", "m")
    assert set(vars(FailoverClient([made()]))) == _OWN


def test_an_unpickled_client_ends_its_threads(from_variable: FailoverClient) -> None:
    """The monitor starts with the first call, and is gone with `close`, or with the client."""
    original = FailoverClient(from_variable.registry.endpoints, model="m", probe_interval=0.05)
    for kept in (True, False):
        before = set(threading.enumerate())
        twin = loaded(original)
        assert set(threading.enumerate()) <= before  # of the upstreams some may have ended
        twin.chat("Hi")
        assert twin._monitor.running
        started = {thread for thread in set(threading.enumerate()) - before if "syncfailover" in thread.name}
        assert started
        if kept:
            twin.close()
        else:
            del twin
        for thread in started:
            thread._started.wait(5.0)  # it is listed before it begins
            thread.join(5.0)
        assert not any(thread.is_alive() for thread in started)


def test_a_deep_copy_needs_no_leave(upstreams: List[FakeUpstream]) -> None:
    """Within a process keys stay in the process: a copy has the same configuration, and shares nothing."""
    original = FailoverClient(endpoints_of(upstreams), model="m", probe_when="never", balancer=RoundRobin())
    child = original.with_options(default_headers={"X-Api-Token": "t-123456"})
    for thing in (original, child):
        twin = copy.deepcopy(thing)
        assert twin.registry is not thing.registry
        assert twin.registry._given["balancer"] is not thing.registry._given["balancer"]
        assert twin.registry.endpoints == thing.registry.endpoints
        twin.registry.force_open("a")
        assert twin.chat("Hi").text
        assert thing.status()["a"].breaker is BreakerState.CLOSED
        assert thing.metrics()["total_requests"] == 0
        twin.close()
    assert upstreams[1].calls.requests[-1].header("x-api-token") == "t-123456"
    assert copy.deepcopy(original.session).registry is not original.registry
    assert copy.copy(original).registry is original.registry
    assert copy.copy(original.registry) is not original.registry
    pair = copy.deepcopy([original, original.chat, original.registry])
    assert pair[0].registry is pair[1]._caller.registry is pair[2]
    original.close()
