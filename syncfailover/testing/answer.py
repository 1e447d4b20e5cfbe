"""What an upstream does with one request: bytes, pace, and what becomes of the connection and of the port."""

from __future__ import annotations

import enum
import math
import re
from typing import Iterator, NamedTuple, Optional, Union

from .flow import Flow, Step
from .wire import Response

_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})\b")


class State(enum.Enum):
    """What the upstream's port does with a new connection."""

    UP = "up"
    REFUSING = "refusing"  # the port is shut: connects are refused, live connections were reset
    BLACKHOLE = "blackhole"  # the host is gone: connects never complete, live connections go silent
    STOPPED = "stopped"  # the port is given back


class End(enum.Enum):
    """What becomes of a connection after an answer."""

    KEEP = "keep"  # it waits for the next request
    CLOSE = "close"  # FIN: the client reads to the end
    RESET = "reset"  # RST: the client gets an error


class Answer(NamedTuple):
    """What to do with one request. Times are in seconds; an infinite delay never answers."""

    data: Union[bytes, Response, Flow] = b""  # bytes go out as they are, a flow at its own pace
    end: End = End.KEEP
    delay_s: float = 0.0
    piece: int = 0  # bytes per write; 0 writes everything at once, and a flow as it comes
    interval_s: float = 0.0  # between two such writes
    state: Optional[State] = None  # what the whole upstream turns into, once the connection has ended
    for_s: Optional[float] = None  # and for how long; None until revived

    @property
    def status(self) -> Optional[int]:
        """The HTTP status that it begins with; ``None`` where it has none: no bytes, never, or not HTTP."""
        if math.isinf(self.delay_s):
            return None
        if not isinstance(self.data, bytes):
            return self.data.status
        found = _STATUS_LINE.match(self.data)
        return int(found[1]) if found else None

    def steps(self, *, is_last: bool) -> Iterator[Step]:
        """Say what each write sends and how long to wait before it: at least one, which may be empty.

        :param is_last: whether the client asked for the connection to close afterwards.
        """
        if isinstance(self.data, Flow):
            return self.data.writes(is_last=is_last)
        data = self.data if isinstance(self.data, bytes) else self.data.encode(is_last=is_last)
        size = self.piece or len(data) or 1
        pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        return (Step(piece, self.interval_s if number else 0.0) for number, piece in enumerate(pieces))
