"""Tables as text: columns give way where there is little room.

A line is a sequence of cells, text with a style. Nothing here turns styles into escape codes, so that the same table can
go to a terminal, a pipe or a log.
"""

import shutil
from typing import List, NamedTuple, Optional, Sequence, TextIO, Tuple

_GAP = "  "


class Cell(NamedTuple):
    """A piece of text and how it looks: one of "", "bold", "dim", "red", "green", "yellow", "invert"."""

    text: str
    style: str = ""


Line = Sequence[Cell]


class Column(NamedTuple):
    """One column of a table."""

    title: str
    #: Characters: as wide as this at least, wider where its cells are.
    width: int = 0
    align: str = "<"
    #: Where room is short, the column with the highest number is left out first; 0 stays to the end.
    rank: int = 0
    #: Whether it may be cut down to `width` before any column is left out.
    elastic: bool = False


class Glyphs(NamedTuple):
    """The few signs that are no letters."""

    bar: str
    ellipsis: str
    arrow: str


FANCY = Glyphs("█", "…", "→")
ASCII = Glyphs("#", "..", "->")


def glyphs_for(out: TextIO) -> Glyphs:
    """Return the signs that can be written in the encoding of `out`."""
    try:
        "".join(FANCY).encode(out.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return FANCY


def width_of(out: TextIO) -> Optional[int]:
    """Return how wide a table may be: as the terminal; in a file or a mail, as it needs."""
    return shutil.get_terminal_size().columns - 1 if out.isatty() else None


def table(
    columns: Sequence[Column],
    rows: Sequence[Line],
    width: Optional[int] = None,
    ellipsis: str = ASCII.ellipsis,
) -> List[Line]:
    """Lay out a heading and rows within `width` characters; None takes the room that they need."""
    kept = list(range(len(columns)))
    needs = [max(c.width, len(c.title), *(len(row[i].text) for row in rows)) for i, c in enumerate(columns)]
    sizes = _fitted(columns, needs, kept, width)
    while sizes is None:
        kept.remove(max(kept, key=lambda i: columns[i].rank))
        sizes = _fitted(columns, needs, kept, width)
    heading = [Cell(column.title, "dim") for column in columns]
    return [_row([(columns[i], row[i]) for i in kept], sizes, ellipsis) for row in (heading, *rows)]


def _fitted(
    columns: Sequence[Column], needs: Sequence[int], kept: Sequence[int], width: Optional[int]
) -> Optional[List[int]]:
    """Return the widths of those that are kept; None where they do not fit."""
    sizes = [needs[i] for i in kept]
    if width is None:
        return sizes
    excess = sum(sizes) + len(_GAP) * (len(sizes) - 1) - width
    for place, i in enumerate(kept):
        if columns[i].elastic and excess > 0:
            cut = min(excess, sizes[place] - max(columns[i].width, 1))
            sizes[place] -= cut
            excess -= cut
    if excess > 0 and len(kept) == 1:
        return [max(1, width)]
    return None if excess > 0 else sizes


def _row(cells: Sequence[Tuple[Column, Cell]], sizes: Sequence[int], ellipsis: str) -> Line:
    line: List[Cell] = []
    for (column, cell), size in zip(cells, sizes):
        if line:
            line.append(Cell(_GAP))
        line.append(Cell(format(clip(cell.text, size, ellipsis), f"{column.align}{size}"), cell.style))
    return line


def clip(text: str, width: int, ellipsis: str) -> str:
    """Cut a text to `width` characters, and show that something is missing."""
    if len(text) <= width:
        return text
    return text[: max(0, width - len(ellipsis))] + ellipsis[: max(0, width)]


def plain(line: Line) -> str:
    """Return a line without its styles."""
    return "".join(cell.text for cell in line).rstrip()
