"""Every preset against an upstream that speaks as its provider does, over real sockets.

`providers/` holds the facts as data: what a preset is made with, what it sends where, how its key goes along, what a
good reply looks like. The error bodies are those that the pure policy is tested with, and a few of the provider's own.
"""

import json
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple
from urllib.parse import urlsplit

import pytest
import requests

from syncfailover import (
    Endpoint,
    EndpointRegistry,
    FailoverClient,
    FailoverSession,
    HealthMonitor,
    errors,
    providers,
)
from syncfailover.testing import FakeUpstream, Status

HERE = Path(__file__).parent
FACTS: Dict[str, Dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((HERE / "providers").glob("*.json"))
}
PROVIDERS = sorted(FACTS)


def shapes_of(facts: Dict[str, Any]) -> Iterator[Dict[str, Any]]:
    """Give a provider's own cases and those of the policy's tests, but for the ones of a plain session."""
    yield from facts["cases"]
    for shapes in facts["shapes"]:
        stem, _, whose = shapes.partition(": ")
        for case in json.loads((HERE / "policy" / "wire" / f"{stem}.json").read_text(encoding="utf-8")):
            if case.get("expects", "choices") == "choices" and case["says"].startswith(whose):
                yield case


CASES = [
    pytest.param(provider, case, id=f"{provider}: {case['says']}")
    for provider, facts in FACTS.items()
    for case in shapes_of(facts)
    if case["outcome"] != "ok"
]
ANSWERS = [
    pytest.param(provider, case, id=f"{provider}: {case['says']}")
    for provider, facts in FACTS.items()
    for case in shapes_of(facts)
    if case["outcome"] == "ok"
]

#: By outcome: whether another endpoint is asked, what rests, and what the caller gets where there is no other.
FOLLOWS = {
    "rate_limited": (True, "pair", errors.RateLimited),
    "in_flight_budget": (True, "pair", errors.RateLimited),
    "quota_exhausted": (True, "key", errors.QuotaExhausted),
    "key_refused": (True, "key", errors.AuthenticationFailed),
    "forbidden": (True, "pair", errors.RequestRejected),
    "model_not_found": (True, "pair", errors.ModelNotFound),
    "context_length": (False, None, errors.ContextLengthExceeded),
    "content_filtered": (False, None, errors.ContentFiltered),
    "rejected": (False, None, errors.RequestRejected),
    "transient": (True, None, errors.AllEndpointsFailed),
    "server_error": (True, None, errors.AllEndpointsFailed),
    "overloaded": (True, None, errors.AllEndpointsFailed),
    "invalid_reply": (True, None, errors.InvalidReply),
}


class Fleet(NamedTuple):
    """A provider's upstream and the preset that leads there; behind it an endpoint that serves everything."""

    facts: Dict[str, Any]
    upstream: FakeUpstream
    preset: Endpoint
    other: FakeUpstream
    second: Endpoint

    def client(self, **options: Any) -> FailoverClient:
        """Make a client that asks the provider first."""
        return FailoverClient(
            [self.preset, self.second], model=self.facts["model"], probe_when="never", timeout=5.0, **options
        )


@pytest.fixture
def fleet(provider: str) -> Iterator[Fleet]:
    """The upstream of the provider that the test is about; both endpoints are peers, so that nothing is waited for."""
    facts = FACTS[provider]
    with ExitStack() as running:
        path = facts["probe"]["path"].split("?")[0]
        upstream = running.enter_context(FakeUpstream(provider, probe_paths=[path]))
        other = running.enter_context(FakeUpstream("other"))
        # The preset's own path stays; only scheme, host and port become the upstream's.
        here = providers.PRESETS[provider].base_url or "https://my-resource.openai.azure.com/openai"
        base_url = upstream.origin + urlsplit(here).path
        made = getattr(providers, provider)(*facts["arguments"], base_url=base_url, weight=1000)
        preset = made[0] if isinstance(made, list) else made
        yield Fleet(facts, upstream, preset, other, Endpoint("second", other.url, "sk-second"))


def says(shape: Dict[str, Any]) -> Status:
    """Answer with a case's status, headers and body, exactly."""
    body = shape.get("text", shape.get("body"))
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **shape.get("headers", {})}
    return Status(shape.get("status", 200), data, headers)


def check_request(seen: Any, expected: Dict[str, Any]) -> None:
    """Compare a request on the wire with what the provider wants: path, query, key and other headers."""
    assert seen.path == expected["path"]
    if "key" in expected:
        name, value = expected["key"]
        assert seen.header(name) == value
    for name in expected.get("absent", ()):
        assert seen.header(name) is None
    for name, value in expected.get("headers", {}).items():
        assert seen.header(name) == value


def test_every_preset_has_its_facts() -> None:
    """No preset goes without a test against its provider's shapes."""
    assert set(PROVIDERS) == set(providers.PRESETS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_chat_goes_where_the_provider_wants_it(fleet: Fleet) -> None:
    """Path, query, key and model name are the provider's, and its reply is read in full."""
    facts = fleet.facts
    fleet.upstream.calls.script(says({"body": facts["reply"]}))
    with fleet.client() as client:
        reply = client.chat("Hi", **facts.get("extra_fields", {}))
    (seen,) = fleet.upstream.calls.requests
    check_request(seen, facts["call"])
    assert seen.json()["model"] == facts["sent_model"]
    if "sent_fields" in facts:
        assert sorted(seen.json()) == facts["sent_fields"]
    assert (reply.text, reply.finish_reason) == (facts["text"], facts.get("finish_reason", "stop"))
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (19, 10)
    assert reply.cost_usd == facts.get("cost_usd")
    assert not fleet.other.requests


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_session_goes_there_as_well(fleet: Fleet) -> None:
    """A relative URL of a session and an absolute one of a mounted session become the provider's own."""
    facts = fleet.facts
    payload = {
        "model": facts["model"],
        "messages": [{"role": "user", "content": "Hi"}],
        **facts.get("extra_fields", {}),
    }
    registry = EndpointRegistry([fleet.preset, fleet.second])
    with FailoverSession(registry, probe_when="never") as session, requests.Session() as plain:
        adapter = registry.mount(plain, "https://api.openai.com/v1", probe_when="never")
        for sender, url in (
            (session, "chat/completions"),
            (plain, "https://api.openai.com/v1/chat/completions"),
        ):
            fleet.upstream.calls.script(says({"body": facts["reply"]}))
            response = sender.post(url, json=payload, headers={"Authorization": "Bearer of-the-session"})
            assert response.json()["choices"][0]["message"]["content"] == facts["text"]
            assert response.url == fleet.upstream.origin + facts["call"]["path"].split("?")[0]
            seen = fleet.upstream.calls.requests[-1]
            check_request(seen, facts["call"])
            assert seen.json()["model"] == facts["sent_model"]
            assert sorted(seen.json()) == facts.get("sent_fields", sorted(payload))
            assert int(seen.header("content-length")) == len(seen.body)
        adapter.close()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_model_list_is_asked_for_where_it_is(fleet: Fleet) -> None:
    """A call without a model has the provider's own path and form of the key, too."""
    expected = fleet.facts["list"]
    answers = (fleet.upstream.calls, fleet.upstream.probes)  # it may be where the probe goes
    for channel in answers:
        channel.script(says(expected))
    with fleet.client() as client:
        assert client.models.list().data[0].id == expected["body"]["data"][0]["id"]
    (seen,) = fleet.upstream.requests
    assert seen.method == "GET"
    check_request(seen, expected)


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if "embeddings" in FACTS[name]])
def test_embeddings_go_where_the_provider_wants_them(fleet: Fleet) -> None:
    """They have the model in the path where a chat has it, and lose no input."""
    expected = {**fleet.facts["call"], **fleet.facts["embeddings"]}
    body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}]}
    fleet.upstream.calls.script(says({"body": body}))
    with fleet.client() as client:
        reply = client.embeddings.create(input=["a"], model=expected["model"], dimensions=2)
    assert reply.data[0].embedding == [0.5, -0.5]
    (seen,) = fleet.upstream.calls.requests
    check_request(seen, expected)
    assert (seen.json()["input"], seen.json()["dimensions"]) == (["a"], 2)


@pytest.mark.parametrize(("provider", "case"), CASES)
def test_a_refusal_is_named_and_followed(fleet: Fleet, case: Dict[str, Any]) -> None:
    """A refusal in the provider's words goes on to another endpoint, or to the caller, and what ought to rest rests."""
    elsewhere, rests, error = FOLLOWS[case["outcome"]]
    if case["outcome"] == "overloaded" and "retry_after_s" in case:
        rests = "pair"
    fleet.upstream.calls.script(says(case))
    with fleet.client() as client:
        if elsewhere:
            reply = client.chat("Hi")
            assert (reply.endpoint, reply.text) == ("second", "Hello from other.")
            attempts = reply.attempts
        else:
            with pytest.raises(error) as caught:
                client.chat("Hi")
            attempts = caught.value.attempts
            assert not fleet.other.requests
        assert attempts[0].endpoint == fleet.preset.name
        assert attempts[0].outcome == case["outcome"]
        if case["outcome"] == "rate_limited" and "retry_after_s" not in case:
            return  # it rests for half a second only, which a busy machine may take
        assert (
            asked_next(fleet, client)
            == {None: [True, True], "pair": [False, True], "key": [False, False]}[rests]
        )


def asked_next(fleet: Fleet, client: FailoverClient) -> List[bool]:
    """Tell whether the provider is asked again for the same model, and for another one."""
    asked = []
    for model in (fleet.facts["model"], fleet.facts["other_model"]):
        fleet.upstream.clear_log()
        fleet.upstream.calls.script(says({"body": fleet.facts["reply"]}))
        client.chat("Hi", model=model)
        asked.append(bool(fleet.upstream.requests))
        fleet.upstream.heal()
    return asked


@pytest.mark.parametrize(("provider", "case"), CASES)
def test_a_refusal_without_another_endpoint_is_the_callers(fleet: Fleet, case: Dict[str, Any]) -> None:
    """Where there is nobody else, the error's class says what happened, and its response is the provider's."""
    fleet.upstream.calls.script(says(case))
    client = FailoverClient([fleet.preset], model=fleet.facts["model"], probe_when="never", max_retries=0)
    with client, pytest.raises(FOLLOWS[case["outcome"]][2]) as caught:
        client.chat("Hi")
    assert type(caught.value) is FOLLOWS[case["outcome"]][2]
    assert caught.value.response.status_code == case["status"]
    assert not any(key and key in str(caught.value) for key in [fleet.preset.key()])


@pytest.mark.parametrize(("provider", "case"), ANSWERS)
def test_an_answer_in_an_odd_shape_is_one(fleet: Fleet, case: Dict[str, Any]) -> None:
    """A filtered output, blank lines before the JSON or a missing finish reason fail over to nobody."""
    fleet.upstream.calls.script(says(case))
    with fleet.client() as client:
        assert client.chat("Hi").endpoint == fleet.preset.name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_probe_goes_where_the_provider_answers_it(fleet: Fleet) -> None:
    """The health check has the provider's path and form of the key, and its answer is taken for health."""
    expected = fleet.facts["probe"]
    fleet.upstream.probes.script(says(expected))
    registry = EndpointRegistry([fleet.preset], probe_timeout=5.0)
    (result,) = HealthMonitor(registry, probe_when="never").probe_all()
    assert (result.alive, result.key_refused, result.status) == (True, False, 200)
    (seen,) = fleet.upstream.probes.requests
    assert seen.method == "GET"
    check_request(seen, expected)
    bad = expected.get("refused") or expected["dead"]
    fleet.upstream.probes.script(says(bad))
    (result,) = HealthMonitor(registry, probe_when="never").probe_all()
    assert (result.alive, result.key_refused) == ("refused" in expected, "refused" in expected)


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if "unserved_model" in FACTS[name]])
def test_a_vendor_is_not_asked_for_models_of_others(fleet: Fleet) -> None:
    """A model that is not among the vendor's goes to the next endpoint at once."""
    with fleet.client() as client:
        reply = client.chat("Hi", model=fleet.facts["unserved_model"])
    assert [attempt.endpoint for attempt in reply.attempts] == ["second"]
    assert not fleet.upstream.requests


@pytest.mark.parametrize("provider", ["azure"])
def test_each_deployment_has_its_own_path(fleet: Fleet) -> None:
    """A name is quoted as one part of the path, and the path of one model is not kept for another."""
    with fleet.client() as client:
        for model in (fleet.facts["model"], fleet.facts["other_model"], fleet.facts["model"]):
            fleet.upstream.calls.script(says({"body": fleet.facts["reply"]}))
            client.chat("Hi", model=model)
    expected = [fleet.facts["call"]["path"], fleet.facts["other_path"], fleet.facts["call"]["path"]]
    assert [seen.path for seen in fleet.upstream.calls.requests] == expected


@pytest.mark.parametrize("provider", ["azure"])
def test_a_path_without_a_model_is_not_kept_for_those_that_have_one(fleet: Fleet) -> None:
    """A request that names no model goes straight under the base URL, and changes nothing for the next that does."""
    with FailoverSession([fleet.preset], probe_when="never") as session:
        for payload in ({}, {"model": fleet.facts["model"]}):
            fleet.upstream.calls.script(says({"body": fleet.facts["reply"]}))
            session.post("chat/completions", json={"messages": [], **payload})
    expected = ["/openai/chat/completions?api-version=2024-10-21", fleet.facts["call"]["path"]]
    assert [seen.path for seen in fleet.upstream.calls.requests] == expected


@pytest.mark.parametrize("provider", ["azure", "gemini"])
def test_a_session_reads_the_model_where_no_map_asks_for_it(fleet: Fleet) -> None:
    """Without a map of names, a path with the model in it and fields that are refused are heeded all the same."""
    payload = {"model": fleet.facts["sent_model"], "messages": [], "seed": 7}
    with FailoverSession([fleet.preset.replace(models=None)], probe_when="never") as session:
        fleet.upstream.calls.script(says({"body": fleet.facts["reply"]}))
        session.post("chat/completions", json=payload)
    (seen,) = fleet.upstream.calls.requests
    check_request(seen, fleet.facts["call"])
    assert ("seed" in seen.json()) is (fleet.preset.fields is None)


@pytest.mark.parametrize("provider", ["gemini"])
def test_what_is_left_out_is_said_once_and_sent_elsewhere(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """Fields that it refuses are logged once by name, without their values, and reach an endpoint that takes them."""
    caplog.set_level(logging.INFO, "syncfailover")
    extra = fleet.facts["extra_fields"]
    with fleet.client() as client:
        for _ in range(2):
            fleet.upstream.calls.script(Status(503))
            assert client.chat("Hi", **extra).endpoint == "second"
        client.chat("Hi", **{"two\nlines": 1})
    said = [record.getMessage() for record in caplog.records if "does not accept" in record.getMessage()]
    assert said == [
        "gemini: not sent, for it does not accept them: frequency_penalty, seed, store, user",
        r"gemini: not sent, for it does not accept them: 'two\nlines'",
    ]
    assert fleet.other.calls.requests[0].json()["seed"] == 7
    assert "seed" not in fleet.upstream.calls.requests[1].json()


@pytest.mark.parametrize("provider", ["anthropic"])
def test_a_key_that_is_asked_for_goes_in_the_paths_own_header(fleet: Fleet) -> None:
    """A rotated key has the same form as a fixed one: a bearer token for chats, x-api-key for the rest."""
    facts = fleet.facts
    preset = fleet.preset.replace(api_key=lambda: "sk-ant-made-up")
    fleet.upstream.calls.script(says({"body": facts["reply"]}))
    fleet.upstream.probes.script(says(facts["list"]))
    with FailoverClient([preset], model=facts["model"], probe_when="never") as client:
        client.chat("Hi")
        client.models.list()
    check_request(fleet.upstream.calls.requests[0], facts["call"])
    check_request(fleet.upstream.probes.requests[0], facts["list"])
