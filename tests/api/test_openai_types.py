"""Every reply and chunk is one of the openai package's own types, and reads and round-trips as those do."""

import json
from typing import Any, Dict, List

import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.model import Model
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from syncfailover.completion.reply import ApiObject
from syncfailover.testing import FakeUpstream, Ok, StreamCut

TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
MESSAGES: Dict[str, Any] = {
    "text": None,
    "tool call": {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
}


def check(ours: ApiObject, kind: Any) -> Any:
    """Have the package's own type validate an object of ours and give back the same data; return it."""
    theirs = kind.model_validate(ours.to_dict())
    assert theirs.to_dict() == ours.to_dict() == ours.model_dump()
    assert (
        kind.model_validate_json(ours.to_json()) == kind.model_validate_json(ours.model_dump_json()) == theirs
    )
    return theirs


@pytest.fixture(params=MESSAGES)
def client(request: Any, make_client: Any, upstreams: List[FakeUpstream]) -> Any:
    """A client whose endpoints say something, or call a tool."""
    for upstream in upstreams:
        upstream.calls.always(Ok(message=MESSAGES[request.param]))
    return make_client()


def test_a_chat(client: Any) -> None:
    """Whole, and collected from a stream."""
    for options in ({}, {"wire_stream": True}, {"n": 2}, {"n": 2, "wire_stream": True}):
        reply = client.chat("Hi", **options)
        theirs = check(reply, ChatCompletion)
        assert theirs.choices[0].message.content == reply.choices[0].message.content
        assert theirs.usage.total_tokens == reply.usage.total_tokens


def test_the_chunks_of_a_chat(client: Any) -> None:
    """Each of them."""
    options = {"include_usage": True}
    chunks = [
        check(chunk, ChatCompletionChunk) for chunk in client.chat("Hi", stream=True, stream_options=options)
    ]
    assert chunks[-1].usage is not None


def test_the_chunk_that_says_that_all_begins_anew(make_client: Any, upstreams: List[FakeUpstream]) -> None:
    """It has the shape of the others, so code that knows nothing of it reads on."""
    upstreams[0].calls.always(StreamCut(after=2, tokens=5))
    chunks = list(make_client().chat("Hi", stream=True, on_break="restart"))
    assert [chunk.restarted for chunk in chunks].count(True) == 1
    for chunk in chunks:
        check(chunk, ChatCompletionChunk)


def test_a_text_and_its_chunks(make_client: Any) -> None:
    """Whole and collected; a chunk's null `finish_reason` is one that the package itself only constructs."""
    client = make_client()
    check(client.completions.create(prompt="Hi"), Completion)
    stream = client.completions.create(prompt="Hi", stream=True)
    for chunk in stream:
        assert Completion.construct(**chunk.to_dict()).choices[0].text == chunk.text
    check(stream.reply, Completion)


def test_a_response_and_its_events(client: Any) -> None:
    """Whole, collected, and each event."""
    theirs = check(client.responses.create(input="Hi"), Response)
    assert theirs.output_text == client.responses.create(input="Hi").output_text.replace(
        "upstream-2", "upstream-1"
    )
    stream = client.responses.create(input="Hi", stream=True)
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for event in stream:
        assert adapter.validate_python(event.to_dict()).type == event.type
    assert check(stream.reply, Response).output_text == stream.reply.output_text == stream.text


def test_embeddings_and_models(make_client: Any) -> None:
    """Vectors, and the list of models, which is iterated over as the package's page is."""
    client = make_client()
    check(client.embeddings.create(input=["a", "b"], model="e"), CreateEmbeddingResponse)
    models = client.models.list()
    assert [check(model, Model).id for model in models] == [model["id"] for model in models.raw["data"]]


def test_dumps_take_the_options_of_the_package(make_client: Any) -> None:
    """`exclude_none` counts; those without effect here are accepted, others are not silently ignored."""
    reply = make_client().chat("Hi")
    full, slim = reply.model_dump(mode="json", exclude_unset=True), reply.model_dump(exclude_none=True)
    assert full["choices"][0]["logprobs"] is None
    assert "logprobs" not in slim["choices"][0]
    assert slim == ChatCompletion.model_validate(reply.to_dict()).model_dump(exclude_none=True)
    assert json.loads(reply.to_json(exclude_none=True)) == slim
    assert "\n" in reply.to_json()
    assert "\n" not in reply.model_dump_json()
    with pytest.raises(TypeError, match="include: is not known"):
        reply.model_dump(include={"id"})
