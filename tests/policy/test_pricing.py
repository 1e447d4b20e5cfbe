"""What a reply cost: exact where it is known, None where it is not."""

from decimal import Decimal

import pytest

from syncfailover.endpoint import Endpoint
from syncfailover.policy.pricing import cost_usd


def price(value):
    """Read a price as an endpoint does."""
    return Endpoint("a", "http://127.0.0.1:1/v1", prices={"m": value}).price("m")


APART = {"input": 2.0, "output": 8.0, "cached_input": 0.5}


@pytest.mark.parametrize(
    ("value", "usage", "expected"),
    [
        (8.0, {"prompt_tokens": 1000, "completion_tokens": 500}, "0.012"),
        (0.42, {"prompt_tokens": 1, "completion_tokens": 0}, "0.00000042"),
        ((2.0, 8.0), {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}, "10"),
        (APART, {"prompt_tokens": 1000, "completion_tokens": 0}, "0.002"),
        (
            APART,
            {
                "prompt_tokens": 1000,
                "completion_tokens": 100,
                "prompt_tokens_details": {"cached_tokens": 600},
            },
            "0.0019",
        ),
        (
            (2.0, 8.0),
            {"prompt_tokens": 1000, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 600}},
            "0.002",
        ),
        (
            8.0,
            {
                "prompt_tokens": 0,
                "completion_tokens": 100,
                "completion_tokens_details": {"reasoning_tokens": 90},
            },
            "0.0008",
        ),
        (8.0, {"prompt_tokens": 100, "total_tokens": 100}, "0.0008"),
        (8.0, {"prompt_tokens": 100, "completion_tokens": None}, "0.0008"),
        (8.0, {"prompt_tokens": 100, "completion_tokens": 0, "prompt_tokens_details": None}, "0.0008"),
        (0.0, {"prompt_tokens": 100, "completion_tokens": 100}, "0"),
    ],
)
def test_the_cost_is_exact(value, usage, expected):
    """Cached tokens are part of the prompt's and priced apart, reasoning ones part of the completion's; no float creeps in."""
    assert cost_usd(usage, price(value)) == Decimal(expected)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "12",
        [],
        {},
        {"completion_tokens": 5},
        {"prompt_tokens": None},
        {"prompt_tokens": "12"},
        {"prompt_tokens": -1},
        {"prompt_tokens": True},
        {"prompt_tokens": 1.5},
    ],
)
def test_an_unknown_usage_is_none(usage):
    """A reply that does not say what it used has no cost, not a cost of 0."""
    assert cost_usd(usage, price(8.0)) is None


def test_an_unknown_price_is_none():
    """A price that is not known is None, never 0."""
    assert cost_usd({"prompt_tokens": 1, "completion_tokens": 1}, None) is None


def test_more_cached_than_prompt_tokens_are_not_believed():
    """A provider's slip never makes the rest negative."""
    usage = {"prompt_tokens": 100, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 900}}
    assert cost_usd(usage, price(APART)) == Decimal("0.00005")
