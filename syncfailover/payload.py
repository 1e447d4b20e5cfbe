"""A call's payload, as JSON: serialized once for all its attempts, whatever name each endpoint has for the model."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

from .extras import is_unset
from .validation import reject


def _plain(value: Any) -> Any:
    """Turn into JSON what a reply of ours, or of another SDK, is made of."""
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain)
_SORTED = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain, sort_keys=True)


def rest_of(params: Dict[str, Any]) -> bytes:
    """Serialize a payload but for its model.

    Raises:
        ConfigurationError: it holds what JSON cannot; the message names the field.

    """
    try:
        return b"," + _ENCODER.encode(params).encode()[1:] if params else b"}"
    except (TypeError, ValueError, RecursionError) as error:
        given = {name: value for name, value in params.items() if not is_unset(value)}
        if len(given) < len(params):
            return rest_of(given)
        for name, value in params.items():
            try:
                _ENCODER.encode({name: value})
            except (TypeError, ValueError, RecursionError):
                allowed = f"what JSON can hold ({error})"
                raise reject(str(name), Shown(value), allowed) from None
        raise reject("payload", Shown(params), f"what JSON can hold ({error})") from None


def body_of(model: Optional[str], rest: bytes) -> bytes:
    """Return the JSON object that names a model, with the rest of its payload as `rest_of` gives it."""
    return b'{"model":' + _ENCODER.encode(model).encode() + rest


def canonical(value: Any) -> bytes:
    """Serialize a part of a payload so that equal ones give equal bytes, in whatever order their fields are.

    Raises:
        ConfigurationError: it holds what JSON cannot.

    """
    try:
        try:
            return _SORTED.encode(value).encode()
        except TypeError:  # names that are not all texts have no order; in JSON they are
            return _SORTED.encode(json.loads(_ENCODER.encode(value))).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise reject("payload", Shown(value), f"what JSON can hold ({error})") from None


class Shown:
    """A value's repr, bounded: a payload may be megabytes."""

    def __init__(self, value: object) -> None:
        try:
            self._text = repr(value)
        except Exception:  # noqa: BLE001 - it is the caller's, and may be what is wrong
            self._text = type(value).__name__

    def __repr__(self) -> str:
        return self._text if len(self._text) <= 200 else self._text[:200] + "..."
