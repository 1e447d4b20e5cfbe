"""The presets: where a provider is, how it is probed, what it calls the models, what it costs."""

from decimal import Decimal

import pytest

from syncfailover import FailoverClient, providers
from syncfailover.errors import ConfigurationError


def test_holysheep_makes_one_endpoint_per_key():
    """Names count up, weights fall to 1, and each key goes to its own endpoint."""
    made = providers.holysheep("key-1", "key-2", "key-3")
    assert [e.name for e in made] == ["holysheep-1", "holysheep-2", "holysheep-3"]
    assert [e.weight for e in made] == [3, 2, 1]
    assert [e.key() for e in made] == ["key-1", "key-2", "key-3"]
    assert {e.base_url for e in made} == {"https://api.holysheep.ai/v1"}
    assert {e.probe_url() for e in made} == {"https://api.holysheep.ai:443/health"}


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-4.1", "8.0"),
        ("gpt-4o", "5.0"),
        ("claude-sonnet-4.5", "15.0"),
        ("gemini-2.5-flash", "2.5"),
        ("deepseek-v3.2", "0.42"),
    ],
)
def test_holysheeps_prices_are_the_briefs(model, price):
    """Input and output alike, exactly."""
    found = providers.holysheep("key-1")[0].price(model)
    assert found.input == found.output == Decimal(price)


def test_an_unknown_model_has_no_price():
    """It is None, never 0."""
    assert providers.holysheep("key-1")[0].price("gpt-9") is None


@pytest.mark.parametrize(
    ("made", "name", "base_url", "probe_url"),
    [
        (providers.openai("k"), "openai", "https://api.openai.com/v1", "https://api.openai.com/v1/models"),
        (
            providers.openrouter("k"),
            "openrouter",
            "https://openrouter.ai/api/v1",
            "https://openrouter.ai/api/v1/models",
        ),
    ],
)
def test_hosted_providers_are_probed_by_their_model_list(made, name, base_url, probe_url):
    """They have no health path; and a list from far away is not degraded at 100 ms."""
    assert (made.name, made.base_url, made.probe_url()) == (name, base_url, probe_url)
    assert made.auth_header(made.key()) == ("Authorization", "Bearer k")
    assert made.max_latency_ms >= 1000.0


@pytest.mark.parametrize(
    ("model", "own"),
    [
        ("gpt-4.1", "openai/gpt-4.1"),
        ("claude-sonnet-4.5", "anthropic/claude-sonnet-4.5"),
        ("gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("deepseek-v3.2", "deepseek/deepseek-v3.2"),
        ("mistralai/mistral-large", "mistralai/mistral-large"),
    ],
)
def test_openrouter_has_its_own_names(model, own):
    """Known names are mapped, its own and all others pass unchanged."""
    assert providers.openrouter("k").serves(model) == own


def test_every_field_can_be_overridden():
    """A keyword of `Endpoint` wins over the preset."""
    made = providers.openrouter("k", priority=1, name="exit", base_url="http://127.0.0.1:1/v1", weight=7)
    assert (made.priority, made.name, made.base_url, made.weight) == (1, "exit", "http://127.0.0.1:1/v1", 7)
    relay = providers.holysheep("k", "l", prices={"gpt-4.1": 1.0}, weight=1)
    assert [e.weight for e in relay] == [1, 1]
    assert relay[0].price("gpt-4.1").input == Decimal("1.0")
    assert relay[0].price("gpt-4o") is None


@pytest.mark.parametrize("keys", [[], (), "a-single-key"])
def test_keys_that_are_no_list_are_refused(keys):
    """No key at all, or a string whose characters would be taken for keys: an error that shows no key."""
    with pytest.raises(ConfigurationError, match=r"^keys: ") as caught:
        providers.from_keys("holysheep", keys)
    assert "a-single-key" not in str(caught.value)


def test_no_key_is_refused():
    """`holysheep()` is a slip."""
    with pytest.raises(ConfigurationError, match="at least one key"):
        providers.holysheep()


def test_an_unknown_provider_is_refused():
    """The error lists the known ones."""
    with pytest.raises(ConfigurationError, match=r"^provider: 'acme' .*holysheep.*openai.*openrouter"):
        providers.from_keys("acme", ["k"])


def test_a_client_from_keys_is_the_briefs_setup():
    """Keys with falling weights, an emergency endpoint of lower priority, and nothing started yet."""
    exit_ = providers.openrouter("key-3", priority=1)
    client = FailoverClient.from_keys(
        ["key-1", "key-2"], emergency=exit_, model="gpt-4.1", max_latency_ms=250.0, max_retries=2
    )
    made = client.registry.endpoints
    assert [(e.name, e.weight, e.priority) for e in made] == [
        ("holysheep-1", 2, 0),
        ("holysheep-2", 1, 0),
        ("openrouter", 1, 1),
    ]
    assert [e.max_latency_ms for e in made] == [250.0, 250.0, exit_.max_latency_ms]
    client.close()
