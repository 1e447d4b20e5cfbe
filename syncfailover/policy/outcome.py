"""What came back, named: status, headers, body or fault -> `Outcome`, by the one table `TABLE`.

Each outcome follows a `Rule` that says what the failover loop, the breaker and the cooldowns do about it. The rows
and their sources (vendors' documentation, SDK sources, issue threads) are the project's notes on the wire.
"""

from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple, Type

from ..errors import (
    AllEndpointsFailed,
    AuthenticationFailed,
    ContentFiltered,
    ContextLengthExceeded,
    FailoverError,
    InvalidReply,
    ModelNotFound,
    QuotaExhausted,
    RateLimited,
    RequestRejected,
    StreamDeadlineExceeded,
    StreamInterrupted,
)
from .error_body import FAILED_REASONS, ErrorInfo, error_in, error_of
from .received import (
    BROKEN_OFF,
    INTERRUPTED,
    LATE,
    NEVER_SENT,
    OVERDUE,
    REDIRECTED,
    RESET,
    SILENT,
    TRUNCATED,
    UNREPEATABLE,
    Received,
)
from .retry_after import retry_after

# What an outcome does to the breaker.
SUCCESS, FAILURE, NEUTRAL = "success", "failure", "neutral"

# Where the call may go next.
ANYWHERE, ONE_OTHER, LARGER_WINDOW, NOWHERE = "anywhere", "one other", "a larger context window", "nowhere"

# What rests after it: the key, the endpoint for this model, or the latter only if the reply asks for it.
KEY, PAIR, PAIR_IF_ASKED = "key", "pair", "pair, if asked"

_HOURS_S = 3600.0


class Rule(NamedTuple):
    """What follows from an outcome."""

    name: str
    breaker: str
    goes: str
    #: Earns one retry on the same endpoint before its priority is left.
    quick: bool = False
    #: May be asked again in a later round of the same call, after a backoff.
    again: bool = False
    rests: Optional[str] = None
    #: Seconds of rest where the reply names none; 0: an exponential backoff.
    rest_s: float = 0.0
    #: The provider may have worked, and billed, before it failed.
    maybe_billed: bool = False
    #: What the caller gets when nothing else is left to try.
    error: Type[FailoverError] = AllEndpointsFailed


OK = Rule("ok", SUCCESS, NOWHERE)
UNREACHABLE = Rule(NEVER_SENT, FAILURE, ANYWHERE, again=True)
TIMED_OUT = Rule(SILENT, FAILURE, ONE_OTHER, maybe_billed=True)
BROKEN = Rule(RESET, FAILURE, ONE_OTHER, quick=True, maybe_billed=True)
CUT_SHORT = Rule(TRUNCATED, FAILURE, ONE_OTHER, quick=True, maybe_billed=True)
ONE_SHOT = Rule(UNREPEATABLE, FAILURE, NOWHERE, maybe_billed=True)
RATE_LIMIT = Rule("rate_limited", NEUTRAL, ANYWHERE, quick=True, again=True, rests=PAIR, error=RateLimited)
IN_FLIGHT = Rule("in_flight_budget", NEUTRAL, ANYWHERE, quick=True, again=True, rests=PAIR, error=RateLimited)
QUOTA = Rule("quota_exhausted", NEUTRAL, ANYWHERE, rests=KEY, rest_s=_HOURS_S, error=QuotaExhausted)
KEY_REFUSED = Rule("key_refused", NEUTRAL, ANYWHERE, rests=KEY, rest_s=_HOURS_S, error=AuthenticationFailed)
FORBIDDEN = Rule("forbidden", NEUTRAL, ANYWHERE, rests=PAIR, rest_s=_HOURS_S, error=RequestRejected)
MODEL_MISSING = Rule("model_not_found", NEUTRAL, ANYWHERE, rests=PAIR, rest_s=600.0, error=ModelNotFound)
# The model may be known there all the same, to the other calls: nothing rests.
PATH_MISSING = Rule("path_not_found", NEUTRAL, ANYWHERE, error=ModelNotFound)
CONTEXT_LENGTH = Rule("context_length", NEUTRAL, LARGER_WINDOW, error=ContextLengthExceeded)
FILTERED = Rule("content_filtered", NEUTRAL, NOWHERE, error=ContentFiltered)
REJECTED = Rule("rejected", NEUTRAL, NOWHERE, error=RequestRejected)
TRANSIENT = Rule("transient", NEUTRAL, ANYWHERE, quick=True, again=True, error=AllEndpointsFailed)
SERVER_ERROR = Rule("server_error", FAILURE, ANYWHERE, quick=True, again=True)
OVERLOADED = Rule("overloaded", FAILURE, ANYWHERE, again=True, rests=PAIR_IF_ASKED)
NO_ANSWER = Rule("invalid_reply", FAILURE, ANYWHERE, maybe_billed=True, error=InvalidReply)
MOVED = Rule(REDIRECTED, FAILURE, ANYWHERE, error=InvalidReply)
# Streams: until the first content a call may go on freely; after it, only where the caller can do with a new beginning.
STARTED = Rule("begun", NEUTRAL, NOWHERE, maybe_billed=True)
TOO_LATE = Rule(LATE, FAILURE, ANYWHERE, maybe_billed=True)
CUT_EARLY = Rule(BROKEN_OFF, FAILURE, ANYWHERE, quick=True, maybe_billed=True)
CUT_LATE = Rule(INTERRUPTED, FAILURE, ANYWHERE, again=True, maybe_billed=True, error=StreamInterrupted)
CUT_BY_CLOCK = Rule(OVERDUE, NEUTRAL, NOWHERE, maybe_billed=True, error=StreamDeadlineExceeded)
ABANDONED = Rule("abandoned", NEUTRAL, NOWHERE, maybe_billed=True)
# Called off because another endpoint had answered: it says nothing, or (beyond its own usual time) that it is stuck.
OUTPACED = Rule("outpaced", NEUTRAL, NOWHERE, maybe_billed=True)
STALLED = Rule("stalled", FAILURE, NOWHERE, maybe_billed=True)
CALLED_OFF = frozenset({OUTPACED.name, STALLED.name, ABANDONED.name})


class Row(NamedTuple):
    """One line of the table: any of `statuses`, and any of `words` (none: always) in what the error says."""

    statuses: Tuple[int, ...]
    words: Tuple[str, ...]
    rule: Rule


_BILLING = (
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "enforced_spend_limit_reached",
)
_TOO_LONG = (
    "context_length_exceeded",
    "exceed_context_size",
    "maximum context length",
    "prompt is too long",
    "exceeds the maximum number of tokens",
)
_FILTER = ("content_filter", "content_policy", "content exists risk", "moderation", "flagged")
#: How a response stands that is no answer, and that may have no output. (OpenAI's responses API)
_NO_RESPONSE, _MAY_BE_EMPTY = ("cancelled", "failed"), ("incomplete", "in_progress", "queued")
_NO_MODEL = (
    "model_not_found",
    "deploymentnotfound",
    "not a valid model",
    "model does not exist",
    "model not exist",
)

#: First match wins; words are compared in lower case with code, type, status and message of the error.
TABLE: Tuple[Row, ...] = (
    Row((429,), _BILLING, QUOTA),
    Row((429,), (), RATE_LIMIT),
    Row((402,), ("openrouter_in_flight_budget",), IN_FLIGHT),
    Row((402,), (), QUOTA),
    Row((401,), (), KEY_REFUSED),
    Row((400,), ("api key not valid", "api_key_invalid"), KEY_REFUSED),
    Row(
        (400,),
        ("reached your specified api usage limits", "credit balance is too low", "insufficient balance"),
        QUOTA,
    ),
    Row((400, 413, 422), _TOO_LONG, CONTEXT_LENGTH),
    Row((400, 403), _FILTER, FILTERED),
    Row((403,), (), FORBIDDEN),
    Row((400, 404), _NO_MODEL, MODEL_MISSING),
    Row((408, 409), (), TRANSIENT),
    Row((503, 529), (), OVERLOADED),
)

_FAULTS: Dict[str, Rule] = {
    rule.name: rule
    for rule in (
        UNREACHABLE,
        TIMED_OUT,
        BROKEN,
        CUT_SHORT,
        ONE_SHOT,
        MOVED,
        TOO_LATE,
        CUT_EARLY,
        CUT_LATE,
        CUT_BY_CLOCK,
    )
}


class Outcome(NamedTuple):
    """The name of what happened to one attempt, and what the reply said about it."""

    rule: Rule
    detail: str = ""
    status: Optional[int] = None
    code: Optional[str] = None
    #: Seconds; None where the reply names no usable time.
    retry_after_s: Optional[float] = None


SUCCEEDED = Outcome(OK)
#: A stream whose first content has come; how it ends is another outcome.
BEGUN = Outcome(STARTED)
GIVEN_UP = Outcome(ABANDONED, "abandoned by the caller")
#: The outcomes by which an attempt has answered.
ANSWERS = (SUCCEEDED, BEGUN)


def classify(received: Received, *, expects: Optional[str] = None, wall_now: float = 0.0) -> Outcome:
    """Name what came back.

    Args:
        received: what the door brought.
        expects: the key under which a good reply has a list that is not empty ("choices", "data", "output"); None
            where any reply below 400 that is no error body is good.
        wall_now: Unix time in seconds, for a `Retry-After` date in a reply without a `Date`.

    """
    if received.stream is not None:
        return BEGUN
    if received.fault is not None:
        rule = _FAULTS[received.fault]
        if rule is CUT_LATE and received.payload is not None:
            return _interrupted(received, expects, wall_now)
        return Outcome(rule, received.detail)
    status = received.status
    if status >= 400:
        return _refused(received, status, error_of(received.payload), expects, wall_now)
    payload = received.payload
    if expects is None:
        error = error_in(payload)
        return SUCCEEDED if error is None else _refused(received, status, error, expects, wall_now)
    if 200 <= status < 300 and type(payload) is dict and payload.get(expects) and not payload.get("error"):
        return _answered(received, payload, expects, wall_now)
    return _no_answer(received, expects, wall_now)


def _interrupted(received: Received, expects: Optional[str], wall_now: float) -> Outcome:
    """Name what an error event after content does: what the error means for key and model, and a fault otherwise."""
    inner = _refused(received, received.status, error_of(received.payload), expects, wall_now)
    rule = inner.rule
    if rule.goes == LARGER_WINDOW:
        rule = rule._replace(quick=False)
    elif rule.goes != NOWHERE:
        rule = rule._replace(goes=ANYWHERE, quick=False, again=CUT_LATE.again)
    elif rule.name != FILTERED.name:  # `inner` has its own copy
        rule = CUT_LATE
    return inner._replace(
        rule=rule._replace(name=CUT_LATE.name, maybe_billed=True, error=CUT_LATE.error),
        detail=f"{received.detail}: {inner.detail}",
    )


def _answered(received: Received, payload: Dict[str, Any], expects: str, wall_now: float) -> Outcome:
    """Look at what should be the answer: a list, whose first choice may still be an error (OpenRouter)."""
    items = payload[expects]
    if type(items) is not list:
        return Outcome(NO_ANSWER, f"HTTP 200 with {expects!r} that is no list", received.status)
    if expects == "output" and payload.get("status") in _NO_RESPONSE:
        return Outcome(NO_ANSWER, f"HTTP 200 with status {payload['status']!r}", received.status)
    first = items[0]
    if expects == "choices" and type(first) is dict and type(first.get("message", {})) is not dict:
        return Outcome(NO_ANSWER, "HTTP 200 with a message that is no object", received.status)
    if expects == "choices" and (type(first) is not dict or first.get("finish_reason") in FAILED_REASONS):
        error = first.get("error") if type(first) is dict else None
        return _refused(received, received.status, error_of({"error": error or {}}), expects, wall_now)
    return SUCCEEDED


def _no_answer(received: Received, expects: str, wall_now: float) -> Outcome:
    status = received.status
    if 300 <= status < 400:
        return Outcome(MOVED, f"HTTP {status}: a redirect, which is not followed with a key", status)
    error = error_in(received.payload)
    if error is not None:
        return _refused(received, status, error, expects, wall_now)
    if _is_whole_though_empty(received.payload, expects):
        return SUCCEEDED
    return Outcome(NO_ANSWER, f"HTTP {status} with {_described(received, expects)}", status)


def _is_whole_though_empty(payload: Any, expects: str) -> bool:
    if type(payload) is not dict or payload.get(expects) != []:
        return False
    return expects == "data" or (expects == "output" and payload.get("status") in _MAY_BE_EMPTY)


def _described(received: Received, expects: str) -> str:
    if not received.body:
        return "an empty body"
    if received.payload is None:
        kind = "HTML" if received.body.lstrip()[:1] == b"<" else "broken JSON"
        return f"{kind} where JSON was due"
    return f"no {expects!r} in it"


def _refused(
    received: Received,
    status: int,
    error: ErrorInfo,
    expects: Optional[str],
    wall_now: float,
) -> Outcome:
    judged = status if status >= 400 else error.status
    rule = NO_ANSWER if judged is None else _rule_for(judged, error.says, expects)
    if status < 400:  # it began to work on the request before it failed
        rule = rule._replace(maybe_billed=True)
    rule = _overridden(rule, received.headers)
    said = error.message or error.code or ""
    shown = f"HTTP {status}" if judged in (None, status) else f"HTTP {status} with error {judged}"
    detail = f"{shown}: {said}" if said else shown
    if rule.name == MODEL_MISSING.name:
        detail += " (no such model there, or base_url is not the root of the API)"
    elif rule.name == PATH_MISSING.name:
        detail += " (no such call there, or no such model, or base_url is not the root of the API)"
    return Outcome(rule, detail, judged or status, error.code, retry_after(received.headers, wall_now))


def _rule_for(status: int, says: str, expects: Optional[str]) -> Rule:
    for statuses, words, rule in TABLE:
        if status in statuses and (not words or any(word in says for word in words)):
            return rule
    if status == 404 and expects == "output":
        return PATH_MISSING  # most providers have no responses API
    if status == 404 and expects is not None:
        return MODEL_MISSING  # the path is ours and right: what is missing is the model or the deployment
    return SERVER_ERROR if status >= 500 and status != 501 else REJECTED


def _overridden(rule: Rule, headers: Mapping[str, str]) -> Rule:
    """Let the server's `x-should-retry` have the last word on asking again."""
    wish = headers.get("x-should-retry")
    if wish == "true" and rule.goes == NOWHERE:
        return rule._replace(goes=ANYWHERE, quick=True)
    if wish == "true":
        return rule._replace(quick=True)
    if wish == "false":
        return rule._replace(quick=False, again=False)
    return rule
