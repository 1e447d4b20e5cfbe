"""A body that takes its time: steps with pauses between them, and the coding that says where it ends."""

from __future__ import annotations

import itertools
import zlib
from typing import Dict, Iterable, Iterator, List, NamedTuple

from .wire import Response

#: How the client learns of a body's end: its last chunk (compressed ones, with gzip), its length, or the connection's end.
CODINGS = ("chunked", "gzip", "content-length", "close")

_GZIP = 16 + zlib.MAX_WBITS
_WRITE_BYTES = 65536  # steps without a pause are joined to writes of about this size


class Step(NamedTuple):
    """Wait, then write. After an infinite pause nothing is ever written."""

    data: bytes
    pause_s: float = 0.0


class Flow(NamedTuple):
    """A response whose body is written step by step, once.

    :param whole: the status, the headers, and the body whose length is promised where one is.
    :param steps: what is sent of a body, in any case. Each is a chunk where there are chunks.
    :param coding: one of ``CODINGS``. After ``"close"`` the answer has to end with the connection.
    :param is_complete: whether the chunks come to their end.
    """

    whole: Response
    steps: Iterable[Step]
    coding: str = "chunked"
    is_complete: bool = True

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.whole.status

    def writes(self, *, is_last: bool) -> Iterator[Step]:
        """Say what each write sends, the head in the first one.

        :param is_last: whether the client asked for the connection to close afterwards.
        """
        framing: Dict[str, object] = {}
        steps = self.steps
        if self.coding == "content-length":
            framing["content_length"] = len(self.whole.body)
        elif self.coding in ("chunked", "gzip"):
            framing["transfer_encoding"] = "chunked"
            if self.coding == "gzip":
                framing["content_encoding"] = "gzip"
                steps = _gzipped(steps)
            steps = _chunked(steps, end=b"0\r\n\r\n" if self.is_complete else b"")
        if is_last or self.coding == "close":
            framing["connection"] = "close"
        return _joined(itertools.chain([Step(self.whole.head(**framing))], steps))


def _gzipped(steps: Iterable[Step]) -> Iterator[Step]:
    """Compress, and flush each step, so that nothing waits in here for what comes later."""
    compressor = zlib.compressobj(wbits=_GZIP)
    for step in steps:
        yield step._replace(data=compressor.compress(step.data) + compressor.flush(zlib.Z_SYNC_FLUSH))
    yield Step(compressor.flush())


def _chunked(steps: Iterable[Step], *, end: bytes) -> Iterator[Step]:
    for step in steps:
        # an empty chunk would be the end mark
        yield step._replace(data=b"%x\r\n%b\r\n" % (len(step.data), step.data)) if step.data else step
    yield Step(end)


def _joined(steps: Iterable[Step]) -> Iterator[Step]:
    """Join what follows without a pause, so that many steps do not take as many system calls."""
    parts: List[bytes] = []
    size, pause_s = 0, 0.0
    for step in steps:
        if parts and (step.pause_s > 0 or size >= _WRITE_BYTES):
            yield Step(b"".join(parts), pause_s)
            parts, size, pause_s = [], 0, 0.0
        parts.append(step.data)
        size += len(step.data)
        pause_s = pause_s or step.pause_s
    yield Step(b"".join(parts), pause_s)
