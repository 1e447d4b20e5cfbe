"""Events of the responses API, put together into the response that would have come without streaming."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncfailover.completion.reply import ModelList, ResponseReply
from syncfailover.completion.response import ResponseEvent, ResponsesAssembly, event_of, restart_event

BEGUN = {
    "type": "response.created",
    "response": {"id": "r1", "object": "response", "model": "m", "output": []},
}
MESSAGE = {"type": "message", "id": "m1", "content": [{"type": "output_text", "text": "Hello"}]}
STORY = {"endpoint": "a", "latency_ms": 1.0, "cost_usd": None, "attempts": ()}


def delta(text, kind="response.output_text.delta"):
    """Make an event that brings text."""
    return {"type": kind, "output_index": 0, "delta": text}


def done(item, index=0):
    """Make the event that ends an item."""
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def last(kind="response.completed", **fields):
    """Make the event that ends a stream."""
    response = {
        "id": "r1",
        "object": "response",
        "status": kind.partition(".")[2],
        "output": [MESSAGE],
        **fields,
    }
    return {"type": kind, "response": response}


def assembled(*events):
    """Put events together."""
    assembly = ResponsesAssembly()
    for event in events:
        assembly.add(event)
    return assembly


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete"])
def test_the_last_event_brings_the_response(kind):
    """What it brings is the whole, as it is."""
    end = last(kind, usage={"input_tokens": 1})
    assembly = assembled(BEGUN, delta("Hel"), delta("lo"), end)
    assert assembly.text == "Hello"
    assert assembly.whole() is end["response"]
    assert assembly.usage == {"input_tokens": 1}


def test_only_text_is_text():
    """Arguments, reasoning and refusals come in deltas, too."""
    others = [
        delta("x", f"response.{kind}.delta")
        for kind in ("function_call_arguments", "reasoning_text", "refusal")
    ]
    assert assembled(BEGUN, *others, delta("Hi")).text == "Hi"


def test_a_response_without_output_has_the_items_that_came():
    """Some gateways send the items, and an empty response at the end."""
    whole = assembled(BEGUN, done({"id": "2"}, 1), done({"id": "1"}, 0), last(output=[])).whole()
    assert [item["id"] for item in whole["output"]] == ["1", "2"]


def test_a_stream_without_its_last_event_is_put_together():
    """`[DONE]` alone may end it: then what came before is the response."""
    whole = assembled(BEGUN, delta("Hel"), delta("lo")).whole()
    assert (whole["id"], whole["model"], whole["status"]) == ("r1", "m", "completed")
    assert ResponseReply(whole, **STORY).output_text == "Hello"
    assert ResponseReply(assembled(done(MESSAGE)).whole(), **STORY).output_text == "Hello"


def test_nothing_so_far():
    """Before the first event there is neither text nor usage, and a response without output."""
    assembly = ResponsesAssembly()
    assert (assembly.text, assembly.usage) == ("", None)
    assert assembly.whole() == {"id": "", "object": "response", "output": [], "status": "completed"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KINDS = st.sampled_from(["response.output_text.delta", "response.output_item.done", "response.completed"])


@settings(max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": KINDS | JSON},
            optional={"delta": JSON, "item": JSON, "response": JSON, "output_index": JSON},
        )
    )
)
def test_no_event_is_too_strange(events):
    """Whatever JSON a stranger sends, nothing raises, and there is a response."""
    assembly = assembled(*events)
    assert isinstance(assembly.whole(), dict)
    assert isinstance(ResponseReply(assembly.whole(), **STORY).output_text, str)
    assert isinstance(assembly.text, str)


def test_a_whole_response_is_one_event():
    """For a provider that answers whole although a stream was asked for."""
    assert event_of({"status": "incomplete"}) == {
        "type": "response.incomplete",
        "response": {"status": "incomplete"},
    }
    assert event_of({})["type"] == "response.completed"


def test_an_event_says_what_it_adds_and_whether_all_begins_anew():
    """`.added` is text only for the event that brings text."""
    assert ResponseEvent(delta("Hi")).added == "Hi"
    assert ResponseEvent({"type": "response.output_text.done", "text": "Hi"}).added == ""
    event = ResponseEvent(restart_event({}))
    assert (event.restarted, event.added, event.type) == (True, "", "syncfailover.restarted")


def test_a_list_of_models_is_iterated_over_by_model():
    """As with the SDK's page; it is still a mapping of its fields."""
    data = {"object": "list", "data": [{"id": "a"}, {"id": "b"}]}
    models = ModelList(data, **STORY)
    assert [model.id for model in models] == [model.id for model in models.data] == ["a", "b"]
    assert dict(models) == dict(models.items()) == {**models} == data
    assert list(models.values()) == list(data.values())
    assert "data" in models
    assert models == data
