"""The course of one call: each numbered rule at the top of `policy/course.py`."""

import pytest

from syncfailover.policy import outcome
from syncfailover.policy.course import Course
from syncfailover.policy.node import Attempt
from syncfailover.policy.outcome import SUCCEEDED, Outcome
from syncfailover.policy.retry import FailoverRetry, RetryBudget
from syncfailover.policy.steps import ANSWERED, EXHAUSTED, OUT_OF_TIME, UNAVAILABLE, Pause


class Walk:
    """A course over a bench, told in short words."""

    def __init__(self, bench, retry=3, *, total_s=30.0, model=None, **options):
        self.bench, self.clock, self.ledger = bench, bench.clock, []
        self.course = Course(
            bench.pool,
            FailoverRetry.from_value(retry),
            model,
            bench.clock() + total_s,
            chance=lambda: 0.0,
            **{"read_s": None, **options},
        )
        self.step = self.course.begin(bench.clock())

    def then(self, rule_name, took_s=0.0, **said):
        """Let the present attempt come to this, and take the next step; a pause is not waited for."""
        assert isinstance(self.step, Attempt), self.step
        self.clock.advance(took_s)
        rule = getattr(outcome, rule_name)
        result = SUCCEEDED if rule is outcome.OK else Outcome(rule, rule.name, **said)
        self.bench.pool.report(self.step, result, self.clock())
        self.step = self.course.after(self.step, result, self.clock())
        return self

    def wait(self):
        """Wait until the end of the pause, and return how long that was."""
        assert isinstance(self.step, Pause), self.step
        waited = self.step.until - self.clock()
        self.clock.advance(waited)
        self.step = self.course.resume(self.clock())
        return pytest.approx(waited)

    def go(self, rule_name, most=50, **said):
        """Let everything come to the same, pauses waited for; return who was asked, a dot for each pause."""
        story = ""
        for _ in range(most):
            if isinstance(self.step, Pause):
                story += "."
                self.wait()
            elif isinstance(self.step, Attempt):
                story += self.at
                self.then(rule_name, **said)
            else:
                break
        return story

    @property
    def at(self):
        """Who is being asked."""
        return self.step.endpoint.name

    @property
    def timeout_s(self):
        """How long the present attempt may take."""
        self.course.limit(self.step, self.clock())
        return self.step.timeout_s


@pytest.fixture
def exits(bench, endpoint):
    """Two peers and an emergency exit."""
    return bench("a", "b", endpoint("x", priority=1))


@pytest.fixture
def lone(bench, endpoint):
    """One primary and an emergency exit."""
    return bench("a", endpoint("x", priority=1))


# 1. What no other endpoint could cure


@pytest.mark.parametrize("rule_name", ["OK", "REJECTED", "FILTERED", "ONE_SHOT"])
def test_what_nobody_else_could_cure_is_the_callers(exits, rule_name):
    """Success, a bad request, a content filter, a body that cannot be sent twice: one attempt."""
    assert Walk(exits).then(rule_name).step is ANSWERED


def test_what_may_have_been_processed_goes_to_one_other(bench):
    """After two silences nobody else is asked, however many there are."""
    assert Walk(bench("a", "b", "c", "d")).go("TIMED_OUT") == "ab"


@pytest.mark.parametrize(
    ("first", "second"), [("TIMED_OUT", "BROKEN"), ("BROKEN", "TIMED_OUT"), ("BROKEN", "CUT_SHORT")]
)
def test_all_ambiguous_results_are_one_gamble(bench, first, second):
    """A silence after a reset is the second one, too."""
    walk = Walk(bench("a", "b", "c")).then(first)
    assert walk.at == "b"
    assert walk.then(second).step is EXHAUSTED


def test_after_a_gamble_a_clear_refusal_still_goes_on(bench):
    """What was surely not processed by the second may go to a third."""
    walk = Walk(bench("a", "b", "c")).then("TIMED_OUT").then("OVERLOADED")
    assert walk.at == "c"
    assert walk.then("TIMED_OUT").step is EXHAUSTED


def test_after_a_gamble_never_the_silent_one_again(bench):
    """Neither a round later nor when it is the only one left."""
    walk = Walk(bench("a", "b")).then("TIMED_OUT")
    assert walk.go("OVERLOADED") == "b.b.b"


@pytest.mark.parametrize("rule_name", ["TIMED_OUT", "BROKEN", "CUT_SHORT", "NO_ANSWER"])
def test_a_caller_who_must_not_be_billed_twice_raises(exits, rule_name):
    """With ambiguous="raise" nothing that may have been processed is sent again, not even to the same."""
    assert Walk(exits, FailoverRetry(3, ambiguous="raise")).then(rule_name).step is EXHAUSTED


@pytest.mark.parametrize("rule_name", ["UNREACHABLE", "OVERLOADED", "RATE_LIMIT", "KEY_REFUSED"])
def test_such_a_caller_still_fails_over_from_clear_refusals(exits, rule_name):
    """What was surely not processed goes elsewhere also with ambiguous="raise"."""
    assert Walk(exits, FailoverRetry(3, ambiguous="raise")).then(rule_name).at == "b"


def test_what_may_not_be_repeated_is_sent_again_only_if_it_was_never_sent(exits):
    """A method that the caller excluded fails over only from endpoints that never saw it."""
    walk = Walk(exits, repeatable=False).then("UNREACHABLE")
    assert walk.at == "b"
    assert walk.then("OVERLOADED").step is EXHAUSTED


# 2. A peer at once


@pytest.mark.parametrize(
    "rule_name",
    [
        *(
            "UNREACHABLE",
            "TIMED_OUT",
            "BROKEN",
            "CUT_SHORT",
            "RATE_LIMIT",
            "IN_FLIGHT",
            "QUOTA",
            "KEY_REFUSED",
        ),
        *("FORBIDDEN", "MODEL_MISSING", "TRANSIENT", "SERVER_ERROR", "OVERLOADED", "NO_ANSWER", "MOVED"),
    ],
)
def test_a_peer_is_asked_at_once(exits, rule_name):
    """Whatever one endpoint alone is to blame for, its peer of the same priority is asked without a pause."""
    assert Walk(exits).then(rule_name).at == "b"


def test_nobody_is_asked_twice_in_a_round(bench):
    """Each peer has its try before anybody has a second one."""
    assert Walk(bench("a", "b", "c", "d"), 3).go("OVERLOADED") == "abcd"


# 3. One quick retry before a priority is left


@pytest.mark.parametrize(
    "rule_name", ["SERVER_ERROR", "BROKEN", "TRANSIENT", "RATE_LIMIT", "IN_FLIGHT", "CUT_SHORT"]
)
def test_a_transient_fault_earns_one_more_try_before_the_exit(lone, rule_name):
    """After half a second at most the same endpoint is asked once more, then the exit."""
    walk = Walk(lone).then(rule_name)
    assert walk.wait() == 0.375
    assert walk.at == "a"
    assert walk.then(rule_name).at == "x"


@pytest.mark.parametrize(
    "rule_name",
    [
        "UNREACHABLE",
        "TIMED_OUT",
        "OVERLOADED",
        "QUOTA",
        "KEY_REFUSED",
        "FORBIDDEN",
        "MODEL_MISSING",
        "NO_ANSWER",
    ],
)
def test_a_lasting_fault_earns_none(lone, rule_name):
    """The exit is asked at once where asking the same again would be in vain."""
    assert Walk(lone).then(rule_name).at == "x"


@pytest.mark.parametrize(
    ("asked_s", "story"), [(0.2, "pause"), (2.0, "pause"), (5.0, "pause"), (5.1, "x"), (60.0, "x")]
)
def test_a_retry_after_of_up_to_five_seconds_is_waited_out(lone, asked_s, story):
    """The emergency exit is dearer than that; beyond it is not."""
    walk = Walk(lone).then("RATE_LIMIT", retry_after_s=asked_s)
    if story == "pause":
        assert walk.wait() == asked_s
        assert walk.at == "a"
    else:
        assert walk.at == "x"


def test_a_peer_comes_before_the_quick_retry(exits):
    """With a peer there is no pause; the last of the peers has the quick retry."""
    walk = Walk(exits).then("SERVER_ERROR")
    assert walk.at == "b"
    walk.then("SERVER_ERROR")
    walk.wait()
    assert walk.at == "b"
    assert walk.then("SERVER_ERROR").at == "x"


def test_each_endpoint_has_one_quick_retry_per_call(bench):
    """A lone endpoint is quickly asked once more; what follows is a backoff."""
    walk = Walk(bench("a", failure_threshold=99), FailoverRetry(4, quick_retry_after_s=5.0))
    assert walk.then("SERVER_ERROR", retry_after_s=2.0).wait() == 2.0
    assert walk.then("SERVER_ERROR", retry_after_s=2.0).wait() == 0.375
    assert walk.then("SERVER_ERROR", retry_after_s=2.0).wait() == 0.75


def test_the_pause_of_a_quick_retry_is_the_first_backoff(bench):
    """A lone endpoint that goes on failing is asked less and less often."""
    walk = Walk(bench("a", failure_threshold=99), 4)
    pauses = [walk.then("SERVER_ERROR").wait() for _ in range(4)]
    assert pauses == [0.375, 0.75, 1.5, 3.0]


def test_a_quick_retry_of_one_that_went_down_meanwhile_goes_elsewhere(lone):
    """If others tripped its breaker during the pause, the exit is asked."""
    walk = Walk(lone).then("TRANSIENT")
    lone.trip("a")
    walk.wait()
    assert walk.at == "x"


def test_no_quick_retry_beyond_the_deadline(lone):
    """A pause that would end too late is not made: the exit is asked at once."""
    assert Walk(lone, total_s=2.0).then("RATE_LIMIT", retry_after_s=3.0).at == "x"


# 4. The next lower priority at once


def test_the_exits_are_asked_in_order(bench, endpoint):
    """Priority by priority, without a pause."""
    made = bench("a", endpoint("x", priority=1), endpoint("y", priority=2))
    assert Walk(made).go("KEY_REFUSED") == "axy"


def test_a_larger_window_is_the_only_way_on_from_a_prompt_too_long(bench, endpoint):
    """Peers with the same or no declared window are skipped, also in later rounds."""
    made = bench(
        endpoint("a", context_window=8000),
        endpoint("b", context_window=8000),
        endpoint("c"),
        endpoint("x", priority=1, context_window=32000),
    )
    walk = Walk(made).then("CONTEXT_LENGTH")
    assert walk.at == "x"
    assert walk.then("CONTEXT_LENGTH").step is EXHAUSTED


def test_without_a_larger_window_a_prompt_too_long_ends_the_call(exits):
    """Where nobody declares one, one attempt is all."""
    assert Walk(exits).then("CONTEXT_LENGTH").step is EXHAUSTED


def test_a_larger_window_that_fails_is_asked_again_and_the_small_ones_are_not(bench, endpoint):
    """A transient fault of the large one does not bring the small ones back."""
    made = bench(endpoint("a", context_window=8000), endpoint("x", priority=1, context_window=32000))
    assert Walk(made).then("CONTEXT_LENGTH").go("OVERLOADED") == "x.x.x"


# 5. Another round


def test_with_nobody_new_left_a_round_begins_after_a_backoff(bench):
    """The pauses grow: three eighths of a second, three quarters, one and a half."""
    walk = Walk(bench("a", failure_threshold=99), 4)
    pauses = [walk.then("OVERLOADED").wait() for _ in range(4)]
    assert pauses == [0.375, 0.75, 1.5, 3.0]
    assert walk.then("OVERLOADED").step is EXHAUSTED


def test_a_round_begins_when_the_first_that_rests_is_ready(bench):
    """The time asked for is waited, not the backoff, and who asked for less comes first."""
    walk = Walk(bench("a", "b")).then("RATE_LIMIT", retry_after_s=20.0).then("RATE_LIMIT", retry_after_s=8.0)
    assert walk.wait() == 8.0
    assert walk.at == "b"


def test_who_was_never_to_be_asked_again_is_not(bench):
    """A refused key and a silent host have no second round."""
    walk = Walk(bench("a", "b", "c"), 5).then("KEY_REFUSED").then("TIMED_OUT")
    assert walk.go("OVERLOADED") == "c.c.c"


def test_a_retry_after_beyond_two_minutes_is_not_waited_for(bench):
    """With nobody else the call ends rather than wait so long, whatever its deadline."""
    assert Walk(bench("a"), total_s=1000.0).then("RATE_LIMIT", retry_after_s=121.0).step is EXHAUSTED
    walk = Walk(bench("a"), total_s=1000.0).then("RATE_LIMIT", retry_after_s=119.0)
    assert walk.wait() == 119.0


def test_who_asked_for_more_than_two_minutes_is_not_asked_again(bench):
    """Also where the reply rests nobody: a 408 or a 500 that asks for so long is taken at its word."""
    for rule_name in ("TRANSIENT", "SERVER_ERROR"):
        walk = Walk(bench("a"), total_s=1000.0).then(rule_name, retry_after_s=121.0)
        assert walk.step is EXHAUSTED


def test_a_pause_that_would_end_beyond_the_deadline_is_not_begun(bench):
    """The caller hears at once what he would hear later."""
    assert Walk(bench("a"), total_s=10.0).then("RATE_LIMIT", retry_after_s=11.0).step is EXHAUSTED


def test_those_that_are_down_are_not_waited_for(bench):
    """An endpoint whose breaker opened during the call has no further round."""
    assert Walk(bench("a"), 9).go("UNREACHABLE") == "a.a.a"


# What is spent


@pytest.mark.parametrize("retries", [0, 1, 2, 3])
def test_retries_bound_the_attempts(bench, retries):
    """So many attempts follow the first, wherever they go."""
    made = bench("a", "b", "c", "d", "e")
    assert Walk(made, retries).go("OVERLOADED") == "abcd"[: retries + 1]


def test_quick_retries_and_rounds_are_spent_as_well(bench):
    """Nothing but the first attempt is free."""
    assert Walk(bench("a", failure_threshold=99), 2).go("SERVER_ERROR") == "a.a.a"


def test_never_sent_is_free(bench):
    """Going elsewhere after endpoints that never saw the call spends neither retries nor budget."""
    budget = RetryBudget(capacity=1.0)
    budget.withdraw(1000.0)
    names = list("abcdefgh")
    assert Walk(bench(*names, budget=budget), 1).go("UNREACHABLE").startswith("abcdefgh")


def test_no_retries_forbid_even_what_is_free(bench):
    """`max_retries=0` is one attempt."""
    assert Walk(bench("a", "b"), 0).go("UNREACHABLE") == "a"


def test_an_empty_budget_ends_the_call(bench):
    """Where all calls together have retried too much, this one does not add to it, and gives the permit back."""
    budget = RetryBudget(capacity=1.0, ratio=0.0)
    made = bench("a", "b", budget=budget)
    assert Walk(made).then("OVERLOADED").at == "b"
    made.pool.nodes["b"].in_flight = 0
    walk = Walk(made)
    assert walk.then("OVERLOADED").step is EXHAUSTED
    assert [node.in_flight for node in made.pool.nodes.values()] == [0, 0]


def test_each_step_takes_one_from_the_budget(lone):
    """A peer, a quick retry, an exit: one token each."""
    before = lone.budget.tokens
    walk = Walk(lone).then("SERVER_ERROR")
    walk.wait()
    walk.then("SERVER_ERROR")
    assert before - lone.budget.tokens == pytest.approx(2.0, abs=0.5)
    assert lone.budget.tokens < before - 1.0


def test_a_callers_forcelist_sends_elsewhere(exits):
    """A status that the caller named in his `Retry` fails over although the table would not."""
    retry = FailoverRetry(3, status_forcelist=[422])
    assert Walk(exits, retry).then("REJECTED", status=422).at == "b"
    assert Walk(exits, retry).then("REJECTED", status=400).step is ANSWERED


# While everybody fails


@pytest.fixture
def out(bench, endpoint):
    """Five peers who have just failed a call; no breaker opens."""
    made = bench("a", "b", "c", "d", "e", failure_threshold=99)
    Walk(made, 9).go("UNREACHABLE")
    made.clock.advance(1.0)
    return made


def test_the_call_that_finds_it_out_asks_everybody_once_and_then_one_in_each_round(bench):
    """Nobody is passed over unasked; what was asked a moment ago is not asked again for want of another."""
    assert Walk(bench("a", "b", "c", "d", "e", failure_threshold=99)).go("UNREACHABLE") == "abcde.a.b.c"


def test_a_later_call_makes_one_attempt_in_each_round(out):
    """A door after the other would stay shut; but after a pause it may be open."""
    for _ in range(5):
        assert len(Walk(out).go("OVERLOADED").replace(".", "")) == 4


def test_a_call_that_was_under_way_asks_nobody_whom_others_found_failing(bench):
    """It did not begin knowing that, but it knows now, and may wait for a change."""
    made = bench("a", "b", failure_threshold=99)
    walk = Walk(made)
    for _ in range(4):
        Walk(made, 0).go("OVERLOADED")
    made.clock.advance(0.1)
    assert walk.go("OVERLOADED") in ("a.a.b.a", "a.b.a.b")


def test_who_waits_takes_anothers_word_that_nothing_has_changed(out):
    """A pause is followed by another one, where somebody else has just asked in vain; else by an attempt."""
    walk = Walk(out).then("OVERLOADED")
    out.clock.advance(0.3)
    Walk(out, 0).go("OVERLOADED")
    walk.wait()
    assert isinstance(walk.step, Pause)
    walk.wait()
    assert isinstance(walk.step, Attempt)


def test_its_own_failures_are_no_news(bench):
    """Where a caller wants no backoff, each retry is an attempt."""
    retry = FailoverRetry(9, backoff_base_s=0.0)
    assert Walk(bench("a", failure_threshold=99), retry).go("OVERLOADED") == "a" + 9 * ".a"


def test_a_call_that_may_wait_in_line_asks_all_the_same(out):
    """The line forms when breakers have opened, which takes failures."""
    walk = Walk(out, queue_s=30.0)
    for _ in range(4):
        walk.then("UNREACHABLE")
    assert isinstance(walk.step, Attempt)


@pytest.mark.parametrize("rule_name", ["TIMED_OUT", "TOO_LATE"])
def test_after_a_silence_another_one_is_asked_all_the_same(out, rule_name):
    """Half of the time is gone, and what is left is better spent on an attempt than on a pause."""
    assert isinstance(Walk(out).then(rule_name).step, Attempt)


def test_one_answer_ends_it_for_all(out):
    """Whoever it is that answers, and whichever call."""
    Walk(out).then("OK")
    assert len(Walk(out).go("UNREACHABLE")) > 5


def test_a_probe_that_is_answered_ends_it(out):
    """The next call goes on from wherever it begins to the one that is alive."""
    out.probe("d", "+")
    for _ in range(4):
        walk = Walk(out)
        if walk.at != "d":
            assert walk.then("UNREACHABLE").at == "d"
            break
    else:
        pytest.fail("d is always asked first")


def test_a_failure_is_forgotten_after_ten_seconds(out):
    """What nobody has tried for so long may well be mended."""
    out.clock.advance(11.0)
    assert len(Walk(out).go("UNREACHABLE")) > 5


def test_whoever_has_not_failed_yet_is_asked_before_those_who_have(bench):
    """The second call needs no luck to find the only one that is alive."""
    made = bench("a", "b", "c", "d", "e")
    assert Walk(made).go("OVERLOADED") == "abcd"
    made.clock.advance(0.1)
    walk = Walk(made)
    if walk.at != "e":
        walk.then("OVERLOADED")
    assert walk.at == "e"


def test_an_exit_that_has_not_failed_is_asked(bench, endpoint):
    """The primaries may all be out, and a later call takes one for the proof; the exit is another one."""
    made = bench("a", "b", "c", "d", "e", endpoint("x", priority=1), failure_threshold=99)
    first = Walk(made)
    for _ in range(5):
        first.then("UNREACHABLE")
    assert first.at == "x"
    assert Walk(made).then("UNREACHABLE").at == "x"


def test_those_who_only_ask_for_rest_do_not_fail(bench):
    """A rate limit is an answer of one that is alive: it is waited out as ever."""
    made = bench("a", "b")
    for _ in range(3):
        walk = Walk(made).then("RATE_LIMIT", retry_after_s=2.0).then("RATE_LIMIT", retry_after_s=2.0)
        assert walk.wait() == 2.0
        made.clock.advance(3.0)


# The deadline


def test_an_attempt_may_use_half_of_what_is_left_while_another_could_be_tried(exits):
    """One silent host never eats the whole deadline; the last one gets all of it."""
    walk = Walk(exits, total_s=30.0)
    assert walk.timeout_s == 15.0
    walk.then("OVERLOADED", took_s=6.0)
    assert walk.timeout_s == 12.0
    walk.then("OVERLOADED", took_s=4.0)
    assert walk.at == "x"
    assert walk.timeout_s == 20.0


def test_a_caller_who_asks_nobody_else_gives_the_first_all_the_time(exits):
    """Where a silence would end the call, keeping half of the time for others would be in vain."""
    assert Walk(exits, FailoverRetry(3, ambiguous="raise")).timeout_s == 30.0
    assert Walk(exits, repeatable=False).timeout_s == 30.0


def test_a_lone_endpoint_gets_all_the_time(bench):
    """There is nobody to keep time for."""
    assert Walk(bench("a"), total_s=30.0).timeout_s == 30.0


def test_the_one_other_after_a_silence_gets_all_the_time(exits):
    """After the gamble nobody else would be asked."""
    assert Walk(exits, total_s=30.0).then("TIMED_OUT", took_s=15.0).timeout_s == 15.0


def test_without_retries_the_only_attempt_gets_all_the_time(exits):
    """`max_retries=0` keeps no time for others."""
    assert Walk(exits, 0, total_s=30.0).timeout_s == 30.0


def test_a_quick_retry_leaves_time_for_the_exit(lone):
    """The second try on the same endpoint may use half of what is left, for the exit could still be tried."""
    walk = Walk(lone, total_s=20.375).then("SERVER_ERROR")
    walk.wait()
    assert walk.at == "a"
    assert walk.timeout_s == pytest.approx(10.0)


@pytest.mark.parametrize(("left_s", "expected"), [(30.0, 4.0), (3.0, 3.0)])
def test_a_read_timeout_of_the_callers_bounds_each_attempt(exits, left_s, expected):
    """It is used as it is, within the deadline."""
    assert Walk(exits, total_s=left_s, read_s=4.0).timeout_s == expected


def test_no_step_begins_beyond_the_deadline(exits):
    """A result that comes at the deadline ends the call, whatever could be tried."""
    assert Walk(exits, total_s=5.0).then("OVERLOADED", took_s=5.0).step is OUT_OF_TIME


def test_what_is_the_callers_is_his_also_at_the_deadline(exits):
    """A late answer is an answer, and a late refusal the refusal."""
    assert Walk(exits, total_s=5.0).then("OK", took_s=9.0).step is ANSWERED
    assert Walk(exits, total_s=5.0).then("REJECTED", took_s=9.0).step is ANSWERED


def test_a_pause_that_overslept_ends_the_call(lone):
    """If the machine slept longer than asked, nothing begins beyond the deadline."""
    walk = Walk(lone, total_s=5.0).then("SERVER_ERROR")
    lone.clock.advance(5.0)
    assert walk.course.resume(lone.clock()) is OUT_OF_TIME


# Nobody


def test_nobody_to_ask(bench):
    """Where not even failing open finds anybody the call ends before it began."""
    made = bench("a")
    made.pool.control("a", "force_open", made.clock())
    assert Walk(made).step is UNAVAILABLE


def test_a_call_that_failed_open_makes_one_attempt(bench):
    """With everything down, one attempt is made and no other."""
    made = bench("a", "b")
    made.trip("a", "b")
    assert len(Walk(made).go("UNREACHABLE")) == 1
