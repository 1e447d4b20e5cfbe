"""What a process tells its peers of an endpoint, and what has to be right with it before it is believed."""

import json
import math
from typing import Any, Dict

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from syncfailover.policy.entry import (
    BREAKER,
    HEALTH,
    KEY,
    KINDS,
    LARGEST,
    LONGEST_S,
    MODELS,
    RESTS,
    SKEW_S,
    STRIKES,
    Entry,
    Poisoned,
    decoded,
    encoded,
    gist,
    pairs_of,
    shown,
)
from syncfailover.policy.health import HealthStatus
from syncfailover.policy.sharing import Gossip, identity

NOW = 1_800_000_000.0

#: A value of each kind as it is told, and as it is read.
TOLD: Dict[str, Dict[str, Any]] = {
    HEALTH: {
        "status": "degraded",
        "good": 3,
        "bad": 0,
        "failed": True,
        "detail": "HTTP 200",
        "latency_ms": 7.5,
    },
    BREAKER: {"open": True, "until": NOW + 30, "since": NOW - 2, "trials": 1, "reason": "HTTP 503"},
    STRIKES: {"failures": 2, "since": NOW - 1},
    KEY: {"until": NOW + 3600, "by_probe": False, "reason": "HTTP 401"},
    RESTS: {"pairs": [["gpt-4.1", NOW - 1, NOW + 5, 2], [None, NOW - 3, NOW + 9, 1]]},
}
READ = {
    **TOLD,
    HEALTH: {**TOLD[HEALTH], "status": HealthStatus.DEGRADED},
    RESTS: {"pairs": [tuple(pair) for pair in TOLD[RESTS]["pairs"]]},
}


def data(kind: str, /, found: Any = NOW, forgotten: Any = NOW + 60, **changes: Any) -> bytes:
    """Make what a store keeps: something right, but for what is changed."""
    return json.dumps([found, forgotten, {**TOLD[kind], **changes}]).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_told_is_read(kind: str) -> None:
    """Times, end and value come back as they were."""
    entry = Entry("id", kind, NOW, NOW + 60, TOLD[kind])
    assert decoded("id", kind, encoded(entry), NOW) == entry._replace(value=READ[kind])


def test_a_breaker_that_is_closed_needs_no_more_to_be_said() -> None:
    """Of CLOSED only that is told, and whatever else stands there is not read."""
    entry = decoded("id", BREAKER, data(BREAKER, open=False, until="never"), NOW)
    assert entry.value == {"open": False}


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        (HEALTH, "status", ["well", None, 1, [], {}, "HEALTHY"]),
        (HEALTH, "good", [-1, 1.0, True, "1", None, 10**10]),
        (HEALTH, "bad", [-1, 2.5, False, [], 10**400]),
        (HEALTH, "failed", [0, 1, "true", None]),
        (HEALTH, "detail", [None, 5, ["HTTP 200"]]),
        (HEALTH, "latency_ms", ["7", True, math.nan, math.inf, -1.0, 1e12]),
        (BREAKER, "open", [1, 0, None, "yes"]),
        (BREAKER, "until", [None, "soon", math.inf, -math.inf, math.nan, True, 10**300]),
        (BREAKER, "since", [None, NOW + SKEW_S + 1, [], -1e10]),
        (BREAKER, "trials", [-1, 0.5, None]),
        (BREAKER, "reason", [None, 503, {}]),
        (STRIKES, "failures", [-1, 1.5, "2", None]),
        (STRIKES, "since", [None, NOW + SKEW_S + 1, math.nan]),
        (KEY, "until", [None, "", math.inf]),
        (KEY, "by_probe", [None, 0, "no"]),
        (KEY, "reason", [None, 1]),
        (RESTS, "pairs", [None, {}, "ab", [[]], [["m", NOW, NOW]], [["m", NOW, NOW, 1, 1]], ["mnop"]]),
        (RESTS, "pairs", [[[1, NOW, NOW, 1]], [["m" * 201, NOW, NOW, 1]], [["m", "", NOW, 1]]]),
        (RESTS, "pairs", [[["m", NOW, None, 1]], [["m", NOW, NOW, -1]], [["m", NOW + 60, NOW, 1]]]),
        (RESTS, "pairs", [[["m", NOW, NOW, 1]] * (MODELS + 1)]),
    ],
)
def test_a_field_that_cannot_be_right_poisons_the_entry(kind: str, field: str, values: Any) -> None:
    """The wrong type, range, length or time is refused, and so is a field that is missing."""
    for value in values:
        with pytest.raises(Poisoned):
            decoded("id", kind, data(kind, **{field: value}), NOW)
    told = {name: value for name, value in TOLD[kind].items() if name != field}
    with pytest.raises(Poisoned, match=f"{field} is missing"):
        decoded("id", kind, json.dumps([NOW, NOW + 60, told]).encode(), NOW)


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ({"found": NOW + SKEW_S + 1}, "future"),
        ({"forgotten": NOW + LONGEST_S + 60}, "too long"),
        ({"found": NOW - LONGEST_S, "forgotten": NOW + 60}, "too long"),
        ({"found": None}, "at is no number"),
        ({"found": math.nan}, "at is no number"),
        ({"forgotten": math.inf}, "until is no number"),
        ({"forgotten": "9"}, "until is no number"),
    ],
)
def test_times_that_cannot_be_right_poison_the_entry(times: Dict[str, Any], why: str) -> None:
    """Nothing comes from the future, or is to be remembered for longer than anything is."""
    with pytest.raises(Poisoned, match=why):
        decoded("id", HEALTH, data(HEALTH, **times), NOW)


@pytest.mark.parametrize("offset_s", [-60.0, 0.0, SKEW_S - 0.1])
def test_a_clock_may_be_a_little_off(offset_s: float) -> None:
    """What was found out before now, or a few seconds after it, is believed."""
    assert decoded("id", KEY, data(KEY, NOW + offset_s), NOW).at == NOW + offset_s


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"3",
        b"[]",
        b"[1,2]",
        b"[1,2,3,4]",
        b'"abc"',
        b'{"a":1,"b":2,"c":3}',
        b"[1,2,{}",
        b"[" * 4000,
        b"[1e999,2,{}]",
        b"[" + b"9" * 5000 + b",2,{}]",
        b"[1,2,[]]",
        b'[1,2,"value"]',
        b" " * (LARGEST + 1),
        bytes(10_000_000),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_entry_is_poison(raw: bytes, kind: str) -> None:
    """Ten megabytes, half an object, another shape, numbers without end: all are refused in the same way."""
    with pytest.raises(Poisoned):
        decoded("id", kind, raw, NOW)


@pytest.mark.parametrize("kind", ["", "healthy", "HEALTH", "lease", "\0"])
def test_an_unknown_kind_is_poison(kind: str) -> None:
    """Only the kinds that there are can be read."""
    with pytest.raises(Poisoned, match="unknown kind"):
        decoded("id", kind, data(HEALTH), NOW)


def test_why_it_is_poison_shows_nothing_of_it() -> None:
    """The text of an entry that somebody has written there does not get into a log."""
    for raw in (
        b'["evil", 2, {}]',
        data(HEALTH, detail=7, status="evil"),
        b"evil",
        data(HEALTH, "evil"),
    ):
        with pytest.raises(Poisoned) as caught:
            decoded("id", HEALTH, raw, NOW)
        assert "evil" not in str(caught.value)


def test_a_reason_is_one_short_line() -> None:
    """Line breaks, control characters and half characters become spaces; what is too long is cut."""
    assert shown("a\nb\r\x1b[31mc\ud800d\u2028e") == "a b  [31mc d e"
    assert len(shown("x" * 10_000)) == 200


@pytest.mark.parametrize("model", ["m" * 200, "\U0001f600" * 200, '"\\' * 100, "\x00" * 200, None])
def test_any_number_of_pauses_fits_into_an_entry(model: Any) -> None:
    """Of too many, or too long ones, those are told that last longest."""
    pairs = [(model and f"{n}{model}"[:200], NOW - n / 7, NOW + n / 3, n) for n in range(100)]
    value = {"pairs": pairs_of(pairs)}
    raw = encoded(Entry("id", RESTS, NOW, NOW + 60, value))
    assert len(raw) <= LARGEST
    read = decoded("id", RESTS, raw, NOW).value["pairs"]
    assert read
    assert len(read) <= MODELS
    assert [pair[2] for pair in read] == [round(NOW + n / 3, 6) for n in range(99, 99 - len(read), -1)]


def test_models_whose_names_are_too_long_are_not_told() -> None:
    """A name that peers would refuse does not spoil the rest."""
    value = {"pairs": pairs_of([("x" * 201, NOW, NOW + 9, 1), ("m", NOW, NOW + 5, 1)])}
    read = decoded("id", RESTS, encoded(Entry("id", RESTS, NOW, NOW + 60, value)), NOW)
    assert [pair[0] for pair in read.value["pairs"]] == ["m"]


@pytest.mark.parametrize(
    ("kind", "changes", "is_news"),
    [
        (HEALTH, {"latency_ms": 9.0, "good": 4}, False),
        (HEALTH, {"status": "unhealthy"}, True),
        (BREAKER, {"until": NOW + 60, "trials": 2}, False),
        (BREAKER, {"open": False}, True),
        (STRIKES, {"failures": 1}, False),
        (KEY, {"until": NOW + 7200}, False),
        (KEY, {"until": 0.0}, True),
        (RESTS, {"pairs": [[None, NOW, NOW + 7, 1], ["gpt-4.1", NOW, NOW + 8, 3]]}, False),
        (RESTS, {"pairs": [["gpt-4.1", NOW, NOW + 8, 3]]}, True),
        (RESTS, {"pairs": [[None, NOW, NOW + 7, 1], ["gpt-4.1", NOW, 0.0, 0]]}, True),
    ],
)
def test_what_peers_have_to_hear_at_once(kind: str, changes: Dict[str, Any], is_news: bool) -> None:
    """A change of state has another gist; more of the same has not."""
    old = Entry("id", kind, NOW, NOW + 60, TOLD[kind])
    new = old._replace(value={**TOLD[kind], **changes})
    assert (gist(old) != gist(new)) is is_news


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["open", "healthy", "gpt-4.1", NOW, NOW + 5, NOW - 60, 10**400, 0, -1, "x" * 300]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=10,
)


_TIMES = st.floats(NOW - 1e5, NOW + 1e5) | st.sampled_from([0, NOW, NOW + SKEW_S, NOW - 60, 1e10, -1e9])
_SINCES = st.floats(NOW - 1e5, NOW - 600) | st.sampled_from([0, NOW - 600, -1e9])
_COUNTS = st.integers(0, 10**9) | st.integers(0, 5)
_MODELS = st.none() | st.text(max_size=20) | st.just("gpt-4.1")
#: By field, what it may hold.
_FIELDS: Dict[str, Any] = {
    "status": st.sampled_from([status.value for status in HealthStatus]),
    "latency_ms": st.none() | st.floats(0, 1e9),
    "until": _TIMES,
    "since": _SINCES,
    "pairs": st.lists(st.tuples(_MODELS, _SINCES, _TIMES, _COUNTS), max_size=5),
    **dict.fromkeys(("failed", "open", "by_probe"), st.booleans()),
    **dict.fromkeys(("good", "bad", "trials", "failures"), _COUNTS),
    **dict.fromkeys(("detail", "reason"), st.text(max_size=300)),
}


@st.composite
def poisons(draw: Any) -> Any:
    """Draw a kind and bytes: anything, or something that may be right but for a part or two."""
    kind = draw(st.sampled_from(KINDS))
    shape = draw(st.integers(0, 9))
    if shape == 0:
        return kind, draw(st.binary(max_size=60) | _json.map(lambda any_: json.dumps(any_).encode()))
    found = NOW + draw(st.floats(-600, SKEW_S))
    whole = [found, found + draw(st.floats(0, LONGEST_S)), {f: draw(_FIELDS[f]) for f in TOLD[kind]}]
    if shape == 1:
        whole[draw(st.integers(0, 2))] = draw(_json)
    elif shape <= 4:
        whole[2][draw(st.sampled_from(sorted(TOLD[kind])))] = draw(_json)
    return kind, json.dumps(whole).encode()


@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(poisons())
@example((HEALTH, data(HEALTH)))
@example((BREAKER, data(BREAKER, trials=10**9, until=-1e9)))
@example((RESTS, data(RESTS, pairs=[[None, -1e9, 1e10, 10**9]])))
def test_nothing_that_is_read_harms_a_pool(bench: Any, poison: Any) -> None:
    """Whatever stands in a store is refused in the one way there is, or heard without harm and forgotten in time."""
    kind, raw = poison
    known = bench("a")
    pool, endpoint = known.pool, identity(known.pool.endpoints[0])
    try:
        entry = decoded(endpoint, kind, raw, NOW)
    except Poisoned:
        return
    gossip, offset = Gossip(pool, lambda: 0.5), NOW - known.clock()
    assert gossip.hear([entry], known.clock(), offset) == []
    known.begin("gpt-4.1")
    told = gossip.tell(known.clock(), offset)
    assert all(decoded(*told_[:2], encoded(told_), NOW) for told_ in told)
    known.clock.advance(LONGEST_S)
    assert pool.snapshot(known.clock())["a"].eligible
