"""One thing that a process tells its peers of an endpoint, and the checks that what is read has to pass.

Whoever can write to the store could write anything. So every value is checked before it is believed: its type, its
range, its length, and that it does not come from the future.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from math import isfinite
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from .health import HealthStatus

#: The kinds of entries.
HEALTH, BREAKER, STRIKES, KEY, RESTS = KINDS = ("health", "breaker", "strikes", "key", "rests")

#: Bytes of an entry at most.
LARGEST = 8192
#: Seconds that clocks may differ before an entry comes from the future.
SKEW_S = 5.0
#: Seconds for which anything may be remembered at most: no key rests longer.
LONGEST_S = 7 * 3600.0
#: Characters of a reason, and models whose pauses are told of one endpoint.
_LONGEST_REASON, MODELS = 200, 32
#: Bytes of an entry of pauses, at most, beside the pauses.
_FRAME = 200
_MOST = 1e9


class Entry(NamedTuple):
    """What was found out of an endpoint."""

    #: The endpoint's identity among peers.
    endpoint: str
    kind: str
    #: When it was found out, in seconds on the peers' common clock.
    at: float
    #: When it is to be forgotten, on the same clock.
    until: float
    value: Dict[str, Any]


class Poisoned(ValueError):
    """An entry that cannot be believed; the text says why, and shows nothing of it."""


def encoded(entry: Entry) -> bytes:
    """Return everything but whose and of what kind it is, as a store keeps it."""
    return json.dumps(
        [round(entry.at, 6), round(entry.until, 6), entry.value], separators=(",", ":")
    ).encode()


def gist(entry: Entry) -> str:
    """Return what of an entry has to differ from the last one for peers to be told at once; empty if nothing has to."""
    value = entry.value
    if entry.kind == HEALTH:
        return str(value["status"])
    if entry.kind == BREAKER:
        return "open" if value["open"] else "closed"
    if entry.kind == KEY:
        return "rests" if value["until"] > entry.at else "used"
    if entry.kind == RESTS:
        models = repr(sorted(str(model) for model, _since, until, _nth in value["pairs"] if until))
        return blake2b(models.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return ""


def decoded(endpoint: str, kind: str, data: bytes, now: float) -> Entry:
    """Read and check what a store kept.

    Args:
        endpoint: whose it is.
        kind: one of `KINDS`.
        data: as `encoded` made it.
        now: on the peers' common clock.

    Raises:
        Poisoned: it cannot be believed.

    """
    if kind not in _CHECKS:
        raise Poisoned("it is of an unknown kind")
    if len(data) > LARGEST:
        raise Poisoned(f"{len(data)} bytes, more than {LARGEST}")
    try:
        at, until, value = json.loads(data)
    except (ValueError, TypeError, RecursionError):
        raise Poisoned("no entry at all") from None
    at, until = _seconds("at", at), _seconds("until", until)
    if at > now + SKEW_S:
        raise Poisoned("it comes from the future")
    if until > at + LONGEST_S + 1.0:
        raise Poisoned("it is to last too long")
    if not isinstance(value, Mapping):
        raise Poisoned("its value is no object")
    try:
        checked = _CHECKS[kind](value)
    except KeyError as error:
        raise Poisoned(f"{error.args[0]} is missing") from None
    if any(since > at + SKEW_S for since in (checked.get("since", at), *_sinces(checked.get("pairs", ())))):
        raise Poisoned("it was found out before it began")
    return Entry(endpoint, kind, at, until, checked)


def shown(reason: Any) -> str:
    """Return a reason as it may be told and logged: short, in one line."""
    if not isinstance(reason, str):
        raise Poisoned("its reason is no text")
    return "".join(c if c.isprintable() else " " for c in reason[:_LONGEST_REASON])


def _health(value: Mapping[str, Any]) -> Dict[str, Any]:
    try:
        status = HealthStatus(value["status"])
    except ValueError:
        raise Poisoned("an unknown status") from None
    latency_ms = None if value["latency_ms"] is None else _seconds("latency_ms", value["latency_ms"])
    if latency_ms is not None and latency_ms < 0:
        raise Poisoned("a latency of less than nothing")
    return {
        "status": status,
        "good": _count("good", value["good"]),
        "bad": _count("bad", value["bad"]),
        "failed": _flag("failed", value["failed"]),
        "detail": shown(value["detail"]),
        "latency_ms": latency_ms,
    }


def _breaker(value: Mapping[str, Any]) -> Dict[str, Any]:
    if not _flag("open", value["open"]):
        return {"open": False}
    return {
        "open": True,
        "until": _seconds("until", value["until"]),
        "since": _seconds("since", value["since"]),
        "trials": min(_count("trials", value["trials"]), 100),
        "reason": shown(value["reason"]),
    }


def _strikes(value: Mapping[str, Any]) -> Dict[str, Any]:
    return {"failures": _count("failures", value["failures"]), "since": _seconds("since", value["since"])}


def _key(value: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        "until": _seconds("until", value["until"]),
        "by_probe": _flag("by_probe", value["by_probe"]),
        "reason": shown(value["reason"]),
    }


def _rests(value: Mapping[str, Any]) -> Dict[str, Any]:
    pairs = value["pairs"]
    if not isinstance(pairs, list) or len(pairs) > MODELS:
        raise Poisoned("its pairs are no list, or too many")
    return {"pairs": [_rest(pair) for pair in pairs]}


def _rest(pair: Any) -> Tuple[Optional[str], float, float, int]:
    if not isinstance(pair, list) or len(pair) != 4:
        raise Poisoned("a pair that is none")
    model, since, until, nth = pair
    if not _is_model(model):
        raise Poisoned("a model that is no name")
    return model, _seconds("since", since), _seconds("until", until), min(_count("nth", nth), 10)


def _is_model(model: Any) -> bool:
    return model is None or (isinstance(model, str) and len(model) <= _LONGEST_REASON)


def _sinces(pairs: Iterable[Tuple[Optional[str], float, float, int]]) -> List[float]:
    return [since for _model, since, _until, _nth in pairs]


_CHECKS: Dict[str, Any] = dict(zip(KINDS, (_health, _breaker, _strikes, _key, _rests)))


def _seconds(name: str, value: Any) -> float:
    ok = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (ok and -_MOST <= value <= 10 * _MOST and isfinite(value)):
        raise Poisoned(f"{name} is no number that could be right")
    return float(value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise Poisoned(f"{name} is no count")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Poisoned(f"{name} is neither true nor false")
    return value


def pairs_of(rests: List[Tuple[Optional[str], float, float, int]]) -> List[List[Any]]:
    """Return pauses as an entry holds them: those that last longest, if there are too many."""
    pairs: List[List[Any]] = []
    room = LARGEST - _FRAME
    for model, since, until, nth in sorted(rests, key=lambda rest: -rest[2]):
        pair = [model, round(since, 6), round(until, 6), nth]
        room -= len(json.dumps(pair))
        if len(pairs) < MODELS and room >= 0 and _is_model(model):
            pairs.append(pair)
    return pairs
