"""aimock, an upstream that nobody here wrote: what it says arrives unchanged, and its faults are survived."""

import json
from typing import Any, Callable, Dict, List

import pytest
from openai_shapes import check, text_of

from syncfailover import Endpoint, FailoverClient, FailoverError

pytestmark = pytest.mark.judge

HELLO = "Hello, this is the whole of what I have to say, in several pieces."
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]


@pytest.fixture
def client(aimock_url: str, make_client: Any) -> FailoverClient:
    """A client of aimock alone."""
    return make_client([Endpoint("aimock", aimock_url, "sk-aimock")])


def whole(client: FailoverClient, messages: Any, **params: Any) -> Any:
    """Ask for a whole answer."""
    return client.chat(messages, **params)


def collected(client: FailoverClient, messages: Any, **params: Any) -> Any:
    """Ask for a stream and wait for all of it."""
    return client.chat(messages, stream=True, **params).collect()


def read(client: FailoverClient, messages: Any, **params: Any) -> Any:
    """Read a stream piece by piece."""
    stream = client.chat(messages, stream=True, on_break="restart", **params)
    assert text_of(stream) == stream.reply.text
    return stream.reply


WAYS = [whole, collected, read]


@pytest.mark.parametrize("ask", WAYS)
def test_a_chat(ask: Callable[..., Any], client: FailoverClient) -> None:
    """Text and usage are what it said."""
    reply = ask(client, "hello")
    check("ChatCompletion", reply)
    assert (reply.text, reply.finish_reason, reply.usage.total_tokens) == (HELLO, "stop", 18)


@pytest.mark.parametrize("ask", WAYS)
def test_reasoning(ask: Callable[..., Any], client: FailoverClient) -> None:
    """A field that OpenAI does not know stays."""
    reply = ask(client, "reason")
    check("ChatCompletion", reply)
    assert (reply.text, reply.message.reasoning_content) == ("So it is.", "Let me think.")


@pytest.mark.parametrize("ask", WAYS)
def test_tools(ask: Callable[..., Any], client: FailoverClient) -> None:
    """Calls arrive, their results go back with the message that made them, and the answer comes."""
    messages: List[Any] = [{"role": "user", "content": "What is the weather there and there?"}]
    reply = ask(client, messages, tools=TOOLS)
    check("ChatCompletion", reply)
    assert reply.finish_reason == "tool_calls"
    assert [json.loads(call.function.arguments)["city"] for call in reply.tool_calls] == [
        "Paris",
        "Ouagadougou",
    ]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in reply.tool_calls]
    answer = ask(client, [*messages, reply.message, *results], tools=TOOLS)
    check("ChatCompletion", answer)
    assert answer.text == "It is sunny in both."


def test_embeddings(client: FailoverClient) -> None:
    """One text, or several."""
    for texts in ("embed me", ["embed me", "embed me, too"]):
        reply = client.embeddings.create(input=texts, model="text-embedding-3-small")
        check("CreateEmbeddingResponse", reply)
        assert reply.data[-1].embedding == [0.1, -0.25, 0.5]


def test_models(client: FailoverClient) -> None:
    """The list of its models."""
    models = client.models.list().data
    assert "gpt-4o" in [model.id for model in models]
    for model in models:
        check("Model", model)


def test_responses(client: FailoverClient) -> None:
    """A response, and the events of one; aimock leaves out fields that the openai package's types ask for."""
    response = client.responses.create(input="hello")
    assert response.output[0].content[0].text == HELLO
    stream = client.responses.create(input="hello", stream=True)
    deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert "".join(deltas) == HELLO
    assert stream.reply.output[0].content[0].text == HELLO


# Faults: what the attempt came to, as the ledger tells.

FAULTS: Dict[str, str] = {
    "be busy": "rate_limited",
    "be limited": "rate_limited",
    "be overloaded": "overloaded",
    "be dropped": "server_error",
    "be garbled": "invalid_reply",
    "be reset": "reset",
    "be refused": "key_refused",
}


@pytest.fixture
def pair(aimock_url: str, pair: Any, make_client: Any) -> FailoverClient:
    """A client of aimock, with an llmock as its exit."""
    return make_client([Endpoint("aimock", aimock_url, "sk-aimock"), pair.endpoints()[1]])


@pytest.mark.parametrize("ask", WAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_survived(fault: str, ask: Callable[..., Any], pair: FailoverClient) -> None:
    """The other upstream answers, and the ledger has the fault's name."""
    reply = ask(pair, fault)
    assert reply.text == "I am the fallback, and this is my whole answer."
    check("ChatCompletion", reply)
    *failed, last = reply.attempts
    assert {attempt.outcome for attempt in failed} == {FAULTS[fault]}
    assert (last.endpoint, last.outcome) == ("fallback", "ok")


@pytest.mark.parametrize("ask", [collected, read])
def test_a_stream_cut_short_begins_anew(ask: Callable[..., Any], pair: FailoverClient) -> None:
    """Nothing of the half answer is in the whole one."""
    reply = ask(pair, "be cut")
    assert reply.text == "I am the fallback, and this is my whole answer."
    assert [attempt.outcome for attempt in reply.attempts] == ["interrupted", "ok"]


@pytest.mark.parametrize("ask", WAYS)
def test_what_is_the_callers_fault_is_told(ask: Callable[..., Any], pair: FailoverClient) -> None:
    """A bad request goes nowhere else."""
    with pytest.raises(FailoverError, match=r"aimock: HTTP 400: Bad parameter\."):
        ask(pair, "be wrong")
