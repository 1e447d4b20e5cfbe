"""The body of a reply as it arrives: decoded, part by part, as soon as a part is there.

It reads below urllib3, whose `stream` and `read` wait until a buffer is full and whose `read1` is no older than
version 2.2; what is asked of http.client here has been the same since Python 3.8.
"""

from __future__ import annotations

import http.client
import zlib
from typing import Any, Optional

from urllib3.exceptions import HTTPError

#: Bytes taken from the connection at a time, and given out at a time: few, so that none waits for others' work.
_PART = 16 * 1024


class LiveBody:
    """Reads one reply's body; its connection goes back to the pool only when it was read to the end.

    Args:
        raw: urllib3's response, nothing of its body read.

    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._source: Any = raw._fp
        http_length = isinstance(self._source, http.client.HTTPResponse) and not self._source.chunked
        #: Bytes that a length in the headers promises: http.client before 3.11.8 does not count what `read1` takes.
        self._left: Optional[int] = self._source.length if http_length else None
        self._decoder = _decoder_for(raw.headers.get("content-encoding"))
        self._ended = False

    def read(self) -> bytes:
        """Return the next bytes, decoded, as soon as there are any; none at the end.

        Raises whatever the connection does, and for a body shorter than its headers promise.
        """
        decoder = self._decoder
        if decoder is None:
            return self._take()
        while True:
            left = decoder.unconsumed_tail
            part = left or self._take()
            if not part and not left:
                return b""
            decoded: bytes = decoder.decompress(part, _PART)
            if decoded:
                return decoded

    def _take(self) -> bytes:
        """Return the next bytes as they came."""
        if self._ended:
            return b""
        size = _PART if self._left is None else min(_PART, self._left)
        part: bytes = self._source.read1(size) if size else b""
        if part:
            if self._left is not None:
                self._left -= len(part)
            return part
        self._ended = True
        if self._left:
            raise HTTPError(f"body cut short: {self._left} bytes are missing")
        return b""

    def release(self) -> None:
        """Give the connection back; one whose reply was not read to the end is closed."""
        if not self._ended:
            self._raw.close()
        elif isinstance(self._source, http.client.HTTPResponse):
            self._source.close()  # the reply, not its connection: a new request may follow
        self._raw.release_conn()

    def close(self) -> None:
        """Close the connection, in whatever state and from whatever thread; the pool is not touched."""
        self._ended = True
        self._raw.close()


def await_first_byte(raw: Any) -> None:
    """Wait until a reply's body has begun, and take nothing of it.

    Raises whatever the connection does, and for a body that ends before it has begun.
    """
    source: Any = raw._fp
    if not isinstance(source, http.client.HTTPResponse) or source.fp is None or source.length == 0:
        return
    buffered: Any = source.fp
    if not buffered.peek(1) and (source.chunked or source.length):
        raise HTTPError("the body never began")


def _decoder_for(encoding: Optional[str]) -> Any:
    """Return what decodes a content coding; None where there is none."""
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        return None
    if name in ("gzip", "x-gzip"):
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if name == "deflate":
        return zlib.decompressobj()
    raise HTTPError(f"a content encoding that was not asked for: {name[:20]!r}")
