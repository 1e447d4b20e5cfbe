"""How often, after what pause, and from which budget; with a caller's own urllib3 `Retry`, old or new."""

import pytest
from urllib3.util.retry import Retry

from syncfailover.errors import ConfigurationError
from syncfailover.policy import outcome
from syncfailover.policy.retry import FailoverRetry, RetryBudget

REJECTED = outcome.SERVER_ERROR
AMBIGUOUS = outcome.BROKEN
NEVER_SENT = outcome.UNREACHABLE


def attempts(retry, rule, *, elsewhere, most=20):
    """Count how often the policy can be spent."""
    for spent in range(most):
        retry = retry.spent(rule, elsewhere=elsewhere)
        if retry is None:
            return spent
    return most


# From a value


@pytest.mark.parametrize("number", [0, 1, 3, 10])
def test_a_number_is_the_attempts_after_the_first(number):
    """Rejected, ambiguous or never sent: in all, no more than that many follow."""
    for rule in (REJECTED, AMBIGUOUS, NEVER_SENT):
        assert attempts(FailoverRetry.from_value(number), rule, elsewhere=False) == number


def test_a_policy_is_taken_as_it_is():
    """A `FailoverRetry` passes unchanged, the same object."""
    own = FailoverRetry(5, ambiguous="raise")
    assert FailoverRetry.from_value(own) is own


@pytest.mark.parametrize("value", [-1, 1.5, "3", None, True, False, float("nan"), object()])
def test_anything_else_is_refused(value):
    """The error names the argument of the client and the value."""
    with pytest.raises(ConfigurationError, match=r"^max_retries: .*Retry") as caught:
        FailoverRetry.from_value(value)
    assert caught.value.field == "max_retries"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ambiguous", "perhaps"),
        ("backoff_base_s", -1),
        ("backoff_cap_s", float("inf")),
        ("quick_retry_after_s", float("nan")),
        ("retry_after_limit_s", 0),
    ],
)
def test_a_field_that_cannot_work_is_refused(field, value):
    """The error names field and value."""
    with pytest.raises(ConfigurationError) as caught:
        FailoverRetry(**{field: value})
    assert caught.value.field == field
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("total", [-1, 1.5, "3"])
def test_a_total_that_cannot_work_is_refused(total):
    """The error speaks of `max_retries`, which is what the caller wrote."""
    with pytest.raises(ConfigurationError, match=r"^max_retries: "):
        FailoverRetry(total)


# From urllib3's


def test_urllib3s_counters_are_kept():
    """A caller's `Retry(total, connect, read, status)` bounds the attempts by what went wrong."""
    retry = FailoverRetry.from_value(Retry(10, connect=4, read=1, status=2))
    assert attempts(retry, NEVER_SENT, elsewhere=False) == 4
    assert attempts(retry, AMBIGUOUS, elsewhere=False) == 1
    assert attempts(retry, REJECTED, elsewhere=False) == 2


@pytest.mark.parametrize(("total", "times"), [(0, 0), (2, 2), (False, 0), (None, 20)])
def test_urllib3s_total_is_kept(total, times):
    """A number bounds, False forbids, None leaves it to deadline and budget."""
    assert attempts(FailoverRetry.from_value(Retry(total)), REJECTED, elsewhere=True) == times


@pytest.mark.parametrize("counter", ["connect", "read", "status"])
def test_a_counter_of_urllib3_that_is_false_forbids(counter):
    """`Retry(3, read=False)` never sends again what may have been received, and so on."""
    rules = {"connect": NEVER_SENT, "read": AMBIGUOUS, "status": REJECTED}
    retry = FailoverRetry.from_value(Retry(3, **{counter: False}))
    for name, rule in rules.items():
        assert attempts(retry, rule, elsewhere=False) == (0 if name == counter else 3)


def test_urllib3s_backoff_factor_is_the_first_pause():
    """A factor replaces our half second; no factor leaves it."""
    assert FailoverRetry.from_value(Retry(3, backoff_factor=2)).backoff_s(0, lambda: 1.0) == 2.0
    assert FailoverRetry.from_value(Retry(3)).backoff_s(0, lambda: 1.0) == 0.5


def test_urllib3s_status_forcelist_is_kept():
    """The statuses a caller named are still named, also after an attempt was spent."""
    retry = FailoverRetry.from_value(Retry(3, status_forcelist=[404, 418]))
    assert set(retry.status_forcelist) == {404, 418}
    assert set(retry.spent(REJECTED, elsewhere=True).status_forcelist) == {404, 418}


@pytest.mark.parametrize(
    ("allowed", "post", "get"),
    [
        ({}, True, True),
        ({"allowed_methods": frozenset(["GET"])}, False, True),
        ({"allowed_methods": ["GET", "POST"]}, True, True),
        ({"allowed_methods": False}, True, True),
        ({"allowed_methods": None}, True, True),
    ],
)
def test_urllib3s_allowed_methods_restrict_what_is_sent_again(allowed, post, get):
    """A chat is a POST, which urllib3's default excludes and ours does not; what a caller chose is kept."""
    retry = FailoverRetry.from_value(Retry(3, **allowed))
    assert retry.permits("POST") is post
    assert retry.permits("post") is post
    assert retry.permits("GET") is get


def test_the_callers_retry_is_not_changed():
    """Spending ours leaves the caller's object as it was."""
    theirs = Retry(3, connect=1, backoff_factor=0.1)
    FailoverRetry.from_value(theirs).spent(REJECTED, elsewhere=True)
    assert (theirs.total, theirs.connect, theirs.backoff_factor) == (3, 1, 0.1)


# Spending


def test_spending_makes_a_new_policy_with_all_its_fields():
    """The old one is as it was; the new one has one attempt fewer and nothing else changed."""
    old = FailoverRetry(
        3,
        status=9,
        ambiguous="raise",
        backoff_base_s=1.0,
        backoff_cap_s=2.0,
        quick_retry_after_s=3.0,
        retry_after_limit_s=4.0,
    )
    new = old.spent(REJECTED, elsewhere=True)
    assert (old.total, new.total, new.status) == (3, 2, 8)
    assert type(new) is FailoverRetry
    fields = ("ambiguous", "backoff_base_s", "backoff_cap_s", "quick_retry_after_s", "retry_after_limit_s")
    assert [getattr(new, f) for f in fields] == [getattr(old, f) for f in fields]


def test_never_sent_and_elsewhere_costs_nothing():
    """Going elsewhere after an attempt that was never sent leaves the total; asking the same again does not."""
    retry = FailoverRetry(3)
    assert attempts(retry, NEVER_SENT, elsewhere=True) == 20
    assert attempts(retry, NEVER_SENT, elsewhere=False) == 3


def test_never_sent_and_elsewhere_spends_connect():
    """A caller's bound on connecting holds even there."""
    assert attempts(FailoverRetry(3, connect=2), NEVER_SENT, elsewhere=True) == 2


@pytest.mark.parametrize("total", [0, False])
def test_no_retries_means_one_attempt_even_if_never_sent(total):
    """`max_retries=0` asks one endpoint once."""
    assert attempts(FailoverRetry(total), NEVER_SENT, elsewhere=True) == 0


def test_urllib3_itself_can_copy_it():
    """`new` and `increment`, which urllib3 calls, keep the type and our fields."""
    retry = FailoverRetry(3, ambiguous="raise", quick_retry_after_s=1.5)
    for copied in (retry.new(total=1), retry.increment("GET", "/", error=OSError())):
        assert type(copied) is FailoverRetry
        assert (copied.ambiguous, copied.quick_retry_after_s) == ("raise", 1.5)


# Pauses


@pytest.mark.parametrize(("nth", "longest"), [(0, 0.5), (1, 1.0), (2, 2.0), (4, 8.0), (5, 8.0), (5000, 8.0)])
def test_the_pause_doubles_up_to_its_cap(nth, longest):
    """It is min(0.5 * 2**n, 8) * U(0.75, 1) seconds."""
    retry = FailoverRetry(3)
    assert retry.backoff_s(nth, lambda: 1.0) == pytest.approx(longest)
    assert retry.backoff_s(nth, lambda: 0.0) == pytest.approx(0.75 * longest)
    assert retry.backoff_s(nth, lambda: 0.5) == pytest.approx(0.875 * longest)


def test_base_and_cap_are_the_callers():
    """Other numbers, same formula."""
    retry = FailoverRetry(3, backoff_base_s=0.1, backoff_cap_s=0.3)
    assert [retry.backoff_s(n, lambda: 1.0) for n in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.3])


# The budget


def drained(budget, now=0.0):
    """Count how many retries are left at a time."""
    taken = 0
    while budget.withdraw(now):
        taken += 1
    return taken


def test_it_begins_full():
    """A burst that meets an outage all at once is carried over, and not a retry more."""
    budget = RetryBudget(capacity=100.0)
    assert drained(budget) == 100
    assert budget.tokens < 1.0


def test_every_fifth_call_earns_a_retry():
    """Twenty per cent of calls may be retried in the long run."""
    budget = RetryBudget()
    drained(budget)
    for _ in range(52):
        budget.deposit()
    assert drained(budget) == 10


def test_every_second_earns_a_retry():
    """With no calls at all, time alone gives one retry per second."""
    budget = RetryBudget()
    drained(budget, now=100.0)
    assert drained(budget, now=100.9) == 0
    assert drained(budget, now=102.0) in (1, 2)
    assert drained(budget, now=112.0) == 10


def test_it_never_holds_more_than_its_capacity():
    """Neither calls nor time fill it beyond."""
    budget = RetryBudget(capacity=3.0)
    drained(budget)
    for _ in range(1000):
        budget.deposit()
    assert budget.tokens == 3.0
    assert drained(budget, now=10_000.0) == 3


def test_a_storm_is_stopped():
    """1,000 calls a second that all fail and all retry get about a fifth of their retries, not three each."""
    budget = RetryBudget()
    drained(budget)
    retried = 0
    for call in range(10_000):
        budget.deposit()
        retried += sum(budget.withdraw(call / 1000.0) for _ in range(3))
    assert 1990 <= retried <= 2020


@pytest.mark.parametrize(("field", "value"), [("ratio", -0.1), ("per_second", float("nan")), ("capacity", 0)])
def test_a_budget_that_cannot_work_is_refused(field, value):
    """The error names the field."""
    with pytest.raises(ConfigurationError, match=f"^retry_budget {field}: "):
        RetryBudget(**{field: value})
