"""Text that arrives in thousands of pieces: kept in few strings, for a short one takes sixty bytes beside its text."""

from __future__ import annotations

from typing import List

#: Pieces that are joined at a time: then a character of their text takes little more than itself.
_TWISTED = 1024


class Rope:
    """Text that grows."""

    __slots__ = ("_pieces", "_strands")

    def __init__(self) -> None:
        self._strands: List[str] = []
        self._pieces: List[str] = []  # the latest; fewer than _TWISTED

    def __bool__(self) -> bool:
        """Tell whether anything was appended, be it empty."""
        return bool(self._pieces or self._strands)

    @property
    def text(self) -> str:
        """The text so far."""
        return _mended("".join([*self._strands, *self._pieces]))

    def append(self, piece: str) -> None:
        """Append a piece."""
        pieces = self._pieces
        pieces.append(piece)
        if len(pieces) >= _TWISTED:
            self._strands.append("".join(pieces))
            pieces.clear()

    def whole(self) -> str:
        """Return the text, and keep no other copy of it; unlike `text`, it is for the thread that appends."""
        text = "".join([*self._strands, *self._pieces])
        if self:
            self._strands, self._pieces = [text], []
        return _mended(text)


def _mended(text: str) -> str:
    """Put together the characters that were cut in two.

    JSON writes an emoji as two escapes, and a chunk may end between them. A half without its other half, which can
    be neither printed nor encoded, becomes U+FFFD.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
