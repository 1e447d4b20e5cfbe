"""The openai package's own types as judges of a shape."""

from typing import Any


def check(kind: str, shown: Any) -> None:
    """Hold an object of ours to the package's type of that name: it must parse, and come back as it was."""
    from openai import types  # noqa: PLC0415 - only the judges' runs have the package
    from openai.types import chat, responses  # noqa: PLC0415
    from pydantic import TypeAdapter  # noqa: PLC0415

    raw = shown.to_dict()
    places = (chat, responses, types)
    adapter = TypeAdapter(next(getattr(place, kind) for place in places if hasattr(place, kind)))
    assert adapter.dump_python(adapter.validate_python(raw), exclude_unset=True) == raw


def text_of(stream: Any) -> str:
    """Read a chat's stream as its reader must, holding every chunk to its type, and return the text."""
    text = ""
    for chunk in stream:
        check("ChatCompletionChunk", chunk)
        text = "" if chunk.restarted else text + chunk.text
    return text
