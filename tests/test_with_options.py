"""`client.with_options(...)`: other terms over the same endpoints, connections, counters and budget."""

import gc
import threading
import time
import weakref
from typing import Any, List

import pytest
from fleet import endpoints_of

from syncfailover import (
    AllEndpointsFailed,
    BudgetExceeded,
    ClientClosed,
    ConfigurationError,
    DeadlineExceeded,
    FailoverClient,
    FailoverError,
    FailoverRetry,
    Timeouts,
)
from syncfailover.testing import FakeUpstream, Hang, Ok, Status


def test_each_option_is_the_childs_alone(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Time, retries, queue and model are changed; the parent keeps its own."""
    parent = make_client(timeout=Timeouts(total=5.0, connect=1.0), queue_timeout=1.0)
    child = parent.with_options(timeout=0.2, max_retries=0, queue_timeout=2.0, model="other")
    assert child._caller.terms.timeouts == Timeouts(total=0.2, connect=1.0)
    assert child.chat("Hi").model == "other"
    assert (child._caller.terms.queue_s, parent._caller.terms.queue_s) == (2.0, 1.0)
    for upstream in upstreams:
        upstream.calls.script(Status(500))
    with pytest.raises(AllEndpointsFailed) as caught:
        child.chat("Hi")
    assert len(caught.value.attempts) == 1
    assert parent.chat("Hi").model == "gpt-4.1"
    upstreams[0].calls.always(Hang())
    with pytest.raises(DeadlineExceeded):
        make_client(endpoints_of(upstreams[:1])).with_options(timeout=0.1).chat("Hi")


def test_a_childs_child_begins_where_its_parent_is(make_client: Any) -> None:
    """What is not given stays as the nearest one has it."""
    grandchild = make_client().with_options(model="other", timeout=2.0).with_options(timeout=1.0)
    assert grandchild._caller.terms.timeouts.total == 1.0
    assert grandchild.chat("Hi").model == "other"


def test_all_share_counters_endpoints_and_connections(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A call of the child is one of the parent's metrics, over the same connection, and its failures count for both."""
    parent = make_client(endpoints_of(upstreams[:1]), failure_threshold=1)
    child = parent.with_options(timeout=2.0, max_retries=0)
    parent.chat("Hi")
    child.chat("Hi")
    assert upstreams[0].connections == 1
    assert parent.metrics()["total_requests"] == child.metrics()["total_requests"] == 2
    upstreams[0].calls.script(Status(500))
    with pytest.raises(FailoverError):
        child.chat("Hi")
    assert parent.status()["a"].breaker == "open"


def test_the_budget_is_one(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """What the child spends, the parent cannot."""
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
    upstreams[0].calls.always(Ok(usage=usage))
    priced = endpoints_of(upstreams[:1], prices={"gpt-4.1": 1.0})
    parent = make_client(priced, budget_usd=1.0)
    child = parent.with_options(timeout=3.0)
    child.chat("Hi")
    for client in (parent, child):
        with pytest.raises(BudgetExceeded):
            client.chat("Hi")


def test_headers_and_query_of_all_calls(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """A default is sent with every call; a call adds to it, changes it, or takes it back with None."""
    one = make_client(endpoints_of(upstreams[:1])).with_options(
        default_headers={"X-App": "app", "X-Title": "title"}, default_query={"tag": "a"}
    )
    two = one.with_options(default_headers={"X-App": None})
    one.chat("Hi")
    one.chat("Hi", extra_headers={"x-app": "other", "X-Title": None}, extra_query={"tag": None, "q": 1})
    two.models.list()
    seen = upstreams[0].requests
    assert [(r.header("x-app"), r.header("x-title"), r.path.partition("?")[2]) for r in seen] == [
        ("app", "title", "tag=a"),
        ("other", None, "q=1"),
        (None, "title", "tag=a"),
    ]
    with pytest.raises(ConfigurationError, match=r"default_headers\['Cookie'\]: a header that carries a key"):
        one.with_options(default_headers={"Cookie": "a=b"})


def test_closing_a_child_closes_nothing_else(make_client: Any) -> None:
    """The parent, and its other children, go on."""
    parent = make_client(probe_when="always")
    child, other = parent.with_options(timeout=1.0), parent.with_options()
    session = child.session
    child.chat("Hi")
    child.close()
    child.close()
    for closed in (lambda: child.chat("Hi"), child.with_options, lambda: session.get("/models")):
        with pytest.raises(ClientClosed):
            closed()
    assert parent.chat("Hi").text
    assert other.chat("Hi").text
    assert parent._monitor.running


def test_a_closed_parent_closes_its_children(make_client: Any) -> None:
    """Their calls raise, and say which one was closed."""
    parent = make_client()
    child = parent.with_options()
    grandchild = child.with_options(timeout=1.0)
    parent.close()
    for client in (child, grandchild):
        with pytest.raises(ClientClosed, match=r"made of with with_options\(\) is closed"):
            client.chat("Hi")
        with pytest.raises(ClientClosed):
            client.session  # noqa: B018 - asking is the test


def test_a_child_keeps_what_it_needs_when_its_parent_is_dropped(make_client: Any, upstreams: Any) -> None:
    """`FailoverClient(...).with_options(...)` works, and goes away when it is dropped itself."""
    child = FailoverClient(endpoints_of(upstreams), model="m", probe_interval=0.05).with_options(timeout=2.0)
    gc.collect()
    assert child.wait_until_ready(2.0)
    assert child.chat("Hi").text
    monitor = weakref.ref(child._monitor)
    del child
    until = time.monotonic() + 2.0
    while monitor() is not None and time.monotonic() < until:  # its thread may be at work with it just then
        gc.collect()
        time.sleep(0.01)
    assert monitor() is None


def test_hedging_goes_on_with_what_was_learned(make_client: Any) -> None:
    """A child that hedges elsewise shares paces, budget and timer; one may switch it on or off."""
    parent = make_client(hedge_after=50.0)
    child = parent.with_options(hedge_after="p95")
    ours, theirs = parent._caller.terms.hedging, child._caller.terms.hedging
    assert theirs is not ours
    assert (theirs._lore, theirs._timer) == (ours._lore, ours._timer)
    assert parent.with_options(timeout=1.0)._caller.terms.hedging is ours
    assert parent.with_options(hedge_after=None)._caller.terms.hedging is None
    parent.chat("Hi")
    child.close()
    assert parent._caller.terms.hedging._timer._finalizer.alive
    alone = make_client().with_options(hedge_after=50.0)
    alone.chat("Hi")
    alone.close()
    assert not alone._caller.terms.hedging._timer._finalizer.alive


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": "sk-secret-x"}, "api_key: with_options does not change it: give each Endpoint its own"),
        ({"base_url": "http://h"}, "base_url: .*make an Endpoint"),
        pytest.param({"http_client": object()}, "http_client: .*verify= and proxies=", id="http_client"),
        ({"organization": "org-1"}, "organization: .*OpenAI-Organization"),
        ({"project": "p"}, "project: .*OpenAI-Project"),
        ({"set_default_headers": {}}, "set_default_headers: .*default_headers="),
        ({"budget_usd": 5}, r"budget_usd: .*FailoverClient\(\.\.\., budget_usd=\.\.\.\)"),
        ({"queue_size": 5}, r"queue_size: .*FailoverClient\(\.\.\., queue_size=\.\.\.\)"),
        ({"timeut": 5}, "timeut: with_options does not know it; did you mean 'timeout'"),
        ({"timeout": -1}, "timeout: -1"),
        ({"timeout": (0, 1)}, "timeout.connect: 0"),
        ({"max_retries": -1}, "max_retries: -1"),
        ({"queue_timeout": -1}, "queue_timeout: -1"),
        ({"hedge_after": 0}, "hedge_after: 0"),
        (
            {"hedge_after": 5, "max_retries": FailoverRetry(ambiguous="raise")},
            "hedge_after: 5.*ambiguous='raise'",
        ),
        ({"model": ""}, "model: ''"),
        ({"default_query": 5}, "default_query: a int"),
    ],
    ids=repr,
)
def test_bad_options_are_named_at_once(options: Any, message: str, make_client: Any) -> None:
    """The error names the option, and says what to do instead of what only the openai package knows."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        make_client().with_options(**options)
    assert "sk-secret" not in f"{caught.value} {caught.value.__dict__}"


def test_a_retry_that_must_not_doubt_does_not_hedge(make_client: Any) -> None:
    """With `ambiguous="raise"` the parent's hedging has to be switched off beside it."""
    parent, careful = make_client(hedge_after=50.0), FailoverRetry(ambiguous="raise")
    with pytest.raises(ConfigurationError, match=r"max_retries: .*hedge_after=None"):
        parent.with_options(max_retries=careful)
    assert parent.with_options(max_retries=careful, hedge_after=None).chat("Hi").text


def test_it_starts_no_thread_and_opens_nothing(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """It is cheap enough to be made for one call."""
    parent = make_client()
    before = threading.active_count()
    for _ in range(100):
        parent.with_options(timeout=1.0)
    assert threading.active_count() == before
    assert upstreams[0].connections == 0
