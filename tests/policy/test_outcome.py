"""What came back, named: every signal and every provider's error body, as data in `wire/`."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from syncfailover import errors
from syncfailover.policy import outcome
from syncfailover.policy.outcome import classify
from syncfailover.policy.received import Received

CASES = [
    pytest.param({"expects": "choices", "provider": path.stem, **case}, id=f"{path.stem}: {case['says']}")
    for path in sorted((Path(__file__).parent / "wire").glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))
]

#: WIRE.md, "What to do with each signal": what follows from each outcome.
#: name: (breaker, goes, quick retry, may be asked again, what rests, seconds, maybe billed, error)
TABLE = {
    "ok": ("success", "nowhere", False, False, None, 0.0, False, errors.AllEndpointsFailed),
    "never_sent": ("failure", "anywhere", False, True, None, 0.0, False, errors.AllEndpointsFailed),
    "silent": ("failure", "one other", False, False, None, 0.0, True, errors.AllEndpointsFailed),
    "reset": ("failure", "one other", True, False, None, 0.0, True, errors.AllEndpointsFailed),
    "truncated": ("failure", "one other", True, False, None, 0.0, True, errors.AllEndpointsFailed),
    "unrepeatable": ("failure", "nowhere", False, False, None, 0.0, True, errors.AllEndpointsFailed),
    "redirected": ("failure", "anywhere", False, False, None, 0.0, False, errors.InvalidReply),
    "rate_limited": ("neutral", "anywhere", True, True, "pair", 0.0, False, errors.RateLimited),
    "in_flight_budget": ("neutral", "anywhere", True, True, "pair", 0.0, False, errors.RateLimited),
    "quota_exhausted": ("neutral", "anywhere", False, False, "key", 3600.0, False, errors.QuotaExhausted),
    "key_refused": ("neutral", "anywhere", False, False, "key", 3600.0, False, errors.AuthenticationFailed),
    "forbidden": ("neutral", "anywhere", False, False, "pair", 3600.0, False, errors.RequestRejected),
    "model_not_found": ("neutral", "anywhere", False, False, "pair", 600.0, False, errors.ModelNotFound),
    "path_not_found": ("neutral", "anywhere", False, False, None, 0.0, False, errors.ModelNotFound),
    "context_length": (
        *("neutral", "a larger context window", False, False, None, 0.0, False),
        errors.ContextLengthExceeded,
    ),
    "content_filtered": ("neutral", "nowhere", False, False, None, 0.0, False, errors.ContentFiltered),
    "rejected": ("neutral", "nowhere", False, False, None, 0.0, False, errors.RequestRejected),
    "transient": ("neutral", "anywhere", True, True, None, 0.0, False, errors.AllEndpointsFailed),
    "server_error": ("failure", "anywhere", True, True, None, 0.0, False, errors.AllEndpointsFailed),
    "overloaded": (
        *("failure", "anywhere", False, True, "pair, if asked", 0.0, False),
        errors.AllEndpointsFailed,
    ),
    "begun": ("neutral", "nowhere", False, False, None, 0.0, True, errors.AllEndpointsFailed),
    "late": ("failure", "anywhere", False, False, None, 0.0, True, errors.AllEndpointsFailed),
    "broken_off": ("failure", "anywhere", True, False, None, 0.0, True, errors.AllEndpointsFailed),
    "interrupted": ("failure", "anywhere", False, True, None, 0.0, True, errors.StreamInterrupted),
    "overdue": ("neutral", "nowhere", False, False, None, 0.0, True, errors.StreamDeadlineExceeded),
    "abandoned": ("neutral", "nowhere", False, False, None, 0.0, True, errors.AllEndpointsFailed),
    "outpaced": ("neutral", "nowhere", False, False, None, 0.0, True, errors.AllEndpointsFailed),
    "stalled": ("failure", "nowhere", False, False, None, 0.0, True, errors.AllEndpointsFailed),
    "invalid_reply": ("failure", "anywhere", False, False, None, 0.0, True, errors.InvalidReply),
}

RULES = {rule.name: rule for rule in vars(outcome).values() if isinstance(rule, outcome.Rule)}


def received(status, body=None, text=None, headers=()):
    """Make what a door brings: a JSON body, or any text."""
    data = json.dumps(body) if text is None else text
    try:
        payload = json.loads(data)
    except ValueError:
        payload = None
    return Received(status, CaseInsensitiveDict(headers), data.encode(), payload)


@pytest.mark.parametrize("case", CASES)
def test_a_reply_is_named(case):
    """Each real body gets its outcome, the provider's own code, and the time it asks for."""
    reply = received(case["status"], case.get("body"), case.get("text"), case.get("headers", {}))
    named = classify(reply, expects=case["expects"])
    expected = RULES[case["outcome"]]
    if case["outcome"] != "ok" and 200 <= case["status"] < 300:
        expected = expected._replace(maybe_billed=True)  # it began to work before it failed
    assert named.rule == expected
    assert named.code == case.get("code")
    assert named.retry_after_s == case.get("retry_after_s")
    if case["outcome"] != "ok":
        assert named.status == case.get("then_status", case["status"])
        assert str(case["status"]) in named.detail
        assert case.get("detail", "") in named.detail


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_follows_from_an_outcome(name):
    """Breaker, ways on, rests, billing and error are those of the table in the notes on the wire."""
    rule = RULES[name]
    assert (
        *(rule.breaker, rule.goes, rule.quick, rule.again, rule.rests, rule.rest_s, rule.maybe_billed),
        rule.error,
    ) == TABLE[name]


def test_every_outcome_is_in_the_table():
    """No outcome exists of which the table does not say what follows."""
    assert set(RULES) == set(TABLE)


def message_of(case):
    """Find the message in a case's body, whatever its shape; None where there is none."""
    body = case.get("body")
    body = body[0] if isinstance(body, list) else body
    error = body.get("error") if isinstance(body, dict) else None
    return error.get("message") if isinstance(error, dict) else None


@pytest.mark.parametrize("case", [param for param in CASES if message_of(param.values[0])])
def test_the_providers_message_is_in_the_detail(case):
    """What an error body says reaches the ledger, whatever the body's shape."""
    named = classify(received(case["status"], case["body"]), expects=case["expects"])
    assert message_of(case)[:300] in named.detail


@pytest.mark.parametrize(
    "fault",
    ("never_sent silent reset truncated unrepeatable redirected late broken_off interrupted overdue").split(),
)
def test_a_fault_is_named_by_the_door(fault):
    """What never became a reply keeps the door's name and words for it, and names no status."""
    named = classify(Received(fault=fault, detail="connect refused"), expects="choices")
    assert (named.rule.name, named.detail, named.status) == (fault, "connect refused", None)


@pytest.mark.parametrize(
    ("status", "before"),
    [
        (400, ("nowhere", False)),
        (422, ("nowhere", False)),
        (429, ("anywhere", True)),
        (500, ("anywhere", True)),
        (503, ("anywhere", False)),
    ],
)
@pytest.mark.parametrize("wish", ["true", "false", "perhaps", None])
def test_x_should_retry_overrides(status, before, wish):
    """`true` allows asking again where the table does not, `false` forbids it; anything else says nothing."""
    headers = {} if wish is None else {"X-Should-Retry": wish}
    rule = classify(received(status, {"error": {"message": "m"}}, headers=headers), expects="choices").rule
    goes, quick = before
    expected = {"true": ("anywhere", True), "false": (goes, False)}.get(wish, (goes, quick))
    assert (rule.goes, rule.quick) == expected
    if wish == "false":
        assert not rule.again


def test_a_retry_after_date_is_measured_against_the_wall_clock_given():
    """Where the reply has no `Date`, the time of day comes as an argument."""
    reply = received(503, {}, headers={"Retry-After": "Sun, 06 Nov 1994 08:49:45 GMT"})
    assert classify(reply, expects="choices", wall_now=784111777.0).retry_after_s == 8.0


def test_a_long_message_is_cut():
    """A provider's essay does not fill the log, nor do its line breaks forge a line in it."""
    reply = Received(400, secrets=("x-secret",))
    assert len(reply.shown("x" * 10_000)) < 410
    assert reply.shown("one\ntwo\x1b[31m") == "one two [31m"
    assert "secret" not in reply.shown("y" * 395 + "x-secret")


def test_success_is_one_and_the_same():
    """The usual outcome is not made anew for each call."""
    reply = received(200, {"choices": [{"message": {}}]})
    assert classify(reply, expects="choices") is outcome.SUCCEEDED


def test_what_the_server_echoed_of_a_secret_is_blotted_out():
    """All that was sent along is taken out of a text."""
    reply = Received(401, secrets=("sk-key-1", "tenant-7"))
    assert reply.shown("wrong key sk-key-1 of tenant-7, sk-key-1") == "wrong key *** of ***, ***"
    assert not reply.shown("")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 1000)
    | st.floats(allow_nan=False)
    | st.sampled_from(["error", "429", "insufficient_quota", "500", "invalid_api_key", ""])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "error",
                        "code",
                        "type",
                        "status",
                        "message",
                        "detail",
                        "details",
                        "metadata",
                        "object",
                    ),
                    *("choices", "data", "finish_reason"),
                ],
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(
    payload=JSON,
    status=st.sampled_from([200, 201, 204, 301, 400, 402, 403, 404, 429, 500, 503]),
    expects=st.sampled_from(["choices", "data", None]),
)
@settings(max_examples=500)
def test_no_body_raises(payload, status, expects):
    """Any JSON at all is named; a good outcome has what was expected in it, and no error."""
    named = classify(received(status, payload), expects=expects)
    assert named.rule.name in TABLE
    if named.rule.name == "ok" and expects is not None:
        assert isinstance(payload[expects], list)
        assert not payload.get("error")
    if status >= 400:
        assert named.rule.name != "ok"
