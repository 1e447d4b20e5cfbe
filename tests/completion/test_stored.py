"""Replies as texts: what is read back is what was written, and what is kept is of a known version."""

import json

import pytest

from syncfailover import ChatReply
from syncfailover.completion.stored import restored, stored
from syncfailover.events import AttemptRecord
from syncfailover.state.checkpoint import VERSION

ATTEMPT = AttemptRecord("b", "ok", "ok", 200, 0.0, 12.125, None, maybe_billed=True)
FAILED = AttemptRecord("a", "rejected", "HTTP 503: überladen", 503, 0.25, 3.5, 0.001, maybe_billed=False)
REPLY = ChatReply(
    {"id": "1", "choices": [{"message": {"content": "Grüße \ud83d"}}], "usage": None},
    endpoint="b",
    latency_ms=0.1 + 0.2,
    cost_usd=None,
    attempts=(FAILED, ATTEMPT),
)


def test_a_reply_comes_back_whole() -> None:
    """All that it holds is equal, and of the same kind."""
    text = stored(REPLY)
    again = restored(text)
    assert text.isascii()
    assert isinstance(again, ChatReply)
    assert again.__getstate__() == REPLY.__getstate__()
    assert [type(attempt) for attempt in again.attempts] == [AttemptRecord] * 2


def test_what_is_kept_is_of_this_version() -> None:
    """A change of these needs a new `VERSION` in state/checkpoint.py, or old answers would be bought again."""
    kept = json.loads(stored(REPLY))
    assert VERSION == 1
    assert list(kept) == ["endpoint", "latency_ms", "cost_usd", "attempts", "raw"]
    assert list(kept["attempts"][0]) == [
        *("endpoint", "outcome", "detail", "status"),
        *("wait_s", "latency_ms", "cost_usd", "maybe_billed"),
    ]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", '{"raw": {}}', stored(REPLY)[:-1], stored(REPLY).replace("wait_s", "x")]
    + [
        json.dumps({**json.loads(stored(REPLY)), **wrong})
        for wrong in ({"raw": []}, {"attempts": 3}, {"x": 1})
    ],
)
def test_what_is_no_reply_is_none(text: str) -> None:
    """Nothing half read comes back."""
    assert restored(text) is None
