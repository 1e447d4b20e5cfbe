"""Text that grows by thousands of pieces."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from syncfailover.completion.rope import Rope


def rope_of(pieces):
    """Return a rope of pieces."""
    rope = Rope()
    for piece in pieces:
        rope.append(piece)
    return rope


@given(st.lists(st.text(), max_size=20), st.lists(st.text(), max_size=20), st.integers(0, 1024))
def test_the_text_is_all_pieces_in_order(first, second, between):
    """Whatever was appended, and however often the whole was asked for, the text is all of it in order."""
    rope = rope_of([*first, *["x"] * between])
    assert rope.text == rope.whole() == "".join(first) + "x" * between
    for piece in second:
        rope.append(piece)
    assert rope.text == "".join([*first, "x" * between, *second])


def test_an_emoji_cut_in_two_is_whole():
    """A character whose halves come in two pieces is itself, also where the whole was asked for in between."""
    rope = rope_of(["so: ", "\ud83d"])
    assert rope.text == rope.whole() == "so: �"
    rope.append("\ude00")
    assert rope.text == rope.whole() == "so: 😀"


def test_it_is_empty_until_something_is_appended():
    """A rope is false until the first piece, which may be empty; asking for its text changes nothing about that."""
    nothing = Rope()
    assert nothing.text == nothing.whole() == ""
    assert not nothing
    assert rope_of([""])
    assert rope_of(["x"] * 1024)


def test_many_short_pieces_take_little_more_than_their_text():
    """A hundred thousand pieces, each a string of its own, take their text and a tenth of it; the whole is one string."""
    rope = rope_of(f"{n:08} " for n in range(100_000))
    held = rope._strands + rope._pieces
    assert sum(map(sys.getsizeof, held)) < 1.1 * 900_000
    assert rope.whole() is rope._strands[0]
    assert not rope._pieces
