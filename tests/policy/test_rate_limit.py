"""Rate limit headers: every form that providers send is read, and nothing else is believed."""

import time
from typing import Any, Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from syncfailover.policy.rate_limit import Room, room

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def read(call_tokens: float = 0.0, **fields: str) -> Optional[Room]:
    """Read headers, written short: remaining_requests="3"."""
    headers = {f"X-RateLimit-{name.replace('_', '-').title()}": value for name, value in fields.items()}
    return room(CaseInsensitiveDict(headers), NOW, call_tokens)


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("20ms", 0.02),
        ("6m0s", 360.0),
        ("1m30.5s", 90.5),
        ("59.56s", 59.56),
        ("45m12s", 2712.0),
        ("30", 30.0),
        ("0.5", 0.5),
        (" 30 ", 30.0),
        ("1700000042", 42.0),
        ("1700000042.5", 42.5),
        ("1700000042000", 42.0),
        ("2023-11-14T22:14:02Z", 42.0),
        ("2023-11-14T22:14:02+00:00", 42.0),
        ("2023-11-14T23:14:02+01:00", 42.0),
        ("2023-11-14T22:14:02.123Z", 42.0),
        ("2023-11-14T22:14:02.123456789Z", 42.0),
        ("2023-11-14T22:14:02", 42.0),
        ("Tue, 14 Nov 2023 22:14:02 GMT", 42.0),
        ("24h0m0s", 3600.0),
        ("7d", 3600.0),
        ("99999", 3600.0),
        ("9999-12-31T23:59:59-23:59", 3600.0),
        ("9" * 40 + "s", 3600.0),
    ],
)
def test_a_reset_is_read(reset: str, seconds: float) -> None:
    """Durations, seconds, moments and dates; at most an hour is believed."""
    left = read(remaining_requests="0", reset_requests=reset)
    assert left is not None
    assert left.reset_s == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize(
    "reset",
    [
        None,
        "",
        "0",
        "0s",
        "-5",
        "nan",
        "inf",
        "soon",
        "1x",
        "1 s",
        "s",
        "-1s",
        "1e400",
        "1600000000",
        "2020-01-01T00:00:00Z",
        "1970-01-02T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "2023-13-45T99:99:99Z",
        "Tue, 99 Foo 2023",
        "9" * 65,
        "1s" * 40,
    ],
)
def test_a_reset_that_says_nothing_is_a_second(reset: Optional[str]) -> None:
    """Absent, garbled, past or infinite: little is left for a moment, then it is tried again."""
    fields = {} if reset is None else {"reset_requests": reset}
    left = read(remaining_requests="0", **fields)
    assert left is not None
    assert left.reset_s == 1.0


@pytest.mark.parametrize(
    ("fields", "little"),
    [
        ({"remaining_requests": "0"}, True),
        ({"remaining_requests": "4", "limit_requests": "100"}, True),
        ({"remaining_requests": "5", "limit_requests": "100"}, False),
        ({"remaining_requests": "60", "limit_requests": "nonsense"}, False),
        ({"remaining_tokens": "0"}, True),
        ({"remaining_tokens": "99"}, True),
        ({"remaining_tokens": "100"}, False),
        ({"remaining_tokens": "400", "limit_tokens": "10000"}, True),
        ({"remaining_requests": "60", "remaining_tokens": "10"}, True),
        ({"remaining_requests": "-1", "remaining_tokens": "5000"}, False),
    ],
)
def test_little_is_a_twentieth_or_less_than_a_call_needs(fields: Any, little: bool) -> None:
    """Of requests or tokens, whichever is scarcer; this call used a hundred tokens."""
    left = read(100.0, **fields)
    assert left is not None
    assert left.little is little


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"limit_requests": "100", "reset_requests": "1s"},
        {"remaining_requests": ""},
        {"remaining_requests": "-1"},
        {"remaining_requests": "nan", "remaining_tokens": "inf"},
        {"remaining_requests": "many"},
        {"remaining_requests": "5, 5"},
        {"remaining_requests": "1" * 5000},
    ],
)
def test_headers_that_say_nothing_are_none(fields: Any) -> None:
    """Absent, empty, negative (some write -1 for no limit), endless or garbled."""
    assert read(**fields) is None


def test_calls_left_are_counted_in_whatever_is_scarcer() -> None:
    """Nine requests, but tokens for three such calls: three."""
    fields = {
        "remaining_requests": "9",
        "reset_requests": "50s",
        "remaining_tokens": "300",
        "reset_tokens": "7s",
    }
    left = read(100.0, **fields)
    assert left == Room(3.0, little=False, reset_s=7.0)
    assert [left.is_scarce(in_flight) for in_flight in (0, 1, 2)] == [False, False, True]


def test_what_is_full_later_counts() -> None:
    """With little left of both it is the later reset."""
    left = read(remaining_requests="0", reset_requests="3s", remaining_tokens="0", reset_tokens="9s")
    assert left == Room(0.0, little=True, reset_s=9.0)


def test_a_hostile_header_costs_no_time() -> None:
    """Sixty thousand digits are not worth a look."""
    began = time.perf_counter()
    for value in ("9" * 60_000, "1s" * 30_000, "9" * 60_000 + "s"):
        read(remaining_requests="0", reset_requests=value, limit_requests=value)
    assert time.perf_counter() - began < 0.1


texts = st.one_of(
    st.text(max_size=80),
    st.from_regex(r"\A-?[0-9.,:eE_+TZ-]{0,30}(ms|s|m|h|d)?\Z"),
    st.floats().map(str),
    st.integers().map(str),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
)
names = st.sampled_from(
    [f"x-ratelimit-{a}-{b}" for a in ("limit", "remaining", "reset") for b in ("requests", "tokens")]
)


@given(
    headers=st.dictionaries(names, texts),
    wall_now=st.floats(0, 1e11),
    call_tokens=st.one_of(st.just(0.0), st.integers(0, 10**12)),
    in_flight=st.integers(0, 10**6),
)
@example({"x-ratelimit-remaining-requests": "١٢"}, 0.0, 0.0, 0)
@example({"x-ratelimit-remaining-requests": "1_0", "x-ratelimit-reset-requests": "²s"}, 0.0, 0.0, 0)
@example({"x-ratelimit-remaining-tokens": "1e308", "x-ratelimit-limit-tokens": "1e308"}, 0.0, 1e-300, 0)
def test_no_header_ever_raises(headers: Any, wall_now: float, call_tokens: float, in_flight: int) -> None:
    """Whatever comes, it is nothing, or sane numbers."""
    left = room(headers, wall_now, call_tokens)
    if left is not None:
        assert 0 < left.reset_s <= 3600.0
        assert left.calls is None or 0 <= left.calls < float("inf")
        assert left.is_scarce(in_flight) or not left.little
