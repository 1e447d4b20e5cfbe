"""Server-sent events, decoded from the bytes of a body as they arrive.

What holds is the WHATWG's "9.2.6 Interpreting an event stream", with three deviations:

- A line that starts with `{` or `[` while no data is pending is an event of its own. Providers put a bare JSON error body
  into a stream that has begun; the specification would drop it as a field of an unknown name.
- At the end of the body an event that only lacks its blank line counts: providers write `data: [DONE]` and close.
- There is a bound on what is held, since the other side decides when a line or an event ends.

An event comes out with the very byte that completes it: a CR ends its line at once, and an LF that follows belongs to it.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Union

_BOM = b"\xef\xbb\xbf"
#: Digits of a `retry:` that is believed. Python 3.11 refuses to read more than 4,300, older ones take quadratic time.
_MAX_RETRY_DIGITS = 18


class EventTooLong(ValueError):
    """A line, or one event's data in all, is longer than the decoder may hold; the message says how many bytes that is."""


class ServerSentEvent(NamedTuple):
    """One event of a stream."""

    #: The data lines, joined by LF; what is not UTF-8 comes as U+FFFD.
    data: str
    #: The event's type; empty where the stream gave none.
    event: str = ""
    #: The last id that the stream gave, with this event or before it.
    id: str = ""
    #: The last wait before a reconnection that the stream asked for, with this event or before it.
    retry_ms: Optional[int] = None


class SSEDecoder:
    """Turns the bytes of one body, cut anywhere, into its events.

    `longest` bounds the bytes of one line, and those of one event's data in all. A decoder that has raised `EventTooLong`
    has lost its place in the stream and is of no further use. Events which the same bytes completed before are lost only
    where more than `longest` bytes were fed at once.
    """

    def __init__(self, *, longest: int = 16 * 1024 * 1024) -> None:
        self._longest = longest
        self._at_start = True
        self._after_cr = False
        # The line, and the data, that are not complete. A bytearray grows in linear time like a list of parts, but
        # without an object for each part: a body that arrives byte by byte costs its own size, not fifty times that.
        self._line = bytearray()
        self._data: Union[bytes, bytearray, None] = None
        self._event = ""
        self._id = ""
        self._retry_ms: Optional[int] = None

    def feed(self, data: bytes) -> List[ServerSentEvent]:
        """Return the events that these bytes complete, in order; raises `EventTooLong`."""
        events = []
        for line in self._lines(data):
            if not line:
                if self._data is not None:
                    events.append(self._made(self._data, self._event))
                    self._data = None
                self._event = ""
            elif self._data is not None:
                self._take(line)
            elif line.startswith(b"data: "):  # nearly every line of a stream, hence the shortcut
                self._data = line[6:]
            elif line.startswith((b"{", b"[")):
                events.append(self._made(line, ""))
            else:
                self._take(line)
        return events

    def end(self) -> List[ServerSentEvent]:
        """Return what the end of the body completes: the event that lacked its blank line, or also its last line's end.

        The specification drops such an event. Providers end with `data: [DONE]` and close, and what was cut off in the
        middle of its JSON is the reader's to judge. Raises `EventTooLong`.
        """
        return self.feed(b"\n\n")

    def _lines(self, data: bytes) -> List[bytes]:
        """Return the lines that are complete now, and keep the rest."""
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        lines = data.splitlines()
        rest = b""
        if data.endswith(b"\r"):
            self._after_cr = True
        elif lines and not data.endswith(b"\n"):
            rest = lines.pop()
        if len(self._line) + len(data) > self._longest:
            self._check([*lines, rest])
        if lines and (self._line or self._at_start):
            lines[0] = self._whole(lines[0])
        if rest:
            self._line += rest
        return lines

    def _check(self, pieces: List[bytes]) -> None:
        """Refuse what has come if one of its lines is too long; the first piece goes on with the line that is kept."""
        if max(len(self._line) + len(pieces[0]), *map(len, pieces)) > self._longest:
            raise self._too_long("a line")

    def _whole(self, last_piece: bytes) -> bytes:
        """Return the line that is kept, completed; the body's first one without a byte order mark."""
        self._line += last_piece
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            if line.startswith(_BOM):
                return line[len(_BOM) :]
        return line

    def _take(self, line: bytes) -> None:
        """Take a line that is neither empty nor the usual one; what is no field, and a comment, has no known name."""
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._add(value)
        elif name == b"event":
            self._event = _text(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = _text(value)
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self._retry_ms = int(value)

    def _add(self, value: bytes) -> None:
        """Add a line to the event's data."""
        data = self._data
        if data is None:
            self._data = value
            return
        if len(data) + 1 + len(value) > self._longest:
            raise self._too_long("the data of an event")
        if isinstance(data, bytes):
            self._data = data = bytearray(data)
        data += b"\n"
        data += value

    def _made(self, data: Union[bytes, bytearray], event: str) -> ServerSentEvent:
        return ServerSentEvent(_text(data), event, self._id, self._retry_ms)

    def _too_long(self, what: str) -> EventTooLong:
        return EventTooLong(f"{what} of the stream is longer than the {self._longest} bytes allowed")


def _text(value: Union[bytes, bytearray]) -> str:
    return value.decode("utf-8", "replace")
