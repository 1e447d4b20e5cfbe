"""Every form in which a server says how long to leave it alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from syncfailover.policy.retry_after import retry_after

#: Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's own example.
THEN = 784111777.0
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
EIGHT_LATER = "Sun, 06 Nov 1994 08:49:45 GMT"


def read(wall_now=THEN, **headers):
    """Read headers given as keywords."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return retry_after(CaseInsensitiveDict(named), wall_now)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "2"}, 2.0),
        ({"Retry_After": "2"}, 2.0),
        ({"retry_after": "1.0"}, 1.0),
        ({"retry_after": "0.25"}, 0.25),
        ({"retry_after": " 3 "}, 3.0),
        ({"retry_after": "86400"}, 86400.0),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "1500.5"}, 1.5005),
        ({"retry_after_ms": "250", "retry_after": "7"}, 0.25),
        ({"retry_after_ms": "soon", "retry_after": "7"}, 7.0),
        ({"retry_after_ms": "0", "retry_after": "7"}, 7.0),
        ({"retry_after_ms": "nan", "retry_after": EIGHT_LATER}, 8.0),
        ({"retry_after": EIGHT_LATER}, 8.0),
        ({"retry_after": "Sunday, 06-Nov-94 08:49:45 GMT"}, 8.0),
        ({"retry_after": "Sun, 06 Nov 1994 09:49:45 +0100"}, 8.0),
    ],
)
def test_a_usable_time_is_read(headers, seconds):
    """Milliseconds first, then seconds with or without fraction, then dates."""
    assert read(**headers) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    ["", " ", "0", "-1", "-0.5", "nan", "inf", "-inf", "1e999", "soon", "1,5", "12 s", DATE, "Sun, 06 Nov"],
)
@pytest.mark.parametrize("header", ["retry-after", "retry-after-ms"])
def test_what_cannot_be_true_is_none(header, value):
    """Zero, negative, endless and garbled values, and dates that are not in the future, name no time."""
    assert retry_after({header: value}, THEN) is None


def test_no_header_is_none():
    """A reply that says nothing names no time."""
    assert read() is None


def test_a_date_is_measured_against_the_replys_own():
    """With a `Date` in the reply, a wrong clock here does no harm."""
    assert read(wall_now=0.0, retry_after=EIGHT_LATER, date=DATE) == 8.0
    assert read(wall_now=2 * THEN, retry_after=EIGHT_LATER, date=DATE) == 8.0


@pytest.mark.parametrize("date", ["", "yesterday", "0"])
def test_a_garbled_date_header_is_ignored(date):
    """Where the reply's `Date` cannot be read, our own clock has to do."""
    assert read(retry_after=EIGHT_LATER, date=date) == 8.0


@given(value=st.text(max_size=40), date=st.one_of(st.none(), st.text(max_size=40)))
def test_nothing_a_server_writes_raises(value, date):
    """Any text in any of the headers gives a positive number of seconds or None."""
    headers = {"retry-after": value, "retry-after-ms": value}
    if date is not None:
        headers["date"] = date
    found = retry_after(headers, THEN)
    assert found is None or 0 < found < float("inf")
