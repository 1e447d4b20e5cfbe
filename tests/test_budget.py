"""Money: what calls cost adds up to the last digit, and a budget refuses the call that would begin beyond it."""

import copy
import decimal
import logging
import math
import pickle
import threading
from decimal import Decimal
from typing import Any, List

import pytest
from fleet import endpoints_of
from hypothesis import given, settings
from hypothesis import strategies as st

from syncfailover import (
    BudgetExceeded,
    ConfigurationError,
    Endpoint,
    EndpointRegistry,
    FailoverClient,
    FailoverError,
    FailoverSession,
)
from syncfailover.events import AttemptRecord
from syncfailover.policy.node import Attempt
from syncfailover.policy.outcome import OK, SERVER_ERROR, SUCCEEDED, Outcome
from syncfailover.policy.pricing import cost_usd
from syncfailover.policy.received import Received
from syncfailover.runtime.attempt import Tried
from syncfailover.runtime.metrics import Metrics
from syncfailover.runtime.registry import Registry
from syncfailover.testing import FakeUpstream, Ok, Status

#: Ten cents a call at 1 USD per million tokens.
TEN_CENTS = {"prompt_tokens": 100_000, "completion_tokens": 0}


# The sum over attempts is the total

amounts = st.one_of(
    st.just(0.0),
    st.floats(1e-9, 1e4),
    st.integers(0, 10_000),
    st.decimals(0, 10_000, allow_nan=False, allow_infinity=False, places=6),
)
prices = st.one_of(
    amounts,
    st.tuples(amounts, amounts),
    st.tuples(amounts, amounts, amounts),
    st.fixed_dictionaries({"input": amounts, "output": amounts}, optional={"cached_input": amounts}),
)
tokens = st.integers(0, 2_000_000)
usages = st.one_of(
    st.none(),
    st.just({}),
    st.fixed_dictionaries(
        {"prompt_tokens": tokens, "completion_tokens": tokens},
        optional={"prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": tokens})},
    ),
)
tables = st.lists(st.one_of(st.none(), prices), min_size=2, max_size=3)
calls = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), usages), min_size=1, max_size=3), max_size=12
)


def tried(endpoint: Endpoint, succeeded: bool, usage: Any) -> Tried:
    """Make what an attempt leaves behind, with its cost."""
    cost = cost_usd(usage, endpoint.price("m"))
    rule = OK if succeeded else SERVER_ERROR
    edge = None if cost is None else float(cost)
    record = AttemptRecord(endpoint.name, rule.name, "", 200, 0.0, 1.0, edge, succeeded)
    attempt: Any = Attempt.__new__(Attempt)
    attempt.model, attempt.hedge = "m", False
    return Tried(attempt, Received(), SUCCEEDED if succeeded else Outcome(rule), record, cost)


@settings(max_examples=200)
@given(table=tables, made=calls)
def test_the_sum_over_attempts_is_the_total(table: Any, made: Any) -> None:
    """For any mix of prices, cached tokens, failed attempts that report usage, and unknown ones; in each part too."""
    endpoints = [
        Endpoint(name, "http://127.0.0.1:1/v1", prices=None if price is None else {"m": price})
        for name, price in zip("abc", table)
    ]
    metrics = Metrics(Registry(endpoints))
    ledger: List[Tried] = []
    for call in made:
        tries = [tried(endpoints[which % len(endpoints)], ok, usage) for which, ok, usage in call]
        metrics.record(tries, 1.0, succeeded=tries[-1].outcome is SUCCEEDED)
        ledger += tries
    known = [one.cost for one in ledger if one.cost is not None]
    with decimal.localcontext(decimal.Context(prec=200)):
        total = sum(known, Decimal(0))
        assert metrics.spent_usd() == total
    read = metrics.read()
    assert read["total_cost_usd"] == float(total)
    parts = [entry["total_cost_usd"] for entry in read["endpoints"].values()]
    for floats in (parts, [one.record.cost_usd for one in ledger if one.record.cost_usd is not None]):
        assert abs(math.fsum(floats) - read["total_cost_usd"]) <= 2**-52 * read["total_cost_usd"]
    unpriced = [one for one in ledger if one.outcome is SUCCEEDED and one.cost is None]
    assert read["unpriced_requests"] == len(unpriced)
    assert read["unpriced_requests"] == sum(e["unpriced_requests"] for e in read["endpoints"].values())


def test_failed_attempts_that_report_usage_are_paid(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Over sockets: an error that comes with a usage costs what it says, and the ledger shows where."""
    body = {"error": {"message": "late"}, "usage": TEN_CENTS, "model": ["not a name"]}
    upstreams[0].calls.always(Status(500, body))
    upstreams[1].calls.always(Ok(usage=TEN_CENTS))
    endpoints = [endpoint.replace(prices={"gpt-4.1": 1}) for endpoint in endpoints_of(upstreams[:2])]
    client = make_client(endpoints)
    reply = client.chat("Hi")
    assert [attempt.cost_usd for attempt in reply.attempts] == [0.1, 0.1]
    assert client.metrics()["total_cost_usd"] == 0.2
    assert [entry["total_cost_usd"] for entry in client.metrics()["endpoints"].values()] == [0.1, 0.1]


@pytest.mark.parametrize("echoed", [["m"], {"m": 1}, 7, None, True])
def test_a_reply_s_odd_model_is_no_price(
    echoed: Any, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Where its price is looked up by the name that the reply gives, anything but a name has none."""
    body = {"choices": [{"message": {"content": "Hi"}}], "usage": TEN_CENTS, "model": echoed}
    upstreams[0].calls.always(Status(200, body))
    client = make_client(endpoints_of(upstreams[:1], prices={"another": 1.0}))
    reply = client.chat("Hi")
    assert reply.cost_usd is None
    assert client.metrics()["unpriced_requests"] == 1
    assert client.status()["a"].in_flight == 0


def test_the_caller_s_decimal_context_changes_nothing(
    make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """A thread that rounds to two digits and raises at every inexact step gets the same sum."""
    usage = {"prompt_tokens": 1_234_567, "completion_tokens": 7_654_321}
    for upstream in upstreams:
        upstream.calls.always(Ok(usage=usage))
    client = make_client(endpoints_of(upstreams, prices={"gpt-4.1": (0.15, 0.6)}), balancer="cheapest")
    strict = decimal.Context(prec=2, traps=[decimal.Inexact, decimal.Rounded, decimal.FloatOperation])
    with decimal.localcontext(strict):
        for _ in range(3):
            assert client.chat("Hi").cost_usd == 4.77777765
        assert client.metrics()["total_cost_usd"] == 14.33333295


def test_an_interrupted_call_has_cost_what_its_attempts_did(upstreams: List[FakeUpstream]) -> None:
    """Ctrl-C while it waits for its next attempt loses no dollar, and the call counts as failed."""

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    upstreams[0].calls.always(Status(500, {"error": {"message": "late"}, "usage": TEN_CENTS}))
    endpoints = endpoints_of(upstreams[:1], prices={"gpt-4.1": 1})
    registry = EndpointRegistry(endpoints, sleep=interrupt)
    with FailoverClient(registry, model="gpt-4.1", probe_when="never") as client:
        with pytest.raises(KeyboardInterrupt):
            client.chat("Hi")
        metrics = client.metrics()
    assert (metrics["total_requests"], metrics["failed_requests"], metrics["total_cost_usd"]) == (1, 1, 0.1)
    assert metrics["endpoints"]["a"]["total_requests"] == 1


# The budget


def paid_client(make_client: Any, upstreams: List[FakeUpstream], **options: Any) -> FailoverClient:
    """Make a client whose calls cost ten cents each."""
    for upstream in upstreams:
        upstream.calls.always(Ok(usage=TEN_CENTS))
    client: FailoverClient = make_client(endpoints_of(upstreams, prices={"gpt-4.1": 1}), **options)
    return client


def seen(upstreams: List[FakeUpstream]) -> int:
    """Count all requests."""
    return sum(len(upstream.requests) for upstream in upstreams)


@pytest.mark.parametrize(
    ("budget", "served"),
    [
        (0, 0),
        (0.0, 0),
        (Decimal(0), 0),
        (Decimal("0.3"), 3),
        (0.3, 3),  # a sum of three floats would be 0.30000000000000004
        (Decimal("0.300000000000000000000000001"), 4),
        (0.25, 3),
        (Decimal("0.2999"), 3),
        (0.0001, 1),
    ],
)
def test_the_call_that_would_begin_beyond_it_is_refused(
    budget: Any, served: int, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Where all is spent nothing is sent; where anything is left the call begins."""
    client = paid_client(make_client, upstreams, budget_usd=budget)
    for _ in range(served):
        client.chat("Hi")
    for _ in range(2):
        with pytest.raises(BudgetExceeded) as caught:
            client.chat("Hi")
    assert (caught.value.budget_usd, caught.value.spent_usd) == (float(budget), float(Decimal(served) / 10))
    assert seen(upstreams) == served
    assert client.metrics()["total_requests"] == served


def test_the_error_says_both_numbers_and_travels(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Pickled and copied it is the same."""
    client = paid_client(make_client, upstreams, budget_usd=1)
    for _ in range(10):
        client.chat("Hi")
    with pytest.raises(BudgetExceeded, match=r"^budget_usd: 1\.0 of 1\.0 USD are spent") as caught:
        client.chat("Hi")
    assert isinstance(caught.value, FailoverError)
    for twin in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):  # noqa: S301
        assert (str(twin), twin.budget_usd, twin.spent_usd) == (str(caught.value), 1.0, 1.0)


def test_calls_under_way_are_not_stopped(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Eight threads overshoot by what at most seven calls cost, and then everybody is refused."""
    client = paid_client(make_client, upstreams, budget_usd=1)
    refused: List[BudgetExceeded] = []

    def work() -> None:
        try:
            for _ in range(100):
                client.chat("Hi")
        except BudgetExceeded as error:
            refused.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 8
    assert 10 <= seen(upstreams) <= 17
    assert client.metrics()["total_cost_usd"] == seen(upstreams) / 10


def test_all_doors_share_the_client_s_budget(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """Its session and its embeddings spend from it, and are refused by it."""
    client = paid_client(make_client, upstreams, budget_usd=Decimal("0.3"))
    client.chat("Hi")
    client.embeddings.create(input="Hi")
    client.session.post("/chat/completions", json={"model": "gpt-4.1", "messages": []})
    assert client.metrics()["total_cost_usd"] == 0.3
    with pytest.raises(BudgetExceeded):
        client.session.post("/chat/completions", json={"model": "gpt-4.1", "messages": []})
    with pytest.raises(BudgetExceeded):
        client.embeddings.create(input="Hi")
    assert seen(upstreams) == 3


def test_a_session_has_a_budget_of_its_own(upstreams: List[FakeUpstream]) -> None:
    """A drop-in session refuses as a client does."""
    upstreams[0].calls.always(Ok(usage=TEN_CENTS))
    endpoints = endpoints_of(upstreams[:1], prices={"m": 1})
    with FailoverSession(endpoints, budget_usd=0.1, probe_when="never") as session:
        assert session.post("/chat/completions", json={"model": "m", "messages": []}).ok
        with pytest.raises(BudgetExceeded):
            session.post("/chat/completions", json={"model": "m", "messages": []})


def test_what_has_no_price_does_not_count_and_is_told_once(
    make_client: Any, upstreams: List[FakeUpstream], caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names the endpoints without prices when the client is made; a client without a budget warns not."""
    caplog.set_level(logging.WARNING, "syncfailover")
    first, second = endpoints_of(upstreams[:2])
    make_client([first, second])
    assert caplog.messages == []
    client = make_client([first, second.replace(prices={"gpt-4.1": 1})], budget_usd=0.2)
    assert caplog.messages == ["budget_usd: a: no prices, so their replies do not count"]
    upstreams[1].kill()
    for _ in range(5):
        client.chat("Hi")
    metrics = client.metrics()
    assert (metrics["unpriced_requests"], metrics["total_cost_usd"]) == (5, 0.0)


@pytest.mark.parametrize(
    "budget",
    [
        -1,
        -0.01,
        float("nan"),
        float("inf"),
        True,
        "5",
        "",
        [5],
        10**400,
        Decimal("-0.01"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("1e400"),
        1 + 0j,
    ],
)
def test_a_budget_that_is_none_is_told(budget: Any, upstreams: List[FakeUpstream]) -> None:
    """When the client or session is made, with field, value and what is allowed."""
    for make in (FailoverClient, FailoverSession):
        with pytest.raises(
            ConfigurationError, match=r"^budget_usd: .* is not allowed; expected a finite number"
        ) as caught:
            make(endpoints_of(upstreams), budget_usd=budget)
        assert caught.value.field == "budget_usd"
        assert repr(budget) in str(caught.value)


# Prices that are none


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (8.0, "prices"),
        ("8.0", "prices"),
        ([("gpt", 8.0)], "prices"),
        ({"": 1}, "prices"),
        ({" ": 1}, "prices"),
        ({None: 1}, "prices"),
        ({8.0: 1}, "prices"),
        ({"input": 2.0, "output": 8.0}, "prices"),
        ({"gpt": None}, "prices['gpt']"),
        ({"gpt": "8.0"}, "prices['gpt']"),
        ({"gpt": True}, "prices['gpt']"),
        ({"gpt": -1}, "prices['gpt']"),
        ({"gpt": float("nan")}, "prices['gpt']"),
        ({"gpt": Decimal("NaN")}, "prices['gpt']"),
        ({"gpt": Decimal("sNaN")}, "prices['gpt']"),
        ({"gpt": Decimal(-1)}, "prices['gpt']"),
        ({"gpt": Decimal("1e400")}, "prices['gpt']"),
        ({"gpt": 1e10}, "prices['gpt']"),
        ({"gpt": 10**400}, "prices['gpt']"),
        ({"gpt": ()}, "prices['gpt']"),
        ({"gpt": (1, 2, 3, 4)}, "prices['gpt']"),
        ({"gpt": (1, None)}, "prices['gpt']"),
        ({"gpt": {"input": 1}}, "prices['gpt']"),
        ({"gpt": {"input": 1, "output": 2, "cached": 3}}, "prices['gpt']"),
    ],
)
def test_a_price_that_is_none_is_told(given: Any, field: str) -> None:
    """A price without its model, or a model without its price: the error names field, value and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        Endpoint("a", "http://127.0.0.1:1/v1", prices=given)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert "expected" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).field == field  # noqa: S301
