"""Tool calls, put together out of the deltas of a stream."""

import pytest

from syncfailover.completion.parts import MAX_NAME
from syncfailover.completion.tool_calls import MAX_CALLS, ToolCalls


def calls_of(*deltas):
    """Put tool calls together; return id, name and arguments of each."""
    tool_calls = ToolCalls()
    for each in deltas:
        tool_calls.add(each)
    calls = tool_calls.whole()
    assert all(call["type"] == "function" and "index" not in call for call in calls)
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


def piece(name=None, arguments=None, **fields):
    """Make one entry of a delta's `tool_calls`; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**fields, "function": function}


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        # id and name again in every delta
        ([[piece("f", "{", index=0, id="a")], [piece("f", "}", index=0, id="a")]], [("a", "f", "{}")]),
        # the same without index
        ([[piece("f", "{", id="a")], [piece("f", "}", id="a")]], [("a", "f", "{}")]),
        # id empty, or arriving later
        ([[piece("f", "{", index=0, id="")], [piece("", "}", index=0, id="a")]], [("a", "f", "{}")]),
        # another id in every delta (vLLM, Poolside)
        ([[piece("f", "{", index=0, id="a")], [piece(None, "}", index=0, id="b")]], [("a", "f", "{}")]),
        # the name in pieces, and growing
        ([[piece("get_", "", index=0, id="a")], [piece("time", "{}", index=0)]], [("a", "get_time", "{}")]),
        (
            [[piece("get_", "", index=0, id="a")], [piece("get_time", "{}", index=0)]],
            [("a", "get_time", "{}")],
        ),
        # all calls at index 0 (gateways to Gemini)
        (
            [
                [piece("f", "1", index=0, id="a")],
                [piece("f", "2", index=0, id="b")],
                [piece(None, "3", index=0)],
            ],
            [("a", "f", "1"), ("b", "f", "23")],
        ),
        # neither index nor id: pieces continue the last call
        ([[piece("f", "{", id="a")], [piece(None, "}")]], [("a", "f", "{}")]),
        ([[piece("f", "{", id="a")], [piece("", "}", id="", type="")]], [("a", "f", "{}")]),
        ([[piece("f", "{")], [piece("f", "}")]], [("", "f", "{}")]),
        # neither index nor id, yet several calls
        ([[piece("f", "1"), piece("f", "2")]], [("", "f", "1"), ("", "f", "2")]),
        ([[piece("f", "1")], [piece("g", "2")]], [("", "f", "1"), ("", "g", "2")]),
        (
            [[piece("g_", "1")], [piece("g_a", "2")], [piece("g_b", "3")]],
            [("", "g_a", "12"), ("", "g_b", "3")],
        ),
        # a new id opens a call, a known one goes on
        (
            [
                [piece("f", "1", id="a"), piece("g", "2", id="b")],
                [piece(None, "3", id="a")],
                [piece(None, "4")],
            ],
            [("a", "f", "13"), ("b", "g", "24")],
        ),
        # opened by index, continued by id
        (
            [
                [piece("f", "1", index=0, id="a"), piece("g", "2", index=1, id="b")],
                [piece(None, "3", id="a")],
            ],
            [("a", "f", "13"), ("b", "g", "2")],
        ),
        # later calls first; first call not at 0 (LiteLLM)
        (
            [[piece("g", "2", index=2, id="b")], [piece("f", "1", index=1, id="a")]],
            [("a", "f", "1"), ("b", "g", "2")],
        ),
        # nothing but a name, or not even that
        ([[piece("f", index=0)]], [("", "f", "")]),
        ([[{"index": 0}], [{"index": 0, "id": 5, "function": "f"}]], [("", "", "")]),
    ],
    ids=repr,
)
def test_which_call_a_piece_belongs_to(deltas, calls):
    """Index, id and name say it, as far as they are there."""
    assert calls_of(*deltas) == calls


@pytest.mark.parametrize("index", [-1, MAX_CALLS, 10**30, True, 0.0, "0", [0], {}])
def test_a_call_at_a_strange_index_is_left_out(index):
    """What cannot be told apart is not guessed."""
    assert calls_of([piece("g", "1", index=index, id="b")], [piece("f", "2", index=0, id="a")]) == [
        ("a", "f", "2")
    ]


@pytest.mark.parametrize("fields", [{}, {"index": 0}])
def test_calls_are_bounded(fields):
    """A provider gone wild does not fill our memory."""
    many = ([piece("f", "", id=str(n), **fields)] for n in range(MAX_CALLS + 9))
    assert len(calls_of(*many)) == MAX_CALLS


def test_a_name_in_endless_pieces_is_bounded():
    """A name grows no further than any name needs."""
    calls = calls_of(*([piece(letter, "", index=0)] for letter in "ab" * MAX_NAME))
    assert len(calls[0][1]) == MAX_NAME


@pytest.mark.parametrize("nothing", [[], [None], ["f"], [[]], [5]])
def test_no_tool_calls(nothing):
    """What is no object is no call."""
    tool_calls = ToolCalls()
    tool_calls.add(nothing)
    assert tool_calls.whole() is None


def test_custom_tools():
    """A custom tool's input is put together as a function's arguments are."""
    tool_calls = ToolCalls()
    nothing = {"id": None, "type": None, "function": None}
    tool_calls.add([{"index": 0, "id": "c", "type": "custom", "custom": {"name": "patch", "input": ""}}])
    tool_calls.add([{"index": 0, **nothing, "custom": {"input": "***"}}])
    tool_calls.add([{"index": 0, **nothing, "custom": {"input": " End"}}])
    custom = {"name": "patch", "input": "*** End"}
    assert tool_calls.whole() == [{"id": "c", "type": "custom", "custom": custom}]


def test_unknown_fields_stay():
    """Gemini wants its signature back, also when it comes in a piece of its own."""
    tool_calls = ToolCalls()
    tool_calls.add([piece("f", "{}", id="a")])
    tool_calls.add([{"extra_content": {"google": {"thought_signature": "s"}}}])
    (call,) = tool_calls.whole()
    assert call["extra_content"] == {"google": {"thought_signature": "s"}}
