"""Every error: its place in the tree, what legacy code catches it as, and what travels in a pickle."""

import pickle
import re

import pytest
import requests

from syncfailover import errors
from syncfailover.events import AttemptRecord
from syncfailover.policy.breaker import BreakerState
from syncfailover.policy.health import HealthStatus
from syncfailover.policy.snapshot import EndpointState, Snapshot

SECRET = "sk-very-secret"
ALL = sorted(
    (
        thing
        for thing in vars(errors).values()
        if isinstance(thing, type) and issubclass(thing, errors.FailoverError)
    ),
    key=lambda cls: cls.__name__,
)
LEDGER = (
    AttemptRecord("a", "overloaded", "HTTP 503: busy", 503, 0.0, 12.3, None, False),
    AttemptRecord("b", "silent", "no reply", None, 0.5, 1000.0, None, True),
)

#: DESIGN.md, "Errors".
TREE = {
    "ConfigurationError": ("FailoverError", ValueError),
    "ClientClosed": ("FailoverError", RuntimeError),
    "CircuitOpen": ("FailoverError",),
    "NoEndpointAvailable": ("FailoverError", requests.ConnectionError),
    "QueueFull": ("NoEndpointAvailable",),
    "QueueTimeout": ("NoEndpointAvailable",),
    "AllEndpointsFailed": ("FailoverError", requests.ConnectionError),
    "DeadlineExceeded": ("FailoverError", requests.Timeout),
    "RequestRejected": ("FailoverError", requests.HTTPError),
    "AuthenticationFailed": ("RequestRejected",),
    "ModelNotFound": ("RequestRejected",),
    "ContextLengthExceeded": ("RequestRejected",),
    "ContentFiltered": ("RequestRejected",),
    "QuotaExhausted": ("RequestRejected",),
    "RateLimited": ("RequestRejected",),
    "InvalidReply": ("FailoverError",),
    "StreamInterrupted": ("FailoverError",),
    "StreamDeadlineExceeded": ("StreamInterrupted", "DeadlineExceeded", requests.Timeout),
    "BudgetExceeded": ("FailoverError",),
    "FailoverError": (requests.RequestException,),
}


def response():
    """Make a response whose request and headers hold a key."""
    made = requests.Response()
    made.status_code, made.reason = 429, "Too Many Requests"
    made.url = f"https://api.example.com/v1/chat/completions?key={SECRET}"
    made.headers["X-Echo"] = SECRET
    made._content = SECRET.encode()
    made.request = requests.Request("POST", made.url, headers={"Authorization": f"Bearer {SECRET}"}).prepare()
    return made


def snapshot():
    """Make what `NoEndpointAvailable` carries."""
    state = EndpointState("a", HealthStatus.UNKNOWN, BreakerState.OPEN, None, 0, "refused", 112.3, 0, False)
    return Snapshot((state,), 100.0)


DATA = {
    "field": "weight",
    "value": -1,
    "retry_after": 12.5,
    "snapshot": snapshot(),
    "attempts": LEDGER,
    "status": 429,
    "code": "rate_limit_exceeded",
    "text": "so far",
}


def round_trip(thing, protocol=None):
    """Pickle and unpickle."""
    return pickle.loads(pickle.dumps(thing, protocol))  # noqa: S301 - our own


def test_the_tree_is_complete():
    """No error exists that the design does not name, and none is missing."""
    assert {cls.__name__ for cls in ALL} == set(TREE)


@pytest.mark.parametrize("cls", ALL)
def test_its_place_in_the_tree(cls):
    """It is what the design says, and also the exception that legacy code catches."""
    for parent in TREE[cls.__name__]:
        assert issubclass(cls, getattr(errors, parent) if isinstance(parent, str) else parent)
    assert issubclass(cls, requests.RequestException)
    assert issubclass(cls, OSError)


@pytest.mark.parametrize(
    ("cls", "caught_as"),
    [
        (errors.AllEndpointsFailed, requests.exceptions.ConnectionError),
        (errors.NoEndpointAvailable, requests.exceptions.ConnectionError),
        (errors.QueueFull, requests.exceptions.ConnectionError),
        (errors.DeadlineExceeded, requests.exceptions.Timeout),
        (errors.RateLimited, requests.exceptions.HTTPError),
        (errors.ConfigurationError, ValueError),
        (errors.ClientClosed, RuntimeError),
        (errors.InvalidReply, requests.exceptions.RequestException),
    ],
)
def test_legacy_code_catches_it(cls, caught_as):
    """An `except` that was written for requests still works."""
    with pytest.raises(caught_as, match=r"^what happened$"):
        raise cls("what happened", response=response())


@pytest.mark.parametrize("cls", ALL)
def test_it_carries_data(cls):
    """Message, response and everything given are attributes; `str` is the message alone."""
    reply = response()
    error = cls("what happened", response=reply, **DATA)
    assert str(error) == error.message == "what happened"
    assert error.response is reply
    assert {name: getattr(error, name) for name in DATA} == DATA


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", ALL)
def test_it_pickles_with_its_data(cls, protocol):
    """Class, message and all data survive, the ledger and the snapshot among them."""
    again = round_trip(cls("what happened", response=response(), **DATA), protocol)
    assert type(again) is cls
    assert str(again) == "what happened"
    assert {name: getattr(again, name) for name in DATA} == DATA
    assert again.snapshot["a"].retry_at == 112.3


@pytest.mark.parametrize("cls", ALL)
def test_a_pickle_leaves_the_keys_behind(cls):
    """Status, reason and the URL without its query travel; request, headers and body do not."""
    error = cls("what happened", response=response())
    assert SECRET.encode() not in pickle.dumps(error)
    again = round_trip(error)
    assert (again.response.status_code, again.response.reason) == (429, "Too Many Requests")
    assert again.response.url == "https://api.example.com/v1/chat/completions"
    assert again.request is None
    assert not again.response.headers


@pytest.mark.parametrize("cls", ALL)
def test_it_pickles_without_a_response(cls):
    """An error of a call that got no reply has none afterwards either."""
    again = round_trip(cls("what happened"))
    assert again.response is None
    assert str(again) == "what happened"


def test_it_pickles_twice():
    """What was unpickled can be pickled again (Celery hands results on)."""
    error = errors.RateLimited("slow down", response=response(), retry_after=3.0)
    for _ in range(3):
        error = round_trip(error)
    assert (error.retry_after, error.response.status_code) == (3.0, 429)


@pytest.mark.parametrize(
    ("cls", "defaults"),
    [
        (errors.ConfigurationError, {"field": None, "value": None}),
        (errors.NoEndpointAvailable, {"retry_after": None, "snapshot": None}),
        (errors.CircuitOpen, {"retry_after": None}),
        (errors.AllEndpointsFailed, {"attempts": ()}),
        (errors.DeadlineExceeded, {"attempts": ()}),
        (errors.RequestRejected, {"attempts": (), "status": None, "code": None}),
        (errors.RateLimited, {"attempts": (), "retry_after": None}),
        (errors.InvalidReply, {"attempts": ()}),
        (errors.StreamInterrupted, {"attempts": (), "text": ""}),
    ],
)
def test_what_was_not_given_has_a_default(cls, defaults):
    """Reading a documented attribute never fails."""
    error = cls("what happened")
    assert {name: getattr(error, name) for name in defaults} == defaults


def test_a_ledgers_line_reads_as_a_clause():
    """Endpoint, what was seen, and how long it took."""
    assert str(LEDGER[0]) == "a: HTTP 503: busy (12 ms)"


@pytest.mark.parametrize("cls", ALL)
def test_it_is_documented_and_drawn(cls):
    """Each error says what it means, and stands in the tree at the top of the module."""
    assert cls.__doc__
    assert re.search(rf"(^|[ ─]){cls.__name__}\b", errors.__doc__, re.MULTILINE)
