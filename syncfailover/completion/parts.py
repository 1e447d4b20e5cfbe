"""Ways to put one field together again, out of what chunk after chunk says of it.

An object of the wire is a table (`Pieces.kinds`): which field is put together in which way. All of it is a stranger's
JSON: null and what is of a wrong type count as not sent, and nothing here raises.
"""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Protocol, Tuple, Type, Union

from .rope import Rope

Takes = Union[Type[Any], Tuple[Type[Any], ...]]
Kinds = Mapping[str, Callable[[], "Part"]]

#: A name that is longer takes no more pieces; OpenAI allows 64 characters.
MAX_NAME = 1024


def dicts(value: Any) -> List[Dict[str, Any]]:
    """Return the objects in a list; none where it is no list."""
    return [item for item in value if type(item) is dict] if type(value) is list else []


def string(value: Any) -> str:
    """Return a string; empty where it is none."""
    return value if type(value) is str else ""


def integer(value: Any) -> int:
    """Return a whole number; 0 where it is no number."""
    if type(value) is float and abs(value) < 2**53:  # some servers send a time with its fraction
        return int(value)
    return value if type(value) is int else 0


class Part(Protocol):
    """One field, put together."""

    #: A value of another type counts as not sent.
    takes: ClassVar[Takes]

    def add(self, value: Any) -> None:
        """Take in a value, of a type that it takes."""

    def whole(self) -> Any:
        """Return what there is so far; None for nothing."""


class Ignored:
    """A field that only the stream needs."""

    __slots__ = ()
    takes: ClassVar[Takes] = ()

    def add(self, value: Any) -> None:
        """Take in nothing."""

    def whole(self) -> None:
        """Return nothing."""


class Field:
    """A field without a rule of its own: lists grow; of all else the last stays, and emptiness replaces nothing."""

    __slots__ = ("_value",)
    takes: ClassVar[Takes] = object

    def __init__(self) -> None:
        self._value: Any = None

    def add(self, value: Any) -> None:
        """Take in a value."""
        if type(value) is list and type(self._value) is list:
            self._value.extend(value)
        elif value or not self._value:
            self._value = value[:] if type(value) is list else value

    def whole(self) -> Any:
        """Return the value; a list is the caller's own."""
        return self._value[:] if type(self._value) is list else self._value


class First:
    """A string that is sent once, or again and again: an id, a role."""

    __slots__ = ("_value",)
    takes: ClassVar[Takes] = str

    def __init__(self) -> None:
        self._value = ""

    def add(self, value: str) -> None:
        """Keep the first that is not empty."""
        self._value = self._value or value

    def whole(self) -> Optional[str]:
        """Return it."""
        return self._value or None


class Last(First):
    """A string of which the last counts: why a choice ended."""

    __slots__ = ()

    def add(self, value: str) -> None:
        """Keep the last that is not empty."""
        self._value = value or self._value


class Name(First):
    """A function's name. OpenAI sends it once; others repeat it, let it grow, or send it in pieces."""

    __slots__ = ()

    def add(self, value: str) -> None:
        """Take in the name so far, or one more piece of it."""
        if value.startswith(self._value):
            self._value = value
        elif len(self._value) < MAX_NAME:
            self._value += value


class Number:
    """A whole number of which the last counts."""

    __slots__ = ("_value",)
    takes: ClassVar[Takes] = (int, float)

    def __init__(self) -> None:
        self._value = 0

    def add(self, value: float) -> None:
        """Keep the last."""
        self._value = integer(value)

    def whole(self) -> int:
        """Return it."""
        return self._value


class Text:
    """Text in pieces, which may be kept in a rope that somebody else appends to as well."""

    __slots__ = ("_rope",)
    takes: ClassVar[Takes] = str

    def __init__(self, rope: Optional[Rope] = None) -> None:
        self._rope = Rope() if rope is None else rope

    def add(self, value: Any) -> None:
        """Append a piece."""
        self._rope.append(value)

    def whole(self) -> str:
        """Return the text."""
        return self._rope.whole()


class Content(Text):
    """A message's text: strings, or lists of typed parts (Mistral), of which the text counts."""

    __slots__ = ()
    takes: ClassVar[Takes] = (str, list)

    def add(self, value: Any) -> None:
        """Append a string, or the text in a list."""
        if type(value) is not list:
            self._rope.append(value)
            return
        texts = (part.get("text") if type(part) is dict else part for part in value)
        for text in texts:
            if type(text) is str:
                self._rope.append(text)


class Items:
    """A list in pieces."""

    __slots__ = ("_items",)
    takes: ClassVar[Takes] = list

    def __init__(self) -> None:
        self._items: List[Any] = []

    def add(self, value: List[Any]) -> None:
        """Append a piece."""
        self._items.extend(value)

    def whole(self) -> List[Any]:
        """Return the list, which is the caller's own."""
        return self._items[:]


class Objects(Items):
    """A list of objects, in pieces."""

    __slots__ = ()

    def add(self, value: List[Any]) -> None:
        """Append the objects of a piece."""
        self._items.extend(dicts(value))


class Pieces:
    """An object in pieces: every field is put together for itself."""

    __slots__ = ("parts",)
    takes: ClassVar[Takes] = dict

    #: How to put together which field; all others are a `Field`.
    kinds: ClassVar[Kinds] = {}
    #: What is there as soon as anything is.
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        self.parts: Dict[str, Part] = {}

    def add(self, value: Dict[str, Any]) -> None:
        """Take in a piece."""
        parts = self.parts
        for name, said in value.items():
            if said is None:
                continue
            part = parts.get(name) or self.kinds.get(name, Field)()
            if isinstance(said, part.takes):
                parts[name] = part
                part.add(said)

    def whole(self) -> Optional[Dict[str, Any]]:
        """Return the object; None where nothing was ever sent of it."""
        wholes = ((name, part.whole()) for name, part in self.parts.items())
        said = {name: whole for name, whole in wholes if whole is not None}
        return {**self.defaults, **said} if said else None
