"""Keywords of a call that are no field of its payload, and names that only the openai package has."""

import operator
from typing import Any, Dict, List

import pytest
from fleet import endpoints_of
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from syncfailover import ConfigurationError, FailoverClient, FailoverSession, openai_options
from syncfailover.api import ChatCompletions
from syncfailover.testing import FakeUpstream

#: Every call, with what it cannot do without.
CALLS: Dict[str, Any] = {
    "chat": {"prompt": "Hi"},
    "chat.completions.create": {"messages": [{"role": "user", "content": "Hi"}]},
    "completions.create": {"prompt": "Hi"},
    "responses.create": {"input": "Hi"},
    "embeddings.create": {"input": "Hi"},
}
#: Fields that OpenAI's API has not: vLLM's, llama.cpp's, OpenRouter's, Anthropic's, Gemini's, DeepSeek's.
OTHERS = (
    "models route transforms provider plugins usage include_reasoning min_p top_a top_k repetition_penalty verbosity"
    " guided_json guided_regex guided_choice guided_grammar structured_outputs best_of use_beam_search ignore_eos"
    " length_penalty min_tokens stop_token_ids skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens"
    " prompt_logprobs allowed_token_ids bad_words echo add_generation_prompt continue_final_message documents"
    " add_special_tokens chat_template chat_template_kwargs mm_processor_kwargs priority request_id kv_transfer_params"
    " return_tokens_as_token_ids cache_salt return_token_ids stream_interval logits_processors"
    " n_predict n_keep cache_prompt mirostat mirostat_tau mirostat_eta grammar json_schema samplers id_slot n_probs"
    " t_max_predict_ms timings_per_token typical_p dynatemp_range tfs_z keep_alive options format raw template think"
    " thinking system stop_sequences safety_settings generation_config cached_content thinking_budget enable_thinking"
    " safe_prompt random_seed prompt_mode search_domain_filter search_mode return_images web_search_options"
    " enable_search incremental_output data_sources session_id trace logit_bias_type debug"
).split()


def fields() -> List[str]:
    """Return every field that the openai package knows of these calls, and those of other providers."""
    found = set(OTHERS)
    for module, name in (
        (chat_create_params, "CompletionCreateParamsBase"),
        (response_create_params, "ResponseCreateParamsBase"),
        (embedding_create_params, "EmbeddingCreateParams"),
        (completion_create_params, "CompletionCreateParamsBase"),
    ):
        found.update(getattr(module, name).__annotations__)
    return sorted(found - {"model"})


@pytest.fixture
def fresh(monkeypatch: Any) -> None:
    """Forget which names were found good, but for the one that is nearly ours."""
    monkeypatch.setattr(openai_options, "_FIELDS", {"models"})


def refusal(client: Any, call: str, **keywords: Any) -> str:
    """Return the message with which a call refuses keywords; nothing of their values is in the error."""
    with pytest.raises(ConfigurationError) as caught:
        operator.attrgetter(call)(client)(**CALLS[call], **keywords)
    assert "sk-SECRET" not in f"{caught.value} {caught.value.__dict__}"
    assert caught.value.field in {*keywords, "extra_body['api_key']"}
    return str(caught.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("keyword", "instead"),
    [
        ("api_key", "give each Endpoint its own api_key="),
        ("apiKey", "give each Endpoint its own api_key="),
        ("openai_api_key", "give each Endpoint its own api_key="),
        ("base_url", "make an Endpoint for each base_url"),
        ("http_client", "give each Endpoint its own verify="),
        ("organization", "OpenAI-Organization"),
        ("project", "OpenAI-Project"),
        ("headers", "name them in extra_headers="),
        ("default_headers", "name them in extra_headers="),
        ("default_query", "name them in extra_query="),
        ("websocket_base_url", "make an Endpoint for each base_url"),
        ("api_version", "params={'api-version': '...'}"),
        ("stall", "timeout=Timeouts(stall=...)"),
        ("first_token", "timeout=Timeouts(first_token=...)"),
        ("total", "timeout=Timeouts(total=...)"),
        ("read", "timeout=Timeouts(read=...)"),
        ("connect", "timeout=Timeouts(connect=...)"),
        ("ambiguous", "max_retries=FailoverRetry(ambiguous=...)"),
    ],
)
def test_an_option_of_more_than_a_call_is_not_sent(
    call: str, keyword: str, instead: str, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """No call puts it into its payload, where a key would be betrayed; the error says where it belongs."""
    message = refusal(make_client(), call, **{keyword: "sk-SECRET"})
    assert message.startswith(f"{keyword}: a call does not take it: ")
    assert instead in message
    assert upstreams[0].requests == []


@pytest.mark.parametrize("call", CALLS)
def test_a_key_is_not_sent_in_an_extra_body(
    call: str, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """Any other field may be."""
    client = make_client(endpoints_of(upstreams[:1]))
    message = refusal(client, call, extra_body={"api_key": "sk-SECRET"})
    assert message.startswith(
        "extra_body['api_key']: a call does not take it: give each Endpoint its own api_key="
    )
    assert upstreams[0].requests == []
    operator.attrgetter(call)(client)(**CALLS[call], extra_body={"timout": 3, "headers": 1})
    sent = upstreams[0].calls.requests[0].json()
    assert (sent["timout"], sent["headers"]) == (3, 1)


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [
        ("on_brake", "on_break"),
        ("timout", "timeout"),
        ("time_out", "timeout"),
        ("streem", "stream"),
        ("Stream", "stream"),
        ("wirestream", "wire_stream"),
        ("affinty", "affinity"),
        ("modell", "model"),
        ("extra_header", "extra_headers"),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_a_misspelt_keyword_is_not_sent(
    call: str, keyword: str, meant: str, make_client: Any, upstreams: List[FakeUpstream]
) -> None:
    """The error says what was meant, and where a field by that name goes."""
    client = make_client()
    for _ in range(2):  # it is not taken for a field the second time
        assert refusal(client, call, **{keyword: "restart"}) == (
            f"{keyword}: is not known; did you mean {meant!r}?"
            " A field of the payload by that name goes into extra_body"
        )
    assert upstreams[0].requests == []


@pytest.mark.parametrize("keyword", ["stream", "on_break", "wire_stream", "affinity"])
def test_embeddings_take_no_keyword_of_streams(keyword: str, make_client: Any) -> None:
    """They have none, and no conversation either."""
    assert (
        refusal(make_client(), "embeddings.create", **{keyword: True})
        == f"{keyword}: this call does not take it"
    )


def test_our_keywords_are_those_of_the_calls() -> None:
    """The list is that of the signature."""
    assert tuple(ChatCompletions.create.__kwdefaults__ or ()) == openai_options.OURS


@pytest.mark.parametrize("field", fields())
def test_no_field_of_an_api_is_taken_for_a_keyword(field: str, fresh: None) -> None:
    """Whatever the openai package and other providers know as a field passes."""
    openai_options.check_fields({field: 1})


def test_names_are_looked_at_once_and_not_without_end(fresh: None, monkeypatch: Any) -> None:
    """What was found good is known the next time; made-up names fill no memory."""
    monkeypatch.setattr(openai_options, "_MOST_FIELDS", 10)
    for number in range(100):
        openai_options.check_fields({f"field_{number}": 1, "temperature": 1})
    assert len(openai_options._FIELDS) == 10
    assert "temperature" in openai_options._FIELDS


@pytest.mark.parametrize(
    "name",
    [
        "beta",
        "files",
        "images",
        "audio",
        "batches",
        "copy",
        "with_raw_response",
        "chat.with_raw_response",
        "chat.completions.stream",
        "chat.completions.parse",
        "chat.completions.acreate",
        "chat.completions.with_raw_response",
        "chat.completions.with_streaming_response",
        "completions.with_raw_response",
        "responses.retrieve",
        "responses.parse",
        "embeddings.with_raw_response",
        "models.retrieve",
    ],
)
def test_what_only_the_package_has_says_where_it_is(name: str, make_client: Any) -> None:
    """The error is an AttributeError, so `hasattr` says False."""
    client = make_client()
    with pytest.raises(
        AttributeError, match=rf"^client\.{name} is not offered here: .*failover_openai keeps all"
    ):
        operator.attrgetter(name)(client)
    with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'"):
        operator.attrgetter((name.rpartition(".")[0] + ".nonsense").lstrip("."))(client)


@pytest.mark.parametrize("make", [FailoverClient, FailoverSession])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": "sk-SECRET"}, "api_key: a client does not take it: give each Endpoint its own api_key="),
        ({"base_url": "http://h"}, "base_url: .*make an Endpoint"),
        ({"default_headers": {}}, r"default_headers: .*client\.with_options\(default_headers="),
        ({}, "endpoints: the list is empty; expected at least one Endpoint"),
        ({"endpoints": "sk-SECRET"}, "endpoints: a str is not allowed; expected a list of Endpoint"),
        (
            {"endpoints": {"api_key": "sk-SECRET"}},
            "endpoints: a dict is not allowed; expected a list of Endpoint",
        ),
    ],
    ids=repr,
)
def test_a_client_made_like_the_packages_says_where_things_go(make: Any, options: Any, message: str) -> None:
    """A key belongs to an endpoint, and a client to a list of those."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        make(**options)
    assert "sk-SECRET" not in f"{caught.value} {caught.value.__dict__}"
