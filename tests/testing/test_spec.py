"""Faults from JSON-like data and from the command line."""

import pytest

from syncfailover.testing import (
    Blackhole,
    CloseAfter,
    Empty,
    ErrorBody,
    GarbageJson,
    Hang,
    Html,
    Ok,
    Raw,
    Redirect,
    Refuse,
    Reset,
    Status,
    Stream,
    StreamCut,
    StreamError,
    StreamGarbage,
    StreamStall,
    Trickle,
    Truncate,
    WrongLength,
    fault_from,
    parse_fault,
)

DATA = [
    ({"fault": "ok"}, Ok()),
    ({"fault": "ok", "text": "Hi", "delay_s": 0.2}, Ok("Hi", 0.2)),
    (
        {"fault": "status", "code": 503, "headers": {"Retry-After": "2"}},
        Status(503, headers={"Retry-After": "2"}),
    ),
    ({"fault": "error_body", "body": {"error": "no"}}, ErrorBody({"error": "no"})),
    ({"fault": "html", "status": 502}, Html(502)),
    ({"fault": "garbage_json"}, GarbageJson()),
    ({"fault": "empty"}, Empty()),
    ({"fault": "reset"}, Reset()),
    ({"fault": "hang", "seconds": None}, Hang()),
    ({"fault": "trickle", "bytes_per_write": 3}, Trickle(bytes_per_write=3)),
    ({"fault": "truncate", "how": "chunked"}, Truncate(how="chunked")),
    ({"fault": "wrong_length", "extra": 3}, WrongLength(3)),
    ({"fault": "close_after"}, CloseAfter()),
    ({"fault": "raw", "data": "SSH-2.0\r\n", "close": False}, Raw(b"SSH-2.0\r\n", close=False)),
    ({"fault": "redirect", "location": "http://a/"}, Redirect("http://a/")),
    ({"fault": "refuse", "for_s": 1}, Refuse(1)),
    ({"fault": "blackhole"}, Blackhole()),
    (
        {"fault": "stream", "tokens": 10, "newline": "\r\n", "done": False},
        Stream(10, newline="\r\n", done=False),
    ),
    ({"fault": "stream_cut", "after": 3, "how": "close"}, StreamCut(3, how="close")),
    ({"fault": "stream_stall", "comments_every_s": 0.1}, StreamStall(comments_every_s=0.1)),
    (
        {"fault": "stream_error", "body": {"error": "no"}, "event": "error"},
        StreamError(body={"error": "no"}, event="error"),
    ),
    ({"fault": "stream_garbage", "data": "{", "tokens": 3}, StreamGarbage(tokens=3, data=b"{")),
]


@pytest.mark.parametrize(
    ("data", "fault"), DATA, ids=lambda value: value.get("fault") if isinstance(value, dict) else ""
)
def test_every_fault_can_be_written_as_data(data, fault):
    """The snake_case name of a class and its fields make that very fault."""
    assert fault_from(data) == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hang", Hang()),
        ("hang:5", Hang(5)),
        ("status:503", Status(503)),
        ("status:429,retry-after=2", Status(429, headers={"Retry-After": "2"})),
        (
            "status:500, delay_s=0.5, x-should-retry=true",
            Status(500, headers={"X-Should-Retry": "true"}, delay_s=0.5),
        ),
        ("ok,delay_s=0.2", Ok(delay_s=0.2)),
        ("ok:42", Ok("42")),
        ("ok,finish_reason=length,usage=null", Ok(finish_reason="length")),
        ("truncate:0.25,how=chunked", Truncate(0.25, "chunked")),
        ("raw:hello,close=false", Raw(b"hello", close=False)),
        ("redirect:https://example.org:8443/v1", Redirect("https://example.org:8443/v1")),
        ("refuse:1.5", Refuse(1.5)),
        (
            "stream:100,interval_s=0.05,coding=gzip,done=false,x-a=b",
            Stream(100, interval_s=0.05, coding="gzip", done=False, headers={"X-A": "b"}),
        ),
        ('stream,newline="\\r\\n",space=false', Stream(newline="\r\n", space=False)),
        ("stream_cut:3,how=close", StreamCut(3, how="close")),
        ("stream_stall:3,tokens=10,comments_every_s=0.5", StreamStall(3, 10, comments_every_s=0.5)),
        ("stream_error:0,event=error,done=true", StreamError(0, event="error", done=True)),
    ],
)
def test_a_word_on_the_command_line_is_a_fault(text, fault):
    """After the colon comes the first field, after each comma another field or a dashed header."""
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "fault: None is not one of blackhole, close_after, empty"),
        ({"fault": "sttus"}, "fault: 'sttus' is not one of"),
        ({"fault": ["ok"]}, "is not one of"),
        ({"fault": "status"}, "status.code: missing; it is an integer from 200 to 599"),
        ({"fault": "status", "code": 5030}, "Status.code: 5030 is not an integer from 200 to 599"),
        ({"fault": "status", "code": "503"}, "Status.code: '503' is not an integer"),
        ({"fault": "status", "code": True}, "Status.code: True is not an integer"),
        (
            {"fault": "status", "code": 503, "headrs": {}},
            "status.headrs: {} has no field to go to; allowed: code, body",
        ),
        ({"fault": "reset", "code": 1}, "reset.code: 1 has no field to go to; it takes none"),
        ({"fault": "ok", "delay_s": -1}, "Ok.delay_s: -1 is not a number of seconds, 0 or more"),
        ({"fault": "ok", "headers": "x"}, "Ok.headers: 'x' is not a mapping"),
        ({"fault": "truncate", "fraction": 1}, "Truncate.fraction: 1 is not a number from 0 to below 1"),
        (
            {"fault": "truncate", "how": "rudely"},
            "Truncate.how: 'rudely' is not one of content-length, chunked, close",
        ),
        ({"fault": "stream", "tokens": -1}, "Stream.tokens: -1 is not an integer, 0 or more, or None"),
        (
            {"fault": "stream", "newline": "\n\n"},
            "Stream.newline: '\\n\\n' is not one of '\\n', '\\r\\n', '\\r'",
        ),
        (
            {"fault": "stream", "coding": "br"},
            "Stream.coding: 'br' is not one of chunked, gzip, content-length, close",
        ),
        (
            {"fault": "stream", "comments_every_s": 0},
            "Stream.comments_every_s: 0 is not a number of seconds above 0",
        ),
        ({"fault": "stream_cut", "after": None}, "StreamCut.after: None is not an integer, 0 or more"),
        (
            {"fault": "trickle", "bytes_per_write": 0},
            "Trickle.bytes_per_write: 0 is not an integer, 1 or more",
        ),
        ({"fault": "raw", "data": 7}, "Raw.data: 7 is not bytes"),
    ],
)
def test_bad_data_names_field_value_and_what_is_allowed(data, message):
    """What cannot be a fault raises an error from which it can be put right."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared whole below
        fault_from(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "fault: '' is not one of"),
        ("status", "status.code: missing"),
        ("status:many", "Status.code: 'many' is not an integer from 200 to 599"),
        ("status:503,soon", "status: 'soon' is not name=value"),
        (
            "status:503,delay=2",
            "status.delay: '2' has no field to go to; allowed: code, body, headers, delay_s",
        ),
        ("reset:1", "reset: '1' has no field to go to; it takes none"),
        ("hang,retry-after=2", "hang.retry-after: '2' has no field to go to; allowed: seconds"),
    ],
)
def test_a_bad_word_says_what_is_wrong_with_it(text, message):
    """A typing error on a command line is explained, never guessed at."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared whole below
        parse_fault(text)
    assert message in str(caught.value)


def test_a_fault_in_code_is_checked_where_it_is_written():
    """What JSON cannot hold is refused at once, in the thread of the test."""
    with pytest.raises(ValueError, match=r"Status\.body: .* is not bytes, a string"):
        Status(500, body={1, 2})


def test_faults_are_values():
    """Equal fields make equal faults, which cannot be changed and read like their code."""
    assert Status(503) == Status(503) != Status(500)
    assert repr(Hang(2)) == "Hang(seconds=2)"
    with pytest.raises(AttributeError):
        Status(503).code = 200
