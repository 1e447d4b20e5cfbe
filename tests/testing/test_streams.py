"""A healthy upstream streams as OpenAI does, in each of its formats."""

import importlib.util
import json

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from syncfailover.testing import FakeUpstream, Html, Ok, Status, Trickle, Truncate

STREAM = {"model": "my-model", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
WITH_USAGE = {**STREAM, "stream_options": {"include_usage": True}}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Paris","unit":"celsius"}'},
}
CUSTOM = {"id": "call_2", "type": "custom", "custom": {"name": "run", "input": "print('hello')"}}
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses"]
#: The oldest openai packages know no Responses API: nothing is checked by its types there.
HAS_RESPONSES = ["/v1/responses"] if importlib.util.find_spec("openai.types.responses") else []


def texts(chunks, index=0):
    """Return what each chat chunk adds to the text of a choice."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]


def joined_calls(chunks):
    """Put the tool calls of chat chunks together again."""
    calls = {}
    for chunk in chunks:
        for delta in chunk["choices"][0]["delta"].get("tool_calls", []):
            call = calls.setdefault(delta["index"], {"id": "", "type": "", "name": "", "said": ""})
            tool = delta.get("function") or delta["custom"]
            for field in ("id", "type"):
                call[field] += delta.get(field, "")
            call["name"] += tool.get("name", "")
            call["said"] += tool.get("arguments", tool.get("input", ""))
    return [tuple(call.values()) for _index, call in sorted(calls.items())]


# Chat


def test_a_chat_stream_has_openais_shape(ask):
    """Role, a chunk for each token, the reason for the end, and [DONE], in chunks of one id and model."""
    reply = ask(payload=STREAM)
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert reply.events()[-1] == (None, "[DONE]")
    chunks = reply.chunks()
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        assert "usage" not in chunk
    assert {(chunk["id"], chunk["model"]) for chunk in chunks} == {(chunks[0]["id"], "my-model")}
    (first, *content, last) = [chunk["choices"][0] for chunk in chunks]
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert [choice["delta"] for choice in content] == [
        {"content": token} for token in ("Hello", " from", " upstream.")
    ]
    assert (last["delta"], last["finish_reason"]) == ({}, "stop")
    assert {choice["finish_reason"] for choice in (first, *content)} == {None}


def test_usage_comes_last_and_only_when_asked_for(ask):
    """With include_usage a chunk without choices counts what the plain reply would, and the others say null."""
    *others, last = ask(payload=WITH_USAGE).chunks()
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > 0
    assert [chunk["usage"] for chunk in others] == [None] * 5
    for chunk in (*others, last):
        ChatCompletionChunk.model_validate(chunk, strict=True)


@pytest.mark.parametrize(
    "text", ["", " ", "one", "  two  words ", "lines\nand\ttabs", "naïve 日本 🙂", "[DONE]"]
)
def test_joined_tokens_are_the_text(fake_upstream, ask, text):
    """Whatever the text, its tokens put together are the text."""
    fake_upstream.script(Ok(text))
    assert "".join(texts(ask(payload=STREAM).chunks())) == text


def test_an_ok_varies_a_stream_as_it_does_a_reply(fake_upstream, ask):
    """Text, usage, finish_reason and headers are the script's to choose; no reason, no chunk with one."""
    fake_upstream.script(
        Ok("Bye", usage={"total_tokens": 7}, finish_reason="length", headers={"X-Request-Id": "r1"}),
        Ok(finish_reason=None),
    )
    first, second = ask(payload=WITH_USAGE), ask(payload=STREAM)
    assert first.headers["X-Request-Id"] == "r1"
    assert texts(first.chunks()) == ["Bye"]
    assert first.chunks()[-2]["choices"][0]["finish_reason"] == "length"
    assert first.chunks()[-1]["usage"] == {"total_tokens": 7}
    assert len(second.chunks()) == 4
    assert {chunk["choices"][0]["finish_reason"] for chunk in second.chunks()} == {None}


def test_choices_take_turns(ask):
    """With n choices each has its role, its tokens and its end, interleaved; a plain reply has n, too."""
    chunks = ask(payload={**STREAM, "n": 3}).chunks()
    indices = [chunk["choices"][0]["index"] for chunk in chunks]
    assert indices == [0, 1, 2] * 5
    assert ["".join(texts(chunks, index)) for index in range(3)] == ["Hello from upstream."] * 3
    assert [choice["index"] for choice in ask(payload={"n": 2}).json()["choices"]] == [0, 1]


def test_tool_calls_come_in_pieces(fake_upstream, ask):
    """Each call is named once and then argued for in pieces, which put together are the call."""
    message = {"role": "assistant", "content": None, "tool_calls": [CALL, CUSTOM, {**CALL, "id": "call_3"}]}
    fake_upstream.script(Ok(message=message, finish_reason="tool_calls"))
    chunks = ask(payload=STREAM).chunks()
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert joined_calls(chunks) == [
        ("call_1", "function", "weather", CALL["function"]["arguments"]),
        ("call_2", "custom", "run", CUSTOM["custom"]["input"]),
        ("call_3", "function", "weather", CALL["function"]["arguments"]),
    ]
    assert len(chunks) > 12
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_function_calls_chunks_have_openais_shape(fake_upstream, ask):
    """The pieces of a function call are what the openai package expects."""
    fake_upstream.script(Ok(message={"role": "assistant", "content": None, "tool_calls": [CALL]}))
    for chunk in ask(payload=STREAM).chunks():
        ChatCompletionChunk.model_validate(chunk, strict=True)


def test_other_fields_of_a_message_are_streamed_too(fake_upstream, ask):
    """Reasoning comes in tokens before the content, as DeepSeek sends it; what is no text comes whole."""
    message = {
        "role": "assistant",
        "reasoning_content": "Let me think",
        "content": "Yes",
        "refusal": None,
        "annotations": [],
    }
    fake_upstream.script(Ok(message=message))
    deltas = [chunk["choices"][0]["delta"] for chunk in ask(payload=STREAM).chunks()]
    assert deltas[1:-1] == [
        {"reasoning_content": "Let"},
        {"reasoning_content": " me"},
        {"reasoning_content": " think"},
        {"content": "Yes"},
        {"annotations": []},
    ]


# Legacy completions


def test_a_legacy_completion_has_openais_shape(fake_upstream, ask):
    """Plain, it has the text in a choice; streamed, each chunk has a piece of it."""
    counts = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    fake_upstream.always(Ok(usage=counts))
    asked = {"model": "my-model", "prompt": "Hello"}
    completion = Completion.model_validate(ask("/v1/completions", payload=asked).json(), strict=True)
    assert (completion.object, completion.choices[0].text) == ("text_completion", "Hello from upstream.")
    *pieces, last, usage = ask(
        "/v1/completions", payload={**asked, "stream": True, "stream_options": {"include_usage": True}}
    ).chunks()
    assert [piece["choices"][0]["text"] for piece in pieces] == ["Hello", " from", " upstream."]
    assert {piece["choices"][0]["finish_reason"] for piece in pieces} == {None}
    Completion.model_validate(last, strict=True)
    assert (last["choices"][0]["finish_reason"], last["usage"]) == ("stop", None)
    assert Completion.model_validate(usage, strict=True).choices == []
    assert usage["usage"] == counts


# Responses


TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    *["response.output_text.delta"] * 3,
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
CALL_EVENTS = [
    "response.output_item.added",
    *["response.function_call_arguments.delta"] * 5,
    "response.function_call_arguments.done",
    "response.output_item.done",
]
BOTH = {"role": "assistant", "content": "Hello from upstream.", "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("ok", "names"),
    [
        (Ok(), TEXT_EVENTS),
        (Ok(message=BOTH), [*TEXT_EVENTS[:-1], *CALL_EVENTS, "response.completed"]),
        (Ok(message={**BOTH, "content": None}), [*TEXT_EVENTS[:2], *CALL_EVENTS, "response.completed"]),
        (Ok(finish_reason="length"), [*TEXT_EVENTS[:-1], "response.incomplete"]),
        (Ok(finish_reason=None), TEXT_EVENTS[:-1]),
        (Ok(""), [*TEXT_EVENTS[:4], *TEXT_EVENTS[7:]]),
    ],
    ids=["text", "text-and-call", "call", "length", "no-end", "empty"],
)
def test_a_response_is_streamed_as_typed_events(fake_upstream, ask, ok, names):
    """Each event names its type and counts up; pieces put together are the whole; no [DONE] follows."""
    fake_upstream.script(ok)
    reply = ask("/v1/responses", payload={"model": "my-model", "input": "Hello", "stream": True})
    events = [json.loads(data) for _name, data in reply.events()]
    assert [event["type"] for event in events] == [name for name, _data in reply.events()] == names
    assert [event["sequence_number"] for event in events] == list(range(len(names)))
    for kind, whole in (("output_text", "text"), ("function_call_arguments", "arguments")):
        pieces = [event["delta"] for event in events if event["type"] == f"response.{kind}.delta"]
        done = [event[whole] for event in events if event["type"] == f"response.{kind}.done"]
        assert ["".join(pieces)] * len(done) == done


@pytest.mark.parametrize("path", HAS_RESPONSES)
@pytest.mark.parametrize(
    "ok",
    [
        Ok(),
        Ok(message=BOTH),
        Ok(finish_reason="content_filter"),
        Ok(usage={"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}),
    ],
    ids=["text", "call", "filter", "usage"],
)
def test_a_response_has_openais_shape(fake_upstream, ask, path, ok):
    """The plain Response and every event are what the openai package expects."""
    from openai.types import responses  # noqa: PLC0415 - it exists, or the test would not
    from pydantic import TypeAdapter  # noqa: PLC0415 - the same

    fake_upstream.always(ok)
    asked = {"model": "my-model", "input": "Hello"}
    plain = responses.Response.model_validate(ask(path, payload=asked).json())
    assert plain.output_text == "Hello from upstream."
    event = TypeAdapter(responses.ResponseStreamEvent)
    events = [event.validate_python(chunk) for chunk in ask(path, payload={**asked, "stream": True}).chunks()]
    assert events[-1].response.output_text == plain.output_text
    assert events[-1].response.status == plain.status


def test_a_response_renames_the_usual_counts_only(fake_upstream, ask):
    """The counts of a chat completion get the names of a Response's; counts of somebody's own stay."""
    details = {"prompt_tokens_details": {"cached_tokens": 4}}
    fake_upstream.script(
        Ok(usage={"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, **details}),
        Ok(usage={"tokens": 3}),
    )
    usual, own = (ask("/v1/responses", payload={}).json()["usage"] for _ in range(2))
    assert (usual["input_tokens"], usual["output_tokens"], usual["total_tokens"]) == (9, 1, 10)
    assert usual["input_tokens_details"]["cached_tokens"] == 4
    assert own == {"tokens": 3}


# In general


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, None, 0, "yes"])
def test_only_true_asks_for_a_stream(ask, path, stream):
    """Anything but true gets a plain reply."""
    assert ask(path, payload={"stream": stream}).headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", PATHS)
def test_a_refusal_is_no_stream(ask, path):
    """A wrong key gets its JSON error, whatever was asked for."""
    with FakeUpstream(api_key="made-up") as upstream:
        reply = ask(path, to=upstream, payload=STREAM)
    assert (reply.status, reply.json()["error"]["code"]) == (401, "invalid_api_key")


def test_embeddings_are_never_streamed(ask):
    """What has no stream is answered plainly."""
    assert ask("/v1/embeddings", payload={"input": "x", "stream": True}).json()["object"] == "list"


def test_streams_share_a_connection(fake_upstream, session):
    """A stream read to its end leaves the connection to the next request."""
    url = fake_upstream.url + "/chat/completions"
    for _ in range(3):
        assert session.post(url, json=STREAM).content.endswith(b"data: [DONE]\n\n")
    assert fake_upstream.connections == 1
    assert fake_upstream.requests[0].status == 200


def test_a_client_that_wants_to_close_is_told_so_in_a_stream(ask):
    """A stream to ``Connection: close`` says so, too."""
    assert ask(payload=STREAM, Connection="close").headers["Connection"] == "close"
    assert "Connection" not in ask(payload=STREAM).headers


@pytest.mark.parametrize("fault", [Status(503), Html()])
def test_other_faults_answer_a_stream_as_they_do_anything(fake_upstream, ask, fault):
    """A fault that has nothing to do with the reply has nothing to do with streams."""
    fake_upstream.script(fault)
    assert ask(payload=STREAM).status == fault.answer(None).status


def test_other_faults_treat_a_stream_as_a_body(fake_upstream, ask):
    """Cut or trickled, a stream is a body like any other, with a length instead of chunks."""
    fake_upstream.script(Trickle(interval_s=0, bytes_per_write=7), Truncate(how="close"))
    whole, part = ask(payload=STREAM), ask(payload=STREAM)
    assert int(whole.headers["Content-Length"]) == len(whole.body)
    assert whole.events()[-1] == (None, "[DONE]")
    assert 0 < len(part.body) < len(whole.body)
