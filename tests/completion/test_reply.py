"""Replies in the OpenAI shape, by attribute and by item, with the story of the call."""

import copy
import json
import pickle

import pytest

from syncfailover.completion.reply import ApiObject, ApiReply, ChatReply
from syncfailover.events import AttemptRecord

OK = AttemptRecord("a", "ok", "ok", 200, 0.0, 12.0, 0.000012, True)
DATA = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4.1-2025",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello <b>you</b>"},
        },
        {"index": 1, "finish_reason": "length", "message": {"role": "assistant", "content": "Bye"}},
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


def reply(data=None, attempts=(OK,), cost_usd=0.000012, kind=ChatReply):
    """Make a reply."""
    return kind(
        copy.deepcopy(DATA) if data is None else data,
        endpoint="a",
        latency_ms=12.4,
        cost_usd=cost_usd,
        attempts=attempts,
    )


def with_message(**message):
    """Make a reply with one choice."""
    return reply({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})


def round_trip(thing, protocol=None):
    """Pickle and unpickle."""
    return pickle.loads(pickle.dumps(thing, protocol))  # noqa: S301 - our own


def test_attribute_and_item_access_are_the_same():
    """Code written for the SDK and code written for JSON both read it."""
    made = reply()
    assert made.choices[0].message.content == "Hello <b>you</b>"
    assert made["choices"][0]["message"]["content"] == "Hello <b>you</b>"
    assert made.choices[1]["message"].content == "Bye"
    assert made.usage.prompt_tokens_details.cached_tokens == 4
    assert made.model == made["model"] == "gpt-4.1-2025"
    assert made.id == "chatcmpl-1"


def test_the_story_of_the_call():
    """Who answered, how long it took, what it cost, and what was tried."""
    made = reply()
    assert (made.endpoint, made.latency_ms, made.cost_usd, made.attempts) == ("a", 12.4, 0.000012, (OK,))


def test_shortcuts_read_the_first_choice():
    """Text, message, finish reason and tool calls without digging."""
    made = reply()
    assert made.text == str(made) == "Hello <b>you</b>"
    assert made.message.role == "assistant"
    assert made.finish_reason == "stop"
    assert made.tool_calls is None


def test_tool_calls():
    """A reply that calls a tool has no text, and its calls are readable by attribute."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    made = with_message(role="assistant", content=None, tool_calls=[call])
    assert made.text == ""
    assert made.tool_calls[0].function.name == "f"
    assert made.message.tool_calls == [call]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        ("", ""),
        (None, ""),
        ([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}], "Hello"),
        ([{"type": "image_url", "image_url": {}}, "stray", {"type": "text", "text": "lo"}], "lo"),
        ([], ""),
        (5, ""),
    ],
)
def test_text_of_every_kind_of_content(content, text):
    """Strings, parts, and nothing at all."""
    assert with_message(content=content).text == text


@pytest.mark.parametrize(
    "data", [{"choices": [{}]}, {"choices": [{"message": None}]}, {"choices": []}, {}], ids=json.dumps
)
def test_a_sparse_reply_does_not_raise(data):
    """Shortcuts give emptiness, not errors."""
    made = reply(data)
    assert (made.text, made.finish_reason, made.tool_calls, dict(made.message)) == ("", None, None, {})


@pytest.mark.parametrize(
    "name",
    [
        "content",
        "refusal",
        "tool_calls",
        "function_call",
        "audio",
        "annotations",
        "role",
        "reasoning_content",
    ],
)
def test_optional_fields_that_are_absent_are_none(name):
    """As in the official SDK, for whose callers it is written."""
    message = with_message().choices[0].message
    assert getattr(message, name) is None
    with pytest.raises(KeyError):
        message[name]


@pytest.mark.parametrize("name", ["usage", "system_fingerprint", "service_tier"])
def test_optional_fields_of_the_reply_that_are_absent_are_none(name):
    """Also at the top."""
    assert getattr(with_message(), name) is None


def test_a_slip_of_the_pen_is_an_error_that_helps():
    """A field that is neither there nor optional is an AttributeError which lists what there is."""
    with pytest.raises(AttributeError, match=r"no field 'contents'; it has content, role"):
        _ = reply().choices[0].message.contents
    assert not hasattr(reply(), "nonsense")


def test_it_is_a_mapping():
    """`in`, `len`, `get`, iteration, `**` and comparison with plain JSON work."""
    made = reply()
    assert "choices" in made
    assert len(made) == len(DATA)
    assert list(made) == list(DATA)
    assert made.get("nothing", 5) == 5
    assert {**made}["id"] == "chatcmpl-1"
    assert made == DATA
    assert made == reply()
    assert made.usage == DATA["usage"]
    assert made != {**DATA, "id": "other"}


def test_the_plain_json_is_there():
    """`raw`, `to_dict` and `model_dump` give what the provider sent, fit for `json.dumps`."""
    made = reply()
    assert made.raw == made.to_dict() == made.model_dump() == DATA
    assert json.loads(json.dumps(made.model_dump())) == DATA
    assert json.loads(json.dumps(made.message.model_dump())) == DATA["choices"][0]["message"]


@pytest.mark.parametrize("kind", [ChatReply, ApiReply])
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_it_pickles(kind, protocol):
    """Celery results keep the data and the story."""
    again = round_trip(reply(kind=kind), protocol)
    assert type(again) is kind
    assert again == DATA
    assert (again.endpoint, again.latency_ms, again.cost_usd, again.attempts) == ("a", 12.4, 0.000012, (OK,))
    assert round_trip(again.choices[0]) == DATA["choices"][0]


def test_it_can_be_copied():
    """A deep copy is independent."""
    made = reply()
    copied = copy.deepcopy(made)
    copied.raw["id"] = "other"
    assert (made.id, copied.id, copied.endpoint) == ("chatcmpl-1", "other", "a")


def test_its_repr_is_what_it_holds():
    """An object shows its JSON."""
    assert repr(ApiObject({"a": 1})) == "ApiObject({'a': 1})"


def test_a_notebook_shows_text_and_story_escaped():
    """The model's text and all names are escaped: no reply brings markup into a page."""
    made = reply({"model": "<i>m</i>", "choices": DATA["choices"]})
    html = made._repr_html_()
    assert "Hello &lt;b&gt;you&lt;/b&gt;" in html
    assert "a · &lt;i&gt;m&lt;/i&gt; · 12 ms · $0.000012" in html
    assert "<b>" not in html
    assert "<i>" not in html
    assert "attempts" not in html


def test_a_notebook_shows_several_attempts_and_no_unknown_cost():
    """A cost that is not known is left out, never shown as 0."""
    html = reply(attempts=(OK, OK, OK), cost_usd=None)._repr_html_()
    assert "3 attempts" in html
    assert "$" not in html
