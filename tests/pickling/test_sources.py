"""Where a secret is read again: variables, settings files, functions."""

import os
import pickle
import sys
from pathlib import Path
from typing import Any, List

import pytest
from pickled_work import CarefulVault, Vault, key
from pickles import SECRET, block, loaded, made, refused, why_unusable

from syncfailover import EndpointRegistry, FailoverClient, pickling, settings, unpickling


def test_keys_of_the_environment_are_read_again(monkeypatch: Any) -> None:
    """`from_env`: each endpoint reads its own variable, and its own key in it."""
    for name in list(os.environ):
        if name.startswith(("SYNCFAILOVER_",)) or name in VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOLYSHEEP_API_KEYS", f"{SECRET}-1, {SECRET}-2")
    monkeypatch.setenv("HOLYSHEEP_API_KEY", f"{SECRET}-3")
    monkeypatch.setenv("OPENROUTER_API_KEY", SECRET)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    original = FailoverClient.from_env(model="m")
    pickled = pickle.dumps(original)
    assert SECRET.encode() not in pickled
    monkeypatch.setenv("HOLYSHEEP_API_KEYS", "new-1,new-2,new-3")
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "old")
    monkeypatch.setenv("OPENROUTER_API_KEY", "other")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azures")
    twin = pickle.loads(pickled)  # noqa: S301 - our own
    assert {e.name: e.key() for e in twin.registry.endpoints} == {
        "holysheep-1": "new-1",
        "holysheep-2": "new-2",
        "holysheep-3": "old",
        "azure-1": "azures",
        "openrouter-1": "other",
    }
    again = loaded(twin)
    assert again.registry is twin.registry
    assert again.registry["azure-1"].params == {"api-version": "2024-10-21"}


VARIABLES = {name for names in settings.KEY_VARIABLES.values() for name in names}


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "endpoint 'h-2': api_key: the environment variable PICKLED_KEYS is not set, or empty"),
        (
            "only-one",
            "endpoint 'h-2': api_key: ${PICKLED_KEYS} holds 1 of its keys here; expected at least 2",
        ),
        (f"k,{SECRET}\u00e9", "endpoint 'h-2': api_key: a key of 21 characters with white space"),
    ],
)
def test_what_is_missing_is_told(value: Any, message: str, monkeypatch: Any) -> None:
    """The error names endpoint and variable; it shows no key."""
    monkeypatch.setenv("PICKLED_KEYS", f"{SECRET}-1,{SECRET}-2")
    found = settings.from_mapping({"endpoints": [block("http://h", "h", api_keys="${PICKLED_KEYS}")]})
    pickled = pickle.dumps(found.endpoints[1])
    registry = pickle.dumps(EndpointRegistry(found.endpoints[1:]))
    if value is None:
        monkeypatch.delenv("PICKLED_KEYS")
    else:
        monkeypatch.setenv("PICKLED_KEYS", value)
    assert why_unusable(pickled).startswith(message)
    assert why_unusable(registry).startswith(message)


def test_whatever_stands_in_a_variable_is_read_again(monkeypatch: Any) -> None:
    """`${NAME}` in a key, one of several keys, a header, a parameter and a proxy, each within a longer text."""
    monkeypatch.setenv("PICKLED", SECRET)
    blocks = [
        block("http://h", "one", api_key="${PICKLED}"),
        block("http://h", "two", api_keys=["${PICKLED}-1", "key-${PICKLED}"]),
        block("http://h", "three", headers={"Authorization": "Bearer ${PICKLED}", "X-Title": "$$ a title"}),
        block("http://h", "four", params={"key": "${PICKLED}", "tenant": "of-number-${PICKLED}"}),
        block("http://h", "five", proxies={"https": "http://user:${PICKLED}@proxy:3128"}),
        block("http://h", "six", proxies={"https": "http://${PICKLED}@proxy:3128", "http": "http://p:1"}),
    ]
    original = EndpointRegistry(settings.from_mapping({"endpoints": blocks}).endpoints)
    pickled = pickle.dumps(original)
    assert SECRET.encode() not in pickled
    monkeypatch.setenv("PICKLED", "new")
    twin = pickle.loads(pickled)  # noqa: S301 - our own
    assert [endpoint.key() for endpoint in twin.endpoints][:3] == ["new", "new-1", "key-new"]
    assert twin["three"].headers == {"Authorization": "Bearer new", "X-Title": "$ a title"}
    assert twin["four"].params == {"key": "new", "tenant": "of-number-new"}
    assert twin["five"].proxies == {"https": "http://user:new@proxy:3128"}
    assert twin["six"].proxies == {"https": "http://new@proxy:3128", "http": "http://p:1"}
    assert loaded(twin) is twin


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": SECRET},
        {"api_key": SECRET + "${PICKLED}"},
        {"api_keys": ["${PICKLED}", SECRET]},
        {"headers": {"X-Api-Key": SECRET + "${PICKLED}"}},
        {"headers": {"X-Tenant": "Bearer " + SECRET}},
        {"proxies": {"https": f"http://user:{SECRET}@${{PICKLED}}:3128"}},
    ],
)
def test_a_secret_in_a_mapping_has_no_source(fields: Any, monkeypatch: Any) -> None:
    """What stands in code as text is a literal, also beside a variable."""
    monkeypatch.setenv("PICKLED", "x")
    found = settings.from_mapping({"endpoints": [block("http://h", "a", **fields)]})
    refused(EndpointRegistry(found.endpoints))


@pytest.mark.usefixtures("forgetful")
def test_what_a_file_holds_is_read_from_it_again(tmp_path: Path, monkeypatch: Any) -> None:
    """A key, a header, a parameter and a proxy as text stay in the file, whose path travels, absolute."""
    path = tmp_path / "llm.toml"
    text = (
        "[[endpoints]]\nname = 'a'\nbase_url = 'http://h/v1'\napi_keys = ['S-1', 'S-2']\n"
        "headers = { X-Tenant-Token = 'S', X-Title = 'title' }\nparams = { key = 'S', v = '1' }\n"
        "proxies = { https = 'http://user:S@proxy:3128' }\n"
        "[[endpoints]]\nname = 'b'\nbase_url = 'http://h/v1'\napi_key = 'S-${PICKLED}-long-enough'\n"
    )
    monkeypatch.setenv("PICKLED", "p")
    path.write_text(text.replace("S", SECRET), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    original = EndpointRegistry(settings.from_file("llm.toml").endpoints)
    pickled, alone = pickle.dumps(original), pickle.dumps(original["b"])
    assert SECRET.encode() not in pickled + alone
    monkeypatch.chdir("/")
    path.write_text(text.replace("S", "new"), encoding="utf-8")
    twin = pickle.loads(pickled)  # noqa: S301 - our own
    assert [endpoint.key() for endpoint in twin.endpoints] == ["new-1", "new-2", "new-p-long-enough"]
    assert twin["a-2"].headers == {"X-Tenant-Token": "new", "X-Title": "title"}
    assert twin["a-2"].params == {"key": "new", "v": "1"}
    assert twin["a-2"].proxies == {"https": "http://user:new@proxy:3128"}
    assert loaded(twin) is twin
    path.write_text(text.replace("'b'", "'c'").replace("S", SECRET), encoding="utf-8")
    assert why_unusable(alone).startswith(
        f"endpoint 'b': {path}: there is no api_key of an endpoint 'b' here; expected what the file held"
    )
    path.unlink()
    assert why_unusable(alone).startswith(f"endpoint 'b': {path}: cannot be read")


def test_a_file_is_read_once_for_all_endpoints(tmp_path: Path, monkeypatch: Any) -> None:
    """However many secrets of one file a pickle holds."""
    path = tmp_path / "llm.toml"
    lines = [f"[[endpoints]]\nname = '{n}'\nbase_url = 'http://h/v1'\napi_key = 'k{n}'" for n in range(20)]
    path.write_text("\n".join(lines), encoding="utf-8")
    pickled = pickle.dumps(EndpointRegistry(settings.from_file(path).endpoints))
    read: List[Any] = []
    real = settings._parsed
    monkeypatch.setattr(settings, "_parsed", lambda *given: read.append(1) or real(*given))
    assert pickle.loads(pickled)["19"].key() == "k19"  # noqa: S301 - our own
    assert len(read) == 1


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (key, "key-of-a-function"),
        (Vault.common, "key-of-a-class"),
        (CarefulVault("v"), "sk-secret-of-a-vault"),
    ],
)
def test_a_callable_is_its_own_source(source: Any, found: str) -> None:
    """A function or class method is found by its name; an object whose class says what travels pickles itself."""
    if isinstance(source, CarefulVault):
        source()
    pickled = pickle.dumps(made(api_key=source))
    assert b"of-a-" not in pickled
    twin = pickle.loads(pickled)  # noqa: S301 - our own
    assert callable(twin.api_key)
    assert twin.key() == found


def test_a_callable_that_is_not_there_is_told(monkeypatch: Any) -> None:
    """The error names endpoint, module and function."""
    pickled = pickle.dumps(made(api_key=key))
    monkeypatch.delattr("pickled_work.key")
    assert why_unusable(pickled).startswith("endpoint 'a': api_key: pickled_work.key cannot be found here")


def test_an_option_is_read_again_where_it_has_a_source(tmp_path: Path, monkeypatch: Any) -> None:
    """A URL with a password among the options travels as its variable or its file; one as text refuses."""
    monkeypatch.setitem(settings.OPTIONS, "state", "a string")
    monkeypatch.setitem(sys.modules["syncfailover.settings_environ"].OPTIONS, "state", "a string")
    monkeypatch.setenv("PICKLED", SECRET)
    url = "redis://:${PICKLED}@host/0"
    monkeypatch.setenv("SYNCFAILOVER_STATE", f"redis://:{SECRET}@env/0")
    path = tmp_path / "llm.toml"
    path.write_text(f"state = 'redis://:{SECRET}@file/0'\n[[endpoints]]\nname = 'a'\nbase_url = 'http://h'\n")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    blocks = [block("http://h")]
    for options, host in (
        (settings.from_mapping({"state": url, "endpoints": blocks}).options, "host"),
        (settings.from_env().options, "env"),
        ({"state": settings.from_file(path).options["state"]}, "file"),
    ):
        packed = loaded(pickling.pack_options({"state": options["state"]}, include_keys=False))
        assert unpickling.unpack("the registry", packed) == {"state": f"redis://:{SECRET}@{host}/0"}
    with pytest.raises(
        TypeError, match="the registry: state: a URL with a password, which was passed as text"
    ):
        pickling.pack_options({"state": f"redis://:{SECRET}@h/0"}, include_keys=False)
    assert pickling.pack_options({"state": "redis://h/0"}, include_keys=False) == {"state": "redis://h/0"}
