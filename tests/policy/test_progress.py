"""How far a stream is: content, the end, errors; told event by event, without a socket."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncfailover.completion.sse import ServerSentEvent
from syncfailover.policy.paths import progress_of
from syncfailover.policy.progress import AnyProgress, ChoicesProgress, ResponsesProgress, progress_maker


def event(data, name=""):
    """Make an event: of JSON, or of text as it stands."""
    return ServerSentEvent(data if isinstance(data, str) else json.dumps(data), name)


def chunk(delta=None, reason=None, index=0, **fields):
    """Make a chunk of a chat with one choice."""
    return {"choices": [{"index": index, "delta": delta or {}, "finish_reason": reason}], **fields}


def told(*data, **options):
    """Tell a new chat's progress of some events."""
    progress = ChoicesProgress(**options)
    for item in data:
        progress.take(item if isinstance(item, ServerSentEvent) else event(item))
    return progress


USAGE = {"choices": [], "usage": {"total_tokens": 3}}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("chat/completions", ChoicesProgress),
        ("/chat/completions?x=completions", ChoicesProgress),
        ("completions/", ChoicesProgress),
        ("responses", ResponsesProgress),
        ("deployments/gpt-4.1/chat/completions?api-version=1", ChoicesProgress),
        ("messages", AnyProgress),
    ],
)
def test_a_path_tells_the_kind(path, kind):
    """What a stream's events mean follows from the end of its path."""
    assert progress_of(path) is kind


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "Hi"},
        {"content": [{"type": "text", "text": "Hi"}]},
        {"tool_calls": [{"index": 0}]},
        {"function_call": {"name": "f"}},
        {"reasoning_content": "Hm"},
        {"reasoning": "Hm"},
        {"refusal": "No"},
        {"audio": {"id": "a"}},
        {"content": "", "reasoning_details": [{}]},
    ],
    ids=str,
)
def test_what_was_generated_is_content(delta):
    """Text, reasoning, tool calls, refusals and audio are content, and begin a stream."""
    progress = told(chunk(delta))
    assert progress.begun
    assert progress.content
    assert not progress.whole


@pytest.mark.parametrize(
    "data",
    [
        chunk({"role": "assistant", "content": ""}),
        chunk({"role": "assistant", "content": None, "tool_calls": []}),
        {"choices": [{"index": 0}]},
        {"choices": [None, 7, "x"]},
        {"choices": []},
        {"choices": None},
        {"type": "ping"},
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        USAGE,
        "",
        "   ",
    ],
    ids=str,
)
def test_what_was_not_generated_is_no_content(data):
    """A role, an empty text, a prompt filter's result, usage or nothing at all does not begin a stream."""
    progress = told(data)
    assert not progress.begun
    assert not progress.content
    assert not progress.broken


def test_content_is_told_of_the_last_event_alone():
    """Whether the last event brought content is what the stall clock goes by."""
    progress = told(chunk({"content": "Hi"}), chunk({"content": ""}))
    assert progress.begun
    assert not progress.content


def test_only_the_streams_own_events_are_handed_on():
    """Chunks are handed on, pings and other objects without choices are not."""
    progress = ChoicesProgress()
    assert progress.take(event(chunk({"content": "Hi"}))) == chunk({"content": "Hi"})
    assert progress.take(event({"type": "ping"})) is None
    assert progress.take(event("[DONE]")) is None


def test_it_is_whole_when_every_choice_has_ended():
    """Of several choices each must say why it ended; then the stream is over, with no need of [DONE]."""
    progress = told(
        chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk(reason="stop"), choices=2
    )
    assert not progress.whole
    progress.take(event(chunk(reason="length", index=1)))
    assert progress.whole
    assert progress.ended


def test_a_choice_that_has_not_begun_is_waited_for():
    """With two choices asked for, one that has ended does not end the stream; it is whole only if its body ends."""
    progress = told(chunk({"content": "a"}, "stop"), choices=2)
    assert progress.whole
    assert not progress.ended
    progress.take(event(USAGE))
    assert not progress.over


@pytest.mark.parametrize(
    ("payload", "choices"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": None}, 1),
        ({"n": True}, 1),
        ({"prompt": "a"}, 1),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": ("a", "b")}, 2),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1], [2]]}, 2),
    ],
)
def test_so_many_choices_are_asked_for(payload, choices):
    """`n` of them, for each prompt of a text completion; a list of tokens is one prompt."""
    assert progress_maker(ChoicesProgress, payload)()._asked == choices


@pytest.mark.parametrize("usage", [USAGE, {"usage": USAGE["usage"]}, {**USAGE, "choices": None}], ids=str)
def test_a_usage_of_its_own_is_the_last_thing(usage):
    """A stream that has ended goes on until its usage has come, in an event without choices, and no longer."""
    progress = told(chunk({"content": "a"}, "stop"))
    assert progress.ended
    assert not progress.over
    assert progress.take(event(usage))["choices"] == []
    assert progress.over
    assert progress.usage == {"total_tokens": 3}


def test_a_reason_or_usage_in_every_chunk_ends_nothing():
    """Some say in each chunk why they end, and what it has cost so far: only the end of the stream is its end."""
    each = chunk({"content": "a"}, "stop", usage={"total_tokens": 1})
    progress = told(each, each, each)
    assert progress.whole
    assert not progress.ended
    assert not progress.over
    assert told(USAGE, chunk({"content": "a"})).over is False


@pytest.mark.parametrize("data", ["[DONE]", " [DONE] "])
def test_done_ends_what_has_begun(data):
    """[DONE] makes a stream whole that had content, though it never said why it ended."""
    progress = told(chunk({"content": "a"}), data)
    assert progress.whole
    assert progress.over
    assert not progress.broken


def test_done_alone_is_no_answer():
    """[DONE] without any content or reason is an error without a word."""
    progress = told(chunk({"role": "assistant"}), "[DONE]")
    assert progress.broken
    assert not progress.whole


def test_a_generation_that_was_cut_for_want_of_machines_is_an_error():
    """DeepSeek's reason for an end that is none breaks the stream."""
    progress = told(chunk({"content": "a"}), chunk(reason="insufficient_system_resource"))
    assert progress.broken
    assert not progress.whole


def test_a_message_in_a_chunk_is_its_delta():
    """A provider that sends a whole message in place of a delta loses nothing of it."""
    progress = ChoicesProgress()
    sent = {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
    handed_on = progress.take(event(sent))
    assert handed_on["choices"][0]["delta"] == {"content": "Hello"}
    assert progress.whole


ERRORS = [
    {"error": {"message": "no", "code": 429}},
    {"error": "no"},
    {"object": "error", "message": "no", "code": 400},
    [{"error": {"message": "no", "code": 429}}],
    {"type": "error", "error": {"type": "overloaded_error", "message": "no"}},
    {"type": "error", "message": "no"},
    {
        "choices": [
            {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": {"message": "no"}}
        ]
    },
    {
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        "error": {"message": "no"},
    },
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize(
    "before", [[], [chunk({"content": "a"})], [chunk({"content": "a"}, "stop")]], ids=len
)
def test_an_error_breaks_it_whatever_follows(error, before):
    """Every shape of an error is one, and no [DONE] after it makes the stream whole."""
    progress = told(*before, error)
    assert progress.broken
    assert progress.error["error"]
    assert not progress.over or before


@pytest.mark.parametrize(
    ("data", "said"),
    [({"message": "gone"}, {"message": "gone"}), ("gone", "gone"), ('"gone"', "gone")],
)
def test_an_event_named_error_is_one(data, said):
    """An event of the name "error" is an error, whatever its data looks like."""
    progress = told(event(data, "error"))
    assert progress.error == {"error": said}


@pytest.mark.parametrize("data", ["{", "Hello", "7", "[1]", "null", '{"choices": [{"del', "[" * 100_000])
def test_what_is_no_object_breaks_it(data):
    """An event that is no JSON object breaks the stream, and names no error of the provider's."""
    progress = told(data)
    assert progress.broken
    assert progress.error is None
    assert progress.detail == "an event that is no JSON object"


def test_the_responses_api_ends_by_its_own_events():
    """Typed events: a delta begins the stream, completed or incomplete ends it, failed breaks it."""
    progress = ResponsesProgress()
    progress.take(event({"type": "response.created", "response": {}}))
    assert not progress.begun
    progress.take(event({"type": "response.output_text.delta", "delta": "Hi"}))
    assert progress.begun
    assert not progress.whole
    progress.take(event({"type": "response.completed", "response": {"usage": {"total_tokens": 2}}}))
    assert progress.over
    assert progress.usage == {"total_tokens": 2}
    incomplete, failed = ResponsesProgress(), ResponsesProgress()
    incomplete.take(event({"type": "response.incomplete", "response": None}))
    assert incomplete.whole
    failed.take(event({"type": "response.failed", "response": {"error": {"code": "server_error"}}}))
    assert failed.error == {"error": {"code": "server_error"}}


def test_of_an_unknown_kind_any_end_is_one():
    """A stream whose meaning is not known is whole wherever it ends, unless it reports an error."""
    progress = AnyProgress()
    assert progress.take(event({"anything": 1})) == {"anything": 1}
    assert progress.begun
    assert progress.whole
    progress.take(event({"error": "no"}))
    assert progress.broken


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "choices delta content finish_reason index error usage type response object message".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
STREAMS = st.lists(
    st.tuples(JSON | st.sampled_from(["[DONE]", "{"]), st.sampled_from(["", "error", "x"])), max_size=6
)


@given(STREAMS)
def test_no_event_raises(events):
    """Whatever comes, progress is told of it without an exception, and what is broken is never over and whole."""
    for kind in (ChoicesProgress, ResponsesProgress, AnyProgress):
        progress = kind()
        for data, name in events:
            handed_on = progress.take(event(data, name))
            assert handed_on is None or type(handed_on) is dict
            assert progress.begun or not progress.content
            if progress.broken or progress.over:
                break
