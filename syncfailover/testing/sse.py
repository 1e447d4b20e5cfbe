"""Server-sent events: what a stream says, apart from how fast and in what coding it goes out."""

from __future__ import annotations

import itertools
from typing import Iterator, NamedTuple, Optional, Sequence


class Event(NamedTuple):
    """One event. Data of several lines takes several ``data:`` lines."""

    data: bytes
    name: Optional[str] = None

    def encode(self, newline: str = "\n", *, space: bool = True) -> bytes:
        """Write it, with its empty line.

        :param newline: any of the three ends of line that the standard knows.
        :param space: whether one follows each colon.
        """
        end, colon = newline.encode(), b": " if space else b":"
        name = b"" if self.name is None else b"event%b%b%b" % (colon, self.name.encode(), end)
        lines = self.data.splitlines() or [b""]
        return name + b"".join(b"data%b%b%b" % (colon, line, end) for line in lines) + end


#: The last event of a stream of completions. The Responses API has no such thing.
DONE = Event(b"[DONE]")


class Events(NamedTuple):
    """A whole stream in three parts. ``tokens`` has the pieces of content, one by one."""

    opening: Sequence[Event]
    tokens: Sequence[Event]
    closing: Sequence[Event]

    def all(self) -> Iterator[Event]:
        """Go through all three, in order."""
        return itertools.chain(*self)

    @property
    def are_typed(self) -> bool:
        """Whether each event names its type, as those of the Responses API do."""
        return next(self.all()).name is not None


def comment(newline: str = "\n") -> bytes:
    """Write what keeps a connection alive and says nothing."""
    return f": keep-alive{newline}{newline}".encode()
