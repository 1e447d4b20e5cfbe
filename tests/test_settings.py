"""Settings: environment, TOML file and mapping become endpoints and options, or an error that says what to write."""

import pickle
import re
from inspect import signature
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncfailover import (
    ConfigurationError,
    Endpoint,
    EndpointRegistry,
    FailoverClient,
    FailoverRetry,
    RoundRobin,
    Timeouts,
    providers,
    settings,
    settings_blocks,
    settings_environ,
    settings_keys,
)
from syncfailover.testing import FakeUpstream

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
BLOCK = '[[endpoints]]\nname = "a"\nbase_url = "http://h/v1"\n'
SECRET = "sk-secret-0123"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """A function that writes a settings file and returns its path."""

    def written(text: str) -> str:
        path = tmp_path / "llm.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return written


def shown(endpoints: Any) -> List[str]:
    """What the endpoints are, one line each."""
    return [f"{e.name} {e.base_url} {e.priority}/{e.weight:g} {e.key()}" for e in endpoints]


def refused(read: Callable[..., Any], *arguments: Any) -> ConfigurationError:
    """The error that reading raises; neither it nor what travels with it holds the secret of these tests."""
    with pytest.raises(ConfigurationError) as caught:
        read(*arguments)
    error = caught.value
    assert SECRET not in f"{error!r} {error} {vars(error)} {error.__context__!r}"
    assert SECRET.encode() not in pickle.dumps(error)
    return error


# Endpoints


def test_a_file_becomes_endpoints_and_options(write: Any) -> None:
    """A provider with several keys, one with a single key and a server of one's own, in the order of the file."""
    path = write(
        """
        model = "gpt-4.1"
        balancer = "least_busy"
        timeout = 20
        failure_threshold = 5

        [[endpoints]]
        provider = "holysheep"
        api_keys = ["${ONE}", "key-2"]

        [[endpoints]]
        provider = "openrouter"
        api_key = "${ONE}-more"
        priority = 2
        max_concurrency = 8

        [[endpoints]]
        name = "own"
        base_url = "http://h:8000/v1/"
        """
    )
    found = settings.from_file(path, {"ONE": "key-1"})
    assert shown(found.endpoints) == [
        "holysheep-1 https://api.holysheep.ai/v1 0/2 key-1",
        "holysheep-2 https://api.holysheep.ai/v1 0/1 key-2",
        "openrouter https://openrouter.ai/api/v1 2/1 key-1-more",
        "own http://h:8000/v1 0/1 None",
    ]
    assert found.endpoints[2].max_concurrency == 8
    assert found.options == {
        "model": "gpt-4.1",
        "balancer": "least_busy",
        "timeout": 20,
        "failure_threshold": 5,
    }
    assert "key-1" not in repr(found)


def test_every_field_of_an_endpoint_can_be_in_a_block() -> None:
    """A block passes on each keyword of `Endpoint`, variables within tables and lists included."""
    block = {
        "name": "a",
        "base_url": "https://${HOST}/v1",
        "api_key": "${KEY}",
        "weight": 2.5,
        "priority": 3,
        "health_check_path": "models",
        "max_latency_ms": 500,
        "models": {"gpt-4.1": "${MODEL}"},
        "context_window": {"gpt-4.1": 1000},
        "headers": {"X-Tenant": "t-${KEY}-$${KEY}-$"},
        "params": {"v": "1"},
        "auth": "api-key",
        "prices": {"gpt-4.1": [1, 2], "b": {"input": 1, "output": 2, "cached_input": 0.5}},
        "max_concurrency": 4,
        "verify": False,
        "proxies": {"https": "http://proxy:3128"},
        "call_path": "d/{model}/{path}",
        "fields": ["temperature", "${MODEL}"],
    }
    assert {*block, "provider", "api_keys"} == set(settings_blocks.BLOCK_KEYS)
    environ = {"HOST": "h.example", "KEY": "k", "MODEL": "m"}
    (made,) = settings.from_mapping({"endpoints": [block]}, environ).endpoints
    expected = {
        **block,
        "base_url": "https://h.example/v1",
        "api_key": "k",
        "models": {"gpt-4.1": "m"},
        "headers": {"X-Tenant": "t-k-${KEY}-$"},
        "fields": {"temperature", "m", "input", "messages", "model", "prompt"},
    }
    assert {name: getattr(made, name) for name in block} == expected


def test_several_keys_of_a_server_are_numbered_and_fall_in_weight() -> None:
    """Keys in a list, or in a string with commas between them; a weight that is given counts for all."""
    own = {"name": "a", "base_url": "http://h/v1"}
    made = settings.from_mapping({"endpoints": [{**own, "api_keys": "${KEYS}"}]}, {"KEYS": " x, y,,z "})
    assert shown(made.endpoints) == [
        "a-1 http://h/v1 0/3 x",
        "a-2 http://h/v1 0/2 y",
        "a-3 http://h/v1 0/1 z",
    ]
    made = settings.from_mapping({"endpoints": [{**own, "api_keys": ["x", "y"], "weight": 7}]})
    assert [endpoint.weight for endpoint in made.endpoints] == [7, 7]


def test_two_blocks_of_a_provider_need_names() -> None:
    """The second block of a provider has a name of its own; without one the error says so."""
    block = {"provider": "openai", "api_key": "k"}
    made = settings.from_mapping({"endpoints": [block, {**block, "name": "openai-eu"}]})
    assert [endpoint.name for endpoint in made.endpoints] == ["openai", "openai-eu"]
    error = refused(settings.from_mapping, {"endpoints": [block, block]})
    assert (error.field, "'openai', which endpoints[0] has," in str(error)) == ("endpoints[1].name", True)


def test_a_provider_brings_its_preset_and_can_be_overridden() -> None:
    """Azure is told its place, keeps its scheme and version, and a keyless server needs nothing at all."""
    azure = {"provider": "azure", "api_key": "k", "base_url": "https://r.openai.azure.com/openai"}
    made = settings.from_mapping({"endpoints": [azure, {"provider": "ollama"}]}).endpoints
    assert (made[0].auth, sorted(made[0].params)) == ("api-key", ["api-version"])
    assert (made[1].name, made[1].api_key) == ("ollama", None)


def test_a_mapping_may_hold_what_toml_cannot() -> None:
    """A callable for a rotated key, a balancer and `Timeouts` pass through; None stands for nothing said."""
    balancer = RoundRobin()
    mapping = {
        "balancer": balancer,
        "timeout": Timeouts(5.0),
        "max_retries": FailoverRetry(1),
        "failure_rate": None,
        "endpoints": [{"name": "a", "base_url": "http://h/v1", "api_key": lambda: "rotated"}],
    }
    found = settings.from_mapping(mapping)
    assert found.endpoints[0].key() == "rotated"
    assert (found.options["balancer"], found.options["timeout"]) == (balancer, Timeouts(5.0))
    FailoverClient(found.endpoints, **found.options).close()
    pair = settings.from_mapping({**mapping, "timeout": (2.0, 5.0)})  # as in requests
    assert pair.options["timeout"] == (2.0, 5.0)


# Options


def test_timeouts_and_retries_may_be_tables(write: Any) -> None:
    """[timeout] becomes `Timeouts` and [max_retries] a `FailoverRetry`, each with every key that is listed."""
    path = write(
        "[timeout]\ntotal = 9\nconnect = 1\nread = 2\nfirst_token = 3\nstall = 4\n"
        '[max_retries]\ntotal = 4\nambiguous = "raise"\nbackoff_base_s = 0.1\nbackoff_cap_s = 1\n'
        "quick_retry_after_s = 2\nretry_after_limit_s = 60\nconnect = 1\nread = 2\nstatus = 3\n"
        'status_forcelist = [425]\nallowed_methods = ["POST"]\nrespect_retry_after_header = false\n' + BLOCK
    )
    options = settings.from_file(path).options
    assert options["timeout"] == Timeouts(9, 1, 2, 3, 4)
    retry = options["max_retries"]
    assert (retry.total, retry.ambiguous, retry.backoff_base_s, retry.backoff_cap_s) == (4, "raise", 0.1, 1)
    assert (retry.quick_retry_after_s, retry.retry_after_limit_s) == (2, 60)
    assert (retry.connect, retry.read, retry.status, retry.status_forcelist) == (1, 2, 3, {425})
    assert (retry.allowed_methods, retry.respect_retry_after_header) == (["POST"], False)
    assert set(settings_keys.RETRY_KEYS) == {
        line.split(" =")[0]
        for line in Path(path)
        .read_text(encoding="utf-8")
        .split("[max_retries]\n")[1]
        .split("[[")[0]
        .splitlines()
    }


# Bad input

WRONG = [
    ("modle = 'x'\n" + BLOCK, "modle", "is not known; did you mean 'model'?"),
    ("zzz = 1\n" + BLOCK, "zzz", "is not known; expected one of 'endpoints', 'model'"),
    (BLOCK + "base_ulr = 1", "endpoints[0].base_ulr", "is not known; did you mean 'base_url'?"),
    (BLOCK + "API_KEY = 'k'", "endpoints[0].API_KEY", "did you mean 'api_key'?"),
    ("timeout.connekt = 1\n" + BLOCK, "timeout.connekt", "did you mean 'connect'?"),
    ("max_retries.totl = 1\n" + BLOCK, "max_retries.totl", "did you mean 'total'?"),
    (BLOCK + "prices.m = {input = 1, outptu = 2}", "endpoints[0].prices['m'].outptu", "mean 'output'?"),
    ("model = 5\n" + BLOCK, "model", "5 is not allowed; expected a string"),
    ("timeout = true\n" + BLOCK, "timeout", "True is not allowed; expected a number or a table"),
    ("timeout = '5'\n" + BLOCK, "timeout", "'5' is not allowed; expected a number or a table"),
    ("rise = 2.5\n" + BLOCK, "rise", "2.5 is not allowed; expected a whole number"),
    ("probe_interval = 2026-01-01\n" + BLOCK, "probe_interval", "expected a number"),
    ("timeout.connect = -1\n" + BLOCK, "timeout.connect", "-1 is not allowed; expected a finite number"),
    ("timeout.connect = '1'\n" + BLOCK, "timeout.connect", "'1' is not allowed; expected a number"),
    ("max_retries.backoff_cap_s = nan\n" + BLOCK, "max_retries.backoff_cap_s", "expected a finite number"),
    (
        "max_retries.respect_retry_after_header = 1\n" + BLOCK,
        "max_retries.respect_retry_after_header",
        "true or",
    ),
    ("", "endpoints", "there is none; expected at least one [[endpoints]] block"),
    ("endpoints = []", "endpoints", "there is none"),
    ("endpoints = 'a'", "endpoints", "a str is not allowed; expected [[endpoints]] blocks"),
    ("[endpoints]\nname = 'a'", "endpoints", "a table is not allowed; expected [[endpoints]] blocks"),
    ("endpoints = ['a']", "endpoints[0]", "a str is not allowed; expected a table"),
    (BLOCK + BLOCK, "endpoints[1].name", "'a', which endpoints[0] has, is not allowed"),
    (
        BLOCK + "[[endpoints]]\nname = 'b'",
        "endpoints[1].base_url",
        "is missing; expected name and base_url, or",
    ),
    (
        "[[endpoints]]\nbase_url = 'http://h'",
        "endpoints[0].name",
        "is missing; expected name and base_url, or",
    ),
    (
        BLOCK + "provider = 'holysheap'",
        "endpoints[0].provider",
        "'holysheap' is not allowed; did you mean 'holys",
    ),
    (BLOCK + "provider = 5", "endpoints[0].provider", "5 is not allowed; expected one of"),
    ("[[endpoints]]\nprovider = 'openai'", "endpoints[0].api_key", "expected a key of openai"),
    (
        "[[endpoints]]\nprovider = 'azure'\napi_key = 'k'",
        "endpoints[0].base_url",
        "resource of azure has its own",
    ),
    (BLOCK + "weight = true", "endpoints[0].weight", "True is not allowed; expected a finite number"),
    (BLOCK + "weight = '${SECRET}'", "endpoints[0].weight", "not shown) is not allowed; expected a finite"),
    (
        BLOCK + "auth = '${SECRET}'",
        "endpoints[0].auth",
        "not shown) is not allowed; expected one of 'anthropic'",
    ),
    (
        BLOCK + f"api_keys = ['{SECRET}']\npriority = -1",
        "endpoints[0].priority",
        "-1 is not",
    ),
    (BLOCK + "provider = '${SECRET}'", "endpoints[0].provider", "not shown) is not allowed; expected one of"),
    ("max_retries.ambiguous = '${SECRET}'\n" + BLOCK, "max_retries.ambiguous", "not shown) is not allowed"),
    ("[[endpoints]]\nname = 'a'\nbase_url = 'x://${SECRET}'", "endpoints[0].base_url", "expected a URL like"),
    (
        "[[endpoints]]\nname = 5\nbase_url = 'http://h'\napi_keys = ['k']",
        "endpoints[0].name",
        "5 is not allowed",
    ),
    (BLOCK + "api_key = 5", "endpoints[0].api_key", "a int is not allowed"),
    (BLOCK + f"api_key = '{SECRET}\\n'\n".replace("'", '"'), "endpoints[0].api_key", "with a line break"),
    (BLOCK + f"api_key = '{SECRET}'\napi_keys = ['k']", "endpoints[0].api_key", "expected one of the two"),
    (BLOCK + f"api_keys = ['k', '{SECRET} ']", "endpoints[0].api_keys[1]", "with white space around it"),
    (BLOCK + "api_keys = []", "endpoints[0].api_keys", "an empty list is not allowed"),
    (BLOCK + f"api_keys = {{ '{SECRET}' = 1 }}", "endpoints[0].api_keys", "a table is not allowed"),
    (BLOCK + "headers.X-Tenant = 5", "endpoints[0].headers['X-Tenant']", "a int is not allowed"),
    (
        BLOCK + "api_key = '${UNSET}'",
        "endpoints[0].api_key",
        "environment variable UNSET is not set, or empty",
    ),
    (
        BLOCK + "headers.X = '${SECRET}${EMPTY}'",
        "endpoints[0].headers.X",
        "variable EMPTY is not set, or empty",
    ),
    (BLOCK + "models = ['${UNSET}']", "endpoints[0].models[0]", "environment variable UNSET is not set"),
    ("model = '${UNSET}'\n" + BLOCK, "model", "environment variable UNSET is not set, or empty"),
    (
        BLOCK + "api_key = '${SECRET'",
        "endpoints[0].api_key",
        "a ${ begins no variable; expected ${NAME}, or $$",
    ),
    (
        BLOCK + "api_key = '${SEC-RET}'",
        "endpoints[0].api_key",
        "a ${ begins no variable; expected ${NAME}, or $$",
    ),
]


@pytest.mark.parametrize(("text", "field", "problem"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_work_is_refused_by_file_and_field(
    write: Any, text: str, field: str, problem: str
) -> None:
    """The message begins with the file and the field's path, says what is allowed, and shows no secret."""
    path = write(text)
    error = refused(settings.from_file, path, {"SECRET": SECRET, "EMPTY": " "})
    assert str(error).startswith(f"{path}: {field}: ")
    assert problem in str(error)
    assert error.field == field


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 10**30),
    st.floats(),
    st.dates(),
    st.sampled_from(["${SECRET}", "${UNSET}", "$", "holysheep", "http://h", "", "\ud800", "p95"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
BLOCKS = st.dictionaries(st.sampled_from(settings_blocks.BLOCK_KEYS), VALUES, max_size=5)
OPTIONS = st.fixed_dictionaries(
    {"endpoints": st.lists(BLOCKS, max_size=2) | VALUES},
    optional=dict.fromkeys(("model", "timeout", "max_retries", "hedge_after", "rise"), VALUES),
)


@given(OPTIONS)
def test_whatever_a_mapping_holds_is_settings_or_an_error_of_ours(mapping: Any) -> None:
    """Nothing that TOML can hold raises anything but a `ConfigurationError`, and none shows the secret."""
    error = None
    try:
        settings.from_mapping(mapping, {"SECRET": SECRET})
    except ConfigurationError as caught:
        error = caught
    assert error is None or SECRET not in f"{error!r} {error} {vars(error)} {error.__context__!r}"


@pytest.mark.parametrize("mapping", [None, "x", 5, [SECRET], [("endpoints", [SECRET])]])
def test_a_mapping_that_is_none_is_refused(mapping: Any) -> None:
    """The error says what it was, not what it held."""
    error = refused(settings.from_mapping, mapping)
    assert str(error) == f"settings: a {type(mapping).__name__} is not allowed; expected a mapping"


def test_a_key_that_is_no_string_is_refused() -> None:
    """A mapping's key may be anything; only the known ones are allowed."""
    assert refused(settings.from_mapping, {5: 1}).field == "5"


UNREADABLE = [
    (None, "cannot be read (No such file or directory)"),
    (b"model = \n", r"is not TOML: .*line 1, column 9"),
    (b"api_key = '" + SECRET.encode() + b"' '\n", r"is not TOML: .*line 1, column \d+"),
    (b"\xff\xfe" + "model = 1".encode("utf-16-le"), r"is not UTF-8 \(byte 1\)"),
    (b"api_key = '" + SECRET.encode() + b"'\n# \xe9", r"is not UTF-8 \(byte 30\)"),
    (b"x = " + b"[" * 100_000, r"is nested too deeply|is not TOML"),
]


@pytest.mark.parametrize(("content", "problem"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: Any, problem: str) -> None:
    """A file that is missing, broken or not UTF-8 is named, with line and column where the parser knows them."""
    path = tmp_path / "llm.toml"
    if content is not None:
        path.write_bytes(content)
    error = refused(settings.from_file, path)
    assert (error.field, error.value) == ("path", str(path))
    assert str(error).startswith(f"{path}: ")
    assert problem in str(error) or re.search(problem, str(error))


@pytest.mark.parametrize(
    ("path", "problem"), [(5, "5 is not allowed"), (None, "None is"), ("a\0b", "null byte")]
)
def test_what_is_no_path_is_refused(path: Any, problem: str) -> None:
    """A number is no file descriptor here."""
    assert problem in str(refused(settings.from_file, path))


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """A directory is refused by name."""
    assert str(refused(settings.from_file, tmp_path)).startswith(f"{tmp_path}: cannot be read")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """What some editors put before the first line is left out."""
    path = tmp_path / "llm.toml"
    path.write_bytes(b"\xef\xbb\xbf" + BLOCK.encode())
    assert len(settings.from_file(path).endpoints) == 1


def test_a_bad_number_is_refused_by_the_client(write: Any) -> None:
    """What only the client can judge is still an error that names the option."""
    path = write("failure_threshold = 0\n" + BLOCK)
    assert refused(FailoverClient.from_file, path).field == "failure_threshold"


# The environment


def test_the_environment_gives_the_relay_the_vendors_and_the_exit() -> None:
    """Every provider whose key is set takes part; the relay first, the vendors after it, OpenRouter last."""
    environ = {
        "HOLYSHEEP_API_KEYS": "h1, h2,",
        "HOLYSHEEP_API_KEY": "h2,h3",
        "OPENAI_API_KEY": "o",
        "OPENAI_BASE_URL": "http://gateway/v1",
        "ANTHROPIC_API_KEY": "a",
        "ANTHROPIC_BASE_URL": "https://api.anthropic.com",
        "GEMINI_API_KEY": "g1,g2",
        "DEEPSEEK_API_KEY": "d",
        "AZURE_OPENAI_API_KEY": "z",
        "AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com/",
        "AZURE_OPENAI_DEPLOYMENT": "gpt-4.1=mine, gpt-4o",
        "OPENAI_API_VERSION": "2025-01-01",
        "OPENROUTER_API_KEY": "r",
        "OPENROUTER_BASE_URL": "http://exit/v1",
    }
    found = settings.from_env(environ)
    assert shown(found.endpoints) == [
        "holysheep-1 https://api.holysheep.ai/v1 0/3 h1",
        "holysheep-2 https://api.holysheep.ai/v1 0/2 h2",
        "holysheep-3 https://api.holysheep.ai/v1 0/1 h3",
        "openai-1 http://gateway/v1 1/1 o",
        "anthropic-1 https://api.anthropic.com/v1 1/1 a",
        "gemini-1 https://generativelanguage.googleapis.com/v1beta/openai 1/2 g1",
        "gemini-2 https://generativelanguage.googleapis.com/v1beta/openai 1/1 g2",
        "deepseek-1 https://api.deepseek.com 1/1 d",
        "azure-1 https://r.openai.azure.com/openai 1/1 z",
        "openrouter-1 http://exit/v1 2/1 r",
    ]
    azure = found.endpoints[-2]
    assert (azure.models, azure.params) == (
        {"gpt-4.1": "mine", "gpt-4o": "gpt-4o"},
        {"api-version": "2025-01-01"},
    )
    assert found.options == {}


def test_options_come_from_variables_by_their_kind() -> None:
    """Numbers become numbers, strings stay, "p95" and milliseconds both work, and empty is not set."""
    environ = {
        "OPENAI_API_KEY": "k",
        "SYNCFAILOVER_MODEL": "gpt-4.1",
        "SYNCFAILOVER_TIMEOUT": "12.5",
        "SYNCFAILOVER_MAX_RETRIES": "2",
        "SYNCFAILOVER_QUEUE_TIMEOUT": " 3 ",
        "SYNCFAILOVER_BUDGET_USD": "0.5",
        "SYNCFAILOVER_HEDGE_AFTER": "p95",
        "SYNCFAILOVER_BALANCER": "",
        "SYNCFAILOVER_CONFIG": "",
        "SYNCFAILOVER_DEMO": "1",
        "SYNCFAILOVER_SERVICE_HOST": "10.0.0.1",
        "SYNCFAILOVER_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert settings.from_env(environ).options == {
        "model": "gpt-4.1",
        "timeout": 12.5,
        "max_retries": 2,
        "queue_timeout": 3.0,
        "budget_usd": 0.5,
        "hedge_after": "p95",
    }
    late = settings.from_env({"OPENAI_API_KEY": "k", "SYNCFAILOVER_HEDGE_AFTER": "250"})
    assert late.options == {"hedge_after": 250.0}


def test_variables_win_over_the_file_that_one_of_them_names(write: Any, monkeypatch: Any) -> None:
    """SYNCFAILOVER_CONFIG brings the endpoints, keys elsewhere count no more, and options win over the file's."""
    path = Path(write('model = "m"\ntimeout = 5\n' + BLOCK + 'api_key = "${KEY}"'))
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    environ = {"OPENAI_API_KEY": "o", "KEY": "k", "SYNCFAILOVER_TIMEOUT": "7"}
    for named in (str(path), "~/llm.toml"):
        found = settings.from_env({**environ, "SYNCFAILOVER_CONFIG": named})
        assert shown(found.endpoints) == ["a http://h/v1 0/1 k"]
        assert found.options == {"model": "m", "timeout": 7.0}
    error = refused(settings.from_env, {"SYNCFAILOVER_CONFIG": "/no/such.toml"})
    assert str(error).startswith(
        "/no/such.toml: cannot be read (No such file or directory) (SYNCFAILOVER_CONFIG"
    )


WRONG_ENVIRONMENTS = [
    ({}, "SYNCFAILOVER_CONFIG", "set a key (HOLYSHEEP_API_KEYS, OPENAI_API_KEY, "),
    ({"OPENAI_API_KEY": " , "}, "SYNCFAILOVER_CONFIG", "`syncfailover init` prints one"),
    ({"SYNCFAILOVER_TIMOUT": "5"}, "SYNCFAILOVER_TIMOUT", "did you mean 'SYNCFAILOVER_TIMEOUT'?"),
    ({"SYNCFAILOVER_CONFG": "x"}, "SYNCFAILOVER_CONFG", "did you mean 'SYNCFAILOVER_CONFIG'?"),
    ({"SYNCFAILOVER_TIMEOUT": "5s"}, "SYNCFAILOVER_TIMEOUT", "'5s' is not allowed; expected a number"),
    ({"SYNCFAILOVER_RISE": "2.5"}, "SYNCFAILOVER_RISE", "'2.5' is not allowed; expected a whole number"),
    ({"OPENAI_API_KEY": SECRET + "\u00e9"}, "OPENAI_API_KEY", "a key of 15 characters with"),
    ({"HOLYSHEEP_API_KEY": f"k,{SECRET}\x01"}, "HOLYSHEEP_API_KEY", "a key of 15 characters with"),
    ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"x://{SECRET}"}, "OPENAI_BASE_URL", "expected a URL like"),
    ({"AZURE_OPENAI_API_KEY": "k"}, "AZURE_OPENAI_ENDPOINT", "expected the resource's URL, such as"),
    (
        {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": f"{SECRET}/"},
        "AZURE_OPENAI_ENDPOINT",
        "expected a resource's name, such as 'my-resource', or its URL",
    ),
    (
        {
            "AZURE_OPENAI_API_KEY": "k",
            "AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com",
            "AZURE_OPENAI_DEPLOYMENT": "gpt-4.1=",
        },
        "AZURE_OPENAI_DEPLOYMENT",
        "expected a string that is not empty",
    ),
]


@pytest.mark.parametrize(
    ("environ", "field", "problem"), WRONG_ENVIRONMENTS, ids=range(len(WRONG_ENVIRONMENTS))
)
def test_what_cannot_work_is_refused_by_variable(environ: Dict[str, str], field: str, problem: str) -> None:
    """The message names the variable and what it may hold, and shows no key."""
    error = refused(settings.from_env, environ)
    assert error.field == field
    assert problem in str(error)
    assert field in str(error)


def test_every_provider_with_a_variable_has_a_preset() -> None:
    """The environment names no provider that does not exist."""
    assert set(settings.KEY_VARIABLES) <= set(providers.PRESETS)
    assert set(settings_environ.URL_VARIABLES) | set(settings_environ.PRIORITIES) <= set(
        settings.KEY_VARIABLES
    )


# The tables

#: What only code can give.
NOT_IN_TOML = {"clock", "sleep", "chance", "include_keys", "retry_budget"}


def keywords(cls: Any) -> Any:
    """The keyword-only arguments of a class."""
    return [p.name for p in signature(cls.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]


def test_the_options_are_those_of_the_code() -> None:
    """Every keyword of the client and of the registry behind it is an option, unless TOML cannot hold it."""
    known = {*keywords(FailoverClient), *keywords(EndpointRegistry)}
    assert set(settings_keys.OPTIONS) == known - NOT_IN_TOML
    assert set(keywords(FailoverRetry)) <= set(settings_keys.RETRY_KEYS)


def test_every_option_reaches_a_client(write: Any) -> None:
    """Each option that is not a table is taken by the client as TOML gives it."""
    sample: Dict[str, Any] = {
        "model": "m",
        "balancer": "least_busy",
        "probe_when": "never",
        "hedge_after": "p95",
        "state": "sqlite:///health.db",
    }
    plain = {name: kind for name, kind in settings_keys.OPTIONS.items() if name not in sample}
    sample.update(
        (name, 1 if kind.startswith("a whole") else 0.5 if name == "failure_rate" else 1.5)
        for name, kind in plain.items()
    )
    lines = [f"{name} = {value!r}" for name, value in sample.items()]
    client = FailoverClient.from_file(write("\n".join([*lines, BLOCK])))
    assert client.status()["a"].name == "a"
    client.close()


# The page


def rows(heading: str) -> List[List[str]]:
    """The cells of the first table after a heading of the page."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].splitlines()[2:]]


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("### Options", settings_keys.OPTIONS),
        ("### [timeout]", dict.fromkeys(Timeouts._fields, settings_keys.NUMBER)),
        ("### [max_retries]", settings_keys.RETRY_KEYS),
    ],
)
def test_the_page_lists_every_key(heading: str, keys: Dict[str, str]) -> None:
    """docs/configuration.md lists every key with the kind of its value, in the order of the code."""
    assert [(name.strip("`"), kind) for name, kind in rows(heading)] == list(keys.items())


def test_the_page_lists_every_key_of_a_block() -> None:
    """docs/configuration.md lists every key of [[endpoints]], every provider, and every variable."""
    listed = {row[0].strip("`"): row[1] for row in rows("### [[endpoints]]")}
    assert list(listed) == list(settings_blocks.BLOCK_KEYS)
    assert set(re.findall(r'`"(\w+)"`', listed["provider"])) == set(providers.PRESETS)
    for provider, priority, variables, url in rows("## The environment"):
        name = provider.strip("`")
        assert re.findall(r"\w+", variables) == list(settings.KEY_VARIABLES[name])
        assert int(priority) == settings_environ.PRIORITIES.get(name, 1)
        assert url.strip("` |") == settings_environ.URL_VARIABLES.get(name, "")
    assert len(rows("## The environment")) == len(settings.KEY_VARIABLES)


def fenced(language: str) -> List[str]:
    """The page's blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("index", range(len(fenced("python"))))
def test_every_example_of_the_page_runs(
    index: int, tmp_path: Path, monkeypatch: Any, fake_upstreams: Callable[..., List[FakeUpstream]]
) -> None:
    """Each Python block of docs/configuration.md runs as it stands, beside its TOML file, against upstreams here."""
    relay, openrouter = fake_upstreams(2)
    for name, upstream in (("holysheep", relay), ("openrouter", openrouter)):
        preset = providers.PRESETS[name]._replace(base_url=upstream.url)
        monkeypatch.setitem(providers.PRESETS, name, preset)
    for names in settings.KEY_VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name in ("HOLYSHEEP_KEY_1", "HOLYSHEEP_KEY_2", "OPENROUTER_API_KEY", "HOLYSHEEP_API_KEYS"):
        monkeypatch.setenv(name, f"value-of-{name}")
    monkeypatch.delenv("SYNCFAILOVER_CONFIG", raising=False)
    monkeypatch.setenv("SYNCFAILOVER_MODEL", "gpt-4.1")
    (toml,) = fenced("toml")
    (tmp_path / "llm.toml").write_text(toml, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    namespace: Dict[str, Any] = {}
    exec(fenced("python")[index], namespace)  # noqa: S102 - it is our own text
    assert len(relay.calls.requests) == 1
    if "client" in namespace:
        namespace["client"].close()
    else:
        namespace["syncfailover"].default_client().close()


def test_the_error_that_the_page_shows_is_the_one_that_comes(write: Any) -> None:
    """docs/configuration.md shows the message for a misspelt key as it is."""
    error = refused(settings.from_file, write(BLOCK + "base_ulr = 1"))
    assert fenced("text") == [str(error)[str(error).index("llm.toml") :] + "\n"]


def test_an_endpoint_of_a_file_is_frozen_and_plain(write: Any) -> None:
    """What a file makes is an `Endpoint` like any other."""
    (endpoint,) = settings.from_file(write(BLOCK)).endpoints
    assert isinstance(endpoint, Endpoint)
    assert endpoint.replace(weight=2).weight == 2


@pytest.mark.parametrize("option", ["balancer", "probe_when", "hedge_after"])
def test_what_the_client_refuses_names_the_file_and_hides_what_came_from_a_variable(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option is checked by the client; its error still says which file, and shows no variable's value."""
    monkeypatch.setenv("S", "sk-secret-value")
    path = tmp_path / "llm.toml"
    path.write_text(
        f"{option} = '${{S}}'\n[[endpoints]]\nname = 'a'\nbase_url = 'http://127.0.0.1:1/v1'\n", "utf-8"
    )
    with pytest.raises(ConfigurationError, match=rf"^{re.escape(str(path))}: {option}: ") as caught:
        FailoverClient.from_file(path)
    assert "sk-secret" not in str(caught.value)
    assert "sk-secret" not in repr(caught.value.value)
    with pytest.raises(ConfigurationError, match=rf"^{option}: 'mine' is not allowed"):
        FailoverClient.from_file(path, **{option: "mine"})  # the caller's own, not the file's


def test_a_tilde_that_leads_nowhere_is_a_file_that_cannot_be_read() -> None:
    """`~nobody-of-that-name` is no traceback."""
    with pytest.raises(ConfigurationError, match="SYNCFAILOVER_CONFIG names it"):
        settings.from_env({"SYNCFAILOVER_CONFIG": "~no-such-user-0123/llm.toml"})


def test_a_name_from_a_variable_is_not_shown_where_it_stands_twice() -> None:
    """Whatever a variable holds may be a secret."""
    block = {"name": "${S}", "base_url": "http://127.0.0.1:1/v1"}
    with pytest.raises(ConfigurationError, match="which endpoints") as caught:
        settings.from_mapping({"endpoints": [block, block]}, {"S": "sk-secret-value"})
    assert "sk-secret" not in str(caught.value)
