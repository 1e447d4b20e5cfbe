"""Events come out of a body the same however it is cut, with the byte that completes them, and within a bound."""

import time
import tracemalloc
from contextlib import suppress
from itertools import accumulate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncfailover.completion.sse import EventTooLong, ServerSentEvent, SSEDecoder

BOM = b"\xef\xbb\xbf"
CHUNK = (
    b'data: {"id":"chatcmpl-1","choices":[{"delta":{"content":"Gr\xc3\xbc\xc3\x9fe \xf0\x9f\x91\x8b"}}]}\n\n'
)

#: What bodies are made of: everything that means something to a decoder, whole and in pieces, and some that does not.
FRAGMENTS = [
    *[b"\n", b"\n", b"\r", b"\r", b"\r\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\n\r", BOM, b"\xef", b"\xbb\xbf"],
    *[b"data: x\n", b"data: y\r\n", b"data: z\r", b"data\n", b"event: e\n", b"id: 7\r", b"retry: 10\n"],
    *[b"data: ", b"data:", b"data", b"dat", b"a: ", b"DATA: ", b" data: ", b"data: [DONE]", b": ping\n\n"],
    *[b"event: ", b"event", b"id: ", b"id", b"retry: ", b"{", b'{"error":1}', b"[", b"[1]\n", b"}"],
    *[b":", b" ", b"  ", b"12", b"\0", b"-1", b"x", "\N{ARABIC-INDIC DIGIT ONE}".encode()],
    *["é".encode(), "😀".encode(), b"\xf0\x9f", b"\x98\x80", b"\xff", b"\xed\xa0\x80"],
    *["\u2028\x85".encode(), b"\x0b", b"\x0c", b"\x1c"],
]


def event(data, kind="", last_id="", retry_ms=None):
    """Make an event."""
    return ServerSentEvent(data, kind, last_id, retry_ms)


def bodies(most):
    """Bodies of up to this many fragments; one draw for each body, for Hypothesis takes its time over lists."""
    return st.binary(max_size=most).map(
        lambda picks: b"".join(FRAGMENTS[pick % len(FRAGMENTS)] for pick in picks)
    )


def lines_of(body):
    """Give each line without its BOM, its length with it, and the number of bytes after which it is known to be a line.

    What the end of the body completes is known after one byte more than there are: the last line, and a blank one.
    """
    lines, line, previous = [], b"", b""
    for position in range(len(body)):
        byte = body[position : position + 1]
        if byte in (b"\r", b"\n"):
            if (previous, byte) != (b"\r", b"\n"):
                lines.append((line, position + 1))
                line = b""
        else:
            line += byte
        previous = byte
    lines += [(line, len(body) + 1), (b"", len(body) + 1)]
    begun_with_bom = lines[0][0].startswith(BOM)
    return [
        (line[3:] if begun_with_bom and number == 0 else line, len(line), position)
        for number, (line, position) in enumerate(lines)
    ]


def field(line):
    """Take a field apart; a space after the colon is not the value's."""
    name, _, value = line.partition(b":")
    return name, value[1:] if value.startswith(b" ") else value


def text(raw):
    """Decode bytes as a browser does."""
    return raw.decode("utf-8", errors="replace")


def is_wait(value):
    """Say whether this is a wait: digits, and so few that every Python reads them as a number."""
    return 1 <= len(value) <= 18 and all(digit in b"0123456789" for digit in value)


def reference(body):
    """Decode in the words of the specification, and of the deviations.

    Each event comes with the number of bytes after which it is known.
    """
    found, data, kind, last_id, retry_ms = [], [], "", "", None
    for line, _, position in lines_of(body):
        name, value = field(line)
        if line == b"":
            if data:
                found.append((event(text(b"\n".join(data)), kind, last_id, retry_ms), position))
            data, kind = [], ""
        elif line.startswith((b"{", b"[")) and not data:
            found.append((event(text(line), "", last_id, retry_ms), position))
        elif name == b"data":
            data.append(value)
        elif name == b"event":
            kind = text(value)
        elif name == b"id" and b"\0" not in value:
            last_id = text(value)
        elif name == b"retry" and is_wait(value):
            retry_ms = int(value)
    return found


def reference_with_bound(body, longest):
    """Decode with a bound: the events before the excess, and the number of bytes after which that is known, or None."""
    data, excess = [], None
    for line, length, position in lines_of(body):
        name, value = field(line)
        data = [] if line == b"" else [*data, value] if name == b"data" else data
        if length > longest:
            excess = position - (length - longest)
        elif len(b"\n".join(data)) > longest:
            excess = position
        if excess:
            break
    return [event for event, position in reference(body) if not excess or position < excess], excess


def decode(*pieces):
    """Decode a whole body that comes in these pieces."""
    decoder = SSEDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()


def decode_with_positions(pieces):
    """Decode a whole body; each event comes with the number of bytes that had come with the piece that brought it."""
    decoder = SSEDecoder()
    found = [
        (event, here)
        for piece, here in zip(pieces, accumulate(map(len, pieces)))
        for event in decoder.feed(piece)
    ]
    return found + [(event, sum(map(len, pieces)) + 1) for event in decoder.end()]


def cut(body, places):
    """Cut a body before each of these bytes; places beyond its length, and equal ones, make empty pieces."""
    edges = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    return [body[start:stop] for start, stop in zip(edges, edges[1:])]


def single_bytes(body):
    """Cut a body into its bytes."""
    return [body[place : place + 1] for place in range(len(body))]


def expected(body, pieces):
    """Say what the reference finds in a body, at the ends of the pieces that bring it."""
    ends = [*accumulate(map(len, pieces)), len(body) + 1]
    return [(event, min(end for end in ends if end >= position)) for event, position in reference(body)]


def check(body, pieces):
    """The decoder finds what the reference finds, and each event with the very piece that completes it."""
    assert b"".join(pieces) == body
    assert decode_with_positions(pieces) == expected(body, pieces)


CASES = {
    "one event": (b"data: x\n\n", [event("x")]),
    "two events": (b"data: x\n\ndata: y\n\n", [event("x"), event("y")]),
    "CRLF": (b"data: x\r\n\r\ndata: y\r\n\r\n", [event("x"), event("y")]),
    "CR": (b"data: x\r\rdata: y\r\r", [event("x"), event("y")]),
    "mixed line ends": (b"data: x\r\ndata: y\rdata: z\n\r", [event("x\ny\nz")]),
    "LF CR is two line ends": (b"data: x\n\rdata: y\n\r", [event("x"), event("y")]),
    "only these end a line": (
        "data: a\u2028b\x85c\x0bd\x0ce\x1cf\n\n".encode(),
        [event("a\u2028b\x85c\x0bd\x0ce\x1cf")],
    ),
    "several data lines": (b"data: x\ndata: y\ndata: z\n\n", [event("x\ny\nz")]),
    "an empty data line among others": (b"data: x\ndata:\ndata: z\n\n", [event("x\n\nz")]),
    "data without a colon": (b"data\n\n", [event("")]),
    "data without a value": (b"data:\n\n", [event("")]),
    "two empty data lines": (b"data\ndata\n\n", [event("\n")]),
    "no space after the colon": (b"data:x\n\n", [event("x")]),
    "one space is removed, not two": (b"data:  x \n\n", [event(" x ")]),
    "a tab is no space": (b"data:\tx\n\n", [event("\tx")]),
    "further colons belong to the value": (b"data: a: b\n\n", [event("a: b")]),
    "a comment": (b": keep-alive\n\ndata: x\n: OPENROUTER PROCESSING\n\n", [event("x")]),
    "a comment that looks like data": (b":data: x\n\n", []),
    "a field that is not known": (b"date: x\nDATA: x\n data: x\ndata : x\nx\n\n", []),
    "blank lines": (b"\n\n\r\n\rdata: x\n\n\n\n", [event("x")]),
    "nothing": (b"", []),
    "a type": (b"event: error\ndata: x\n\ndata: y\n\n", [event("x", "error"), event("y")]),
    "a type after the data": (b"data: x\nevent: error\n\n", [event("x", "error")]),
    "the last type counts": (b"event: a\nevent: b\ndata: x\n\n", [event("x", "b")]),
    "a type taken back": (b"event: a\nevent\ndata: x\n\n", [event("x")]),
    "a type without data is gone": (b"event: a\n\ndata: x\n\n", [event("x")]),
    "an id stays": (b"id: 1\ndata: x\n\ndata: y\n\n", [event("x", "", "1"), event("y", "", "1")]),
    "an id without data stays": (b"id: 1\n\ndata: x\n\n", [event("x", "", "1")]),
    "an id taken back": (b"id: 1\ndata: x\n\nid\ndata: y\n\n", [event("x", "", "1"), event("y")]),
    "an id with NUL": (b"id: 1\nid: 2\0\ndata: x\n\n", [event("x", "", "1")]),
    "a wait": (b"retry: 2500\ndata: x\n\ndata: y\n\n", [event("x", "", "", 2500), event("y", "", "", 2500)]),
    "a wait of 0": (b"retry: 0\ndata: x\n\n", [event("x", "", "", 0)]),
    "no waits": (
        "retry: -1\nretry: 1.5\nretry: 1s\nretry:\nretry:  5\nretry: \N{ARABIC-INDIC DIGIT ONE}\ndata: x\n\n".encode(),
        [event("x")],
    ),
    "a long wait": (b"retry: " + b"9" * 18 + b"\ndata: x\n\n", [event("x", "", "", 10**18 - 1)]),
    "a wait that is too long": (b"retry: " + b"9" * 19 + b"\ndata: x\n\n", [event("x")]),
    "a wait that no Python reads": (b"retry: " + b"9" * 5000 + b"\ndata: x\n\n", [event("x")]),
    "a BOM": (BOM + b"data: x\n\n", [event("x")]),
    "a BOM before a bare error": (BOM + b'{"error":"x"}\n', [event('{"error":"x"}')]),
    "a BOM before a blank line": (BOM + b"\ndata: x\n\n", [event("x")]),
    "a BOM and nothing else": (BOM, []),
    "half a BOM": (b"\xef\xbbdata: x\n\ndata: y\n\n", [event("y")]),
    "a second BOM": (BOM + BOM + b"data: x\n\ndata: y\n\n", [event("y")]),
    "a BOM that is not at the beginning": (b"\n" + BOM + b"data: x\n\n", []),
    "a BOM as data": (b"data: " + BOM + b"x\n\n", [event("\ufeffx")]),
    "UTF-8": ("data: é 😀\nevent: ü\nid: ß\n\n".encode(), [event("é 😀", "ü", "ß")]),
    "not UTF-8": (b"data: a\xffb\nevent: \xf0\x9f\nid: \xc3\n\n", [event("a\ufffdb", "\ufffd", "\ufffd")]),
    "NUL as data": (b"data: a\0b\n\n", [event("a\0b")]),
    "a bare object": (b'{"error":"x"}\n', [event('{"error":"x"}')]),
    "a bare array": (b'[{"error":{}}]\n', [event('[{"error":{}}]')]),
    "a bare error after events": (b'data: x\n\n{"error":"x"}\n\n', [event("x"), event('{"error":"x"}')]),
    "a bare error with a colon in front of its brace is none": (b':{"error":"x"}\n\n', []),
    "a bare error has no type, and leaves it": (b"event: e\n{}\ndata: x\n\n", [event("{}"), event("x", "e")]),
    "a bare error has the id": (b"id: 1\nretry: 5\n{}\n", [event("{}", "", "1", 5)]),
    "a brace within an event is a field that is not known": (
        b"data: x\n{}\n[]\ndata: y\n\n",
        [event("x\ny")],
    ),
    "the end instead of a blank line": (b"data: x\n\ndata: [DONE]\n", [event("x"), event("[DONE]")]),
    "the end instead of a line end": (b"data: x\n\ndata: [DONE]", [event("x"), event("[DONE]")]),
    "the end after CR": (b"data: [DONE]\r", [event("[DONE]")]),
    "the end within CRLF": (b"data: [DONE]\r\n\r", [event("[DONE]")]),
    "the end of a bare error": (b'{"error":"x"}', [event('{"error":"x"}')]),
    "the end after other fields": (b"event: e\nid: 1\n", []),
    "the end within a name": (b"data: x\ndat", [event("x")]),
}


@pytest.mark.parametrize(("body", "events"), CASES.values(), ids=CASES)
def test_what_a_body_says(body, events):
    """Whole, and byte by byte, a body gives these events; and the reference that other tests believe agrees."""
    assert decode(body) == events
    assert decode(*single_bytes(body)) == events
    assert [event for event, _ in reference(body)] == events


def test_an_event_of_data_alone_has_no_more():
    """Type, id and wait may be left out of a comparison."""
    assert decode(b"data: x\n\n") == [ServerSentEvent("x")] == [("x", "", "", None)]


def test_a_cr_ends_its_line_at_once():
    """Nobody waits for an LF that may never come; the one that comes is swallowed, the second is a blank line."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: x\r") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"\r") == [event("x")]
    assert decoder.feed(b"\ndata: y\n") == []
    assert decoder.feed(b"\n") == [event("y")]


def test_after_its_end_a_body_has_no_more():
    """An end that is told twice completes nothing twice."""
    decoder = SSEDecoder()
    decoder.feed(b"data: x")
    assert decoder.end() == [event("x")]
    assert decoder.end() == []


@given(bodies(8))
@example(b"data: x\r\n\r\n")
@example(BOM + b"data: \xf0\x9f\x98\x80\r\n\r\n{}\r\n")
def test_every_cut_in_two_gives_the_same(body):
    """There is no place at which a body must not be cut; an event comes with the piece that completes it."""
    for place in range(len(body) + 1):
        check(body, [body[:place], body[place:]])


@given(bodies(60), st.lists(st.integers(0, 300), max_size=12))
def test_every_cut_in_many_gives_the_same(body, places):
    """Nor are there several such places, and an empty piece changes nothing."""
    check(body, cut(body, places))


@given(bodies(60))
def test_an_event_comes_with_the_byte_that_completes_it(body):
    """Nothing is kept back: a reader who shows text as it comes shows it as soon as it is there."""
    check(body, single_bytes(body))


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_at_all_are_read(body, places):
    """What is not an event stream gives what the specification makes of it, never an error."""
    check(body, cut(body, places))


@pytest.mark.slow
@given(bodies(24), st.integers(0, (1 << 64) - 1))
@settings(max_examples=100_000)
def test_a_long_search_finds_no_body_and_no_cut_that_differ(body, mask):
    """A hundred thousand bodies, each cut before the bytes whose bit of the mask is set."""
    check(body, cut(body, [place for place in range(64) if mask >> place & 1]))


def decode_until_too_long(body, pieces, longest):
    """Decode with a bound; gives the events, and the bytes that had come when something was too long, or None."""
    decoder = SSEDecoder(longest=longest)
    found, here = [], 0
    try:
        for piece in pieces:
            here += len(piece)
            found += decoder.feed(piece)
        here = len(body) + 1
        found += decoder.end()
    except EventTooLong:
        return found, here
    return found, None


@given(bodies(12), st.integers(0, 20))
def test_too_long_is_said_with_the_byte_that_is_too_many(body, longest):
    """A line, or data, of the length allowed passes; one byte more does not, and what came before it has come out."""
    assert decode_until_too_long(body, single_bytes(body), longest) == reference_with_bound(body, longest)


@given(bodies(12), st.integers(0, 20), st.lists(st.integers(0, 80), max_size=8))
def test_too_long_is_said_with_the_piece_that_is_too_much(body, longest, places):
    """However a body is cut, it is refused with the piece in which it becomes too long.

    The events before have come out, but for those that a piece longer than the bound brought together with the excess.
    """
    pieces = cut(body, places)
    expected_events, excess = reference_with_bound(body, longest)
    ends = [*accumulate(map(len, pieces)), len(body) + 1]
    events, refused = decode_until_too_long(body, pieces, longest)
    assert refused == (excess and min(end for end in ends if end >= excess))
    if max(map(len, pieces)) <= longest or excess is None:
        assert events == expected_events


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"data: 0123456789", "a line"),
        (b"\n" + b"x" * 11, "a line"),
        (b"\n" + b"x" * 11 + b"\n\n", "a line"),
        (b"data:1234\ndata:12345\ndata:\n", "the data of an event"),
        (b"\ndata\n" * 2 + b"data\n" * 11, "the data of an event"),
    ],
)
def test_too_long_says_what_and_how_many_bytes_are_allowed(body, what):
    """The message names the bound, and is a ValueError's."""
    with pytest.raises(ValueError, match=rf"^{what} of the stream is longer than the 10 bytes allowed$"):
        SSEDecoder(longest=10).feed(body)


@pytest.mark.parametrize(
    "body", [b"data:12345\n\n", b"data:1234\ndata:12345\n\n", b"{89012345}\n", b"data\n" * 11 + b"\n"]
)
def test_the_length_allowed_is_allowed(body):
    """Ten bytes of ten pass, as a line and as data."""
    assert len(SSEDecoder(longest=10).feed(body)) == 1


def test_the_bound_is_for_each_event():
    """A stream as a whole may be as long as it likes."""
    decoder = SSEDecoder(longest=16)
    assert [len(decoder.feed(b"data: 0123456789\n\n" * 10)) for _ in range(10)] == [10] * 10


ENDLESS = {
    "a line": b"x" * 32,
    "an unfinished event": b"data: " + b"x" * 25 + b"\n",
    "short data lines": b"data: x\n" * 4,
    "empty data lines": b"data\n" * 6,
    "bytes of a line": b"x",
    "comments": b": ping\n" * 4,
    "blank lines": b"\n" * 32,
    "ids": b"id: " + b"1" * 27 + b"\n",
}


@pytest.mark.parametrize("piece", ENDLESS.values(), ids=ENDLESS)
def test_memory_is_bounded(piece):
    """A server that never ends its line or its event costs about what the bound says, in whatever pieces it comes."""
    longest = 1 << 14
    decoder = SSEDecoder(longest=longest)
    tracemalloc.start()
    try:
        with suppress(EventTooLong):
            for _ in range(2 * longest):
                decoder.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 2 * longest
    finally:
        tracemalloc.stop()


def test_a_long_event_comes_whole():
    """Images come as base64 in one line, of a megabyte and more; its reads are of the usual sizes."""
    long = "é" * (1 << 20)
    body = f"data: {long}\r\n\r\n".encode()
    for size in (1000, 1460, 1 << 16, 1 << 22):
        assert decode(*(body[start : start + size] for start in range(0, len(body), size))) == [event(long)]


@pytest.mark.parametrize(("line", "size"), [(b"", 16), (b"data: x\n", 16), (b"data: x\n", 1 << 22)])
def test_a_long_event_costs_no_more_than_its_length(line, size):
    """Eight times the length takes about eight times as long, not sixty-four: in one line or many, in pieces or at once."""

    def seconds(length):
        body = line * (length // len(line)) if line else b"data: " + b"x" * length
        pieces = [body[start : start + size] for start in range(0, length, size)]
        best = float("inf")
        for _ in range(3):
            begun = time.process_time()
            assert len(decode(*pieces)) == 1
            best = min(best, time.process_time() - begun)
        return best

    assert seconds(1 << 19) < 24 * seconds(1 << 16)


def test_a_stream_of_chunks_comes_whole():
    """Ten thousand chunks in reads of a kilobyte: the usual case."""
    body = CHUNK * 10_000 + b"data: [DONE]\n\n"
    one = event(CHUNK[6:-2].decode())
    assert decode(*(body[start : start + 1024] for start in range(0, len(body), 1024))) == [one] * 10_000 + [
        event("[DONE]")
    ]
