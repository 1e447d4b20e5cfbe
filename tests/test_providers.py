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


@pytest.mark.parametrize(
    ("made", "url", "probe"),
    [
        (providers.azure("k", "my-res"), "https://my-res.openai.azure.com/openai", "{}/models"),
        (providers.azure("k", "https://r.example.com/"), "https://r.example.com/openai", "{}/models"),
        (providers.azure("k", "https://r.example.com/openai/"), "https://r.example.com/openai", "{}/models"),
        (providers.anthropic("k"), "https://api.anthropic.com/v1", "{}/models"),
        (providers.gemini("k"), "https://generativelanguage.googleapis.com/v1beta/openai", "{}/models"),
        (providers.deepseek("k"), "https://api.deepseek.com", "{}/models"),
        (providers.vllm(), "http://localhost:8000/v1", "http://localhost:8000/health"),
        (providers.ollama(), "http://localhost:11434/v1", "http://localhost:11434/api/version"),
        (providers.llamacpp(), "http://localhost:8080/v1", "http://localhost:8080/health"),
        (providers.vllm("http://gpu:9000/v1", "k"), "http://gpu:9000/v1", "http://gpu:9000/health"),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else None,
)
def test_where_each_provider_is(made, url, probe):
    """Its API and its health path; hosted ones may take their time, those at home may not."""
    assert (made.base_url, made.probe_url()) == (url, probe.format(url))
    assert made.max_latency_ms == (1000.0 if url.startswith("https:") else 100.0)


@pytest.mark.parametrize("make", [providers.vllm, providers.ollama, providers.llamacpp])
def test_a_server_of_ones_own_needs_no_key(make):
    """It is there without one; a key that is given is sent, and any field can be overridden."""
    assert make().key() is None
    assert make(key="k", name="n", priority=1).auth_header("k") == ("Authorization", "Bearer k")
    assert [e.name for e in providers.from_keys(make.__name__, [None])] == [make.__name__ + "-1"]


@pytest.mark.parametrize("name", ["holysheep", "openai", "anthropic", "gemini", "deepseek", "openrouter"])
def test_a_hosted_provider_without_a_key_is_refused(name):
    """The usual cause is a variable that is not set; a server of one's own under that name may have none."""
    with pytest.raises(ConfigurationError, match=f"^api_key: None .*a key of {name}"):
        getattr(providers, name)(None)
    getattr(providers, name)(None, base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("deployments", "model", "own"),
    [
        ({"gpt-4.1": "prod"}, "gpt-4.1", "prod"),
        ({"gpt-4.1": "prod"}, "gpt-4o", None),
        (["gpt-4.1"], "gpt-4.1", "gpt-4.1"),
        ("gpt-4.1", "gpt-4.1", "gpt-4.1"),
        ("gpt-4.1", "gpt-4o", None),
        (None, "gpt-4o", "gpt-4o"),
    ],
)
def test_azure_has_deployments(deployments, model, own):
    """A map, the names of some, the name of one; or every name is taken for a deployment's."""
    assert providers.azure("k", "my-res", deployments).serves(model) == own


def test_azures_version_can_be_chosen():
    """By its own keyword, beside other parameters, or as one of them."""
    assert providers.azure("k", "r1").params == {"api-version": "2024-10-21"}
    chosen = providers.azure("k", "r1", api_version="2025-04-01-preview", params={"a": "b"})
    assert chosen.params == {"a": "b", "api-version": "2025-04-01-preview"}
    assert providers.azure("k", "r1", params={"API-Version": "v"}).params == {"API-Version": "v"}
    token = providers.azure(lambda: "entra", "r1", auth="bearer")
    assert token.auth_header(token.key()) == ("Authorization", "Bearer entra")


@pytest.mark.parametrize(
    "resource", ["", "my_res", "a b", "my-res.openai.azure.com", None, 5, "0123456789abcdef" * 2, "k" * 84]
)
def test_a_resource_that_is_none_is_refused_unseen(resource):
    """It may be the key, the arguments having changed places: a host of that name must not be looked up."""
    with pytest.raises(ConfigurationError, match=r"^resource: ") as caught:
        providers.azure("key", resource)
    assert not resource or str(resource) not in str(caught.value).replace("its URL", "")


def test_azure_by_name_needs_its_address():
    """Each resource has its own, which a list of keys does not tell."""
    with pytest.raises(ConfigurationError, match=r"^base_url: .*my-resource\.openai\.azure\.com/openai"):
        providers.from_keys("azure", ["k"])
    (made,) = providers.from_keys("azure", ["k"], base_url="https://r.openai.azure.com/openai", models=["m"])
    assert (made.name, made.auth_header("k"), made.serves("m")) == ("azure-1", ("api-key", "k"), "m")
    assert made.params == {"api-version": "2024-10-21"}


def test_headers_are_added_to_the_presets():
    """One more header does not cost the version that Anthropic asks for; the same one replaces it."""
    more = providers.anthropic("k", headers={"anthropic-beta": "b"})
    assert more.headers == {"anthropic-beta": "b", "anthropic-version": "2023-06-01"}
    assert providers.anthropic("k", headers={"Anthropic-Version": "v"}).headers == {"Anthropic-Version": "v"}
    with pytest.raises(ConfigurationError, match=r"^headers: a list"):
        providers.anthropic("k", headers=["x"])


@pytest.mark.parametrize(
    ("made", "served", "not_served"),
    [
        (providers.anthropic("k"), {"claude-sonnet-4.5": "claude-sonnet-4-5"}, "gpt-4.1"),
        (providers.gemini("k"), {"models/gemini-2.5-pro": "models/gemini-2.5-pro"}, "claude-sonnet-4.5"),
        (providers.deepseek("k"), {"deepseek-v4-pro": "deepseek-v4-pro"}, "gemini-2.5-flash"),
        (providers.openai("k"), {"ft:gpt-4.1:org::id": "ft:gpt-4.1:org::id", "o3": "o3"}, None),
        (
            providers.openrouter("k"),
            {"o3-mini": "openai/o3-mini", "claude-opus-4.6": "anthropic/claude-opus-4.6"},
            None,
        ),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else None,
)
def test_a_vendor_serves_its_own_models(made, served, not_served):
    """Those of others are not even asked for there; OpenAI and OpenRouter may have any name."""
    for model, own in served.items():
        assert made.serves(model) == own
    assert not_served is None or made.serves(not_served) is None


def test_only_the_relay_has_prices():
    """A price that nobody gave is unknown: no other preset makes one up."""
    assert {name for name, preset in providers.PRESETS.items() if preset.prices} == {"holysheep"}


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
