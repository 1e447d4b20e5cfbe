"""Faults from data: a scenario file (JSON, TOML) or a command line."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, Dict, List, Mapping, Type

from . import faults, stream_faults
from .faults import Fault
from .rules import RULES

_CLASSES = (
    faults.Blackhole,
    faults.CloseAfter,
    faults.Empty,
    faults.ErrorBody,
    faults.GarbageJson,
    faults.Hang,
    faults.Html,
    faults.Ok,
    faults.Raw,
    faults.Redirect,
    faults.Refuse,
    faults.Reset,
    faults.Status,
    stream_faults.Stream,
    stream_faults.StreamCut,
    stream_faults.StreamError,
    stream_faults.StreamGarbage,
    stream_faults.StreamStall,
    faults.Trickle,
    faults.Truncate,
    faults.WrongLength,
)
_BY_NAME: Dict[str, Type[Fault]] = {re.sub(r"(?<!^)(?=[A-Z])", "_", c.__name__).lower(): c for c in _CLASSES}


def fault_from(data: Mapping[str, Any]) -> Fault:
    """Build a fault from JSON-like data: ``{"fault": "status", "code": 503, "headers": {"Retry-After": "2"}}``.

    ``"fault"`` is the snake_case name of the class, everything else its fields. Raises ``ValueError`` naming the
    field, its value and what is allowed.
    """
    cls = _class_named(data.get("fault"))
    given = {name: value for name, value in data.items() if name != "fault"}
    names = _field_names(cls)
    for name, value in given.items():
        if name not in names:
            raise ValueError(f"{data['fault']}.{name}: {value!r} has no field to go to; {_allowed(names)}")
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING and field.name not in given:
            raise ValueError(f"{data['fault']}.{field.name}: missing; it is {RULES[field.name].allowed}")
    if isinstance(given.get("data"), str):  # JSON has no bytes
        given["data"] = given["data"].encode()
    return cls(**given)


def parse_fault(text: str) -> Fault:
    """Build a fault from a word on a command line: ``hang``, ``status:503``, ``status:429,retry-after=2``.

    What follows the colon is the fault's first field. After a comma, ``name=value`` sets a field, or, when the
    name has a dash, a response header. Raises ``ValueError`` as :func:`fault_from` does.
    """
    head, *settings = text.split(",")
    name, colon, first = head.strip().partition(":")
    cls = _class_named(name)
    names = _field_names(cls)
    data: Dict[str, Any] = {"fault": name}
    headers: Dict[str, str] = {}
    if colon:
        if not names:
            raise ValueError(f"{name}: {first!r} has no field to go to; {_allowed(names)}")
        data[names[0]] = _value(names[0], first)
    for setting in settings:
        key, equals, value = setting.strip().partition("=")
        if not equals:
            raise ValueError(f"{name}: {setting!r} is not name=value")
        if "-" in key and "headers" in names:
            headers[key.title()] = value
        else:
            data[key] = _value(key, value)
    if headers:
        data["headers"] = headers
    return fault_from(data)


def _class_named(name: object) -> Type[Fault]:
    cls = _BY_NAME.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"fault: {name!r} is not one of {', '.join(_BY_NAME)}")
    return cls


def _field_names(cls: Type[Fault]) -> List[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _allowed(names: List[str]) -> str:
    return f"allowed: {', '.join(names)}" if names else "it takes none"


def _value(field: str, text: str) -> Any:
    """Read a field that may be text as text, any other as JSON."""
    rule = RULES.get(field)
    if rule is None or rule.accepts(text) or field == "data":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # the fault's own rule words the error
