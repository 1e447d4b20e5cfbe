"""Every scenario against the pure policy: pool and course, a virtual wire, and a clock that only moves when told."""

import json
import math

from requests.structures import CaseInsensitiveDict

from syncfailover.endpoint import Endpoint
from syncfailover.policy.breaker_config import BreakerConfig
from syncfailover.policy.course import Course
from syncfailover.policy.health import HealthConfig, judge
from syncfailover.policy.outcome import SUCCEEDED, classify
from syncfailover.policy.pool import EndpointPool
from syncfailover.policy.received import NEVER_SENT, RESET, SILENT, TRUNCATED, Received
from syncfailover.policy.retry import FailoverRetry, RetryBudget
from syncfailover.policy.steps import (
    ANSWERED,
    OUT_OF_TIME,
    TURNED_AWAY,
    UNAVAILABLE,
    WAITED_IN_VAIN,
    Pause,
    Stop,
    Wait,
)
from syncfailover.testing import End, ManualClock, Ok, State
from syncfailover.testing.wire import Response, as_response

COMPLETION = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Hi"}}]}
STEP_S = 0.01
BREAKER = ("failure_threshold", "recovery_timeout", "recovery_backoff", "half_open_permits")


class VirtualUpstream:
    """What a `FakeUpstream` does with the same faults, without a socket."""

    def __init__(self, faults, always, clock):
        self.faults, self.always, self.clock = faults, always or Ok(), clock
        self.down = False
        self.asked = 0

    def send(self, timeout_s):
        """Answer one attempt, and let the time pass that it takes."""
        if self.down:
            return Received(fault=NEVER_SENT, detail="connect refused")
        self.asked += 1
        fault = self.faults.pop(0) if self.faults else self.always
        answer = fault.answer(lambda _ok: as_response(200, COMPLETION))
        takes_s = answer.delay_s + sum(step.pause_s for step in answer.steps(is_last=False))
        if takes_s >= timeout_s or math.isinf(takes_s):
            self.clock.advance(timeout_s)
            return Received(fault=SILENT, detail="no reply")
        self.clock.advance(takes_s)
        self.down = answer.state in (State.REFUSING, State.BLACKHOLE)
        if isinstance(answer.data, Response):
            return self.reply(answer.data)
        return Received(fault=TRUNCATED if answer.data and answer.end is End.CLOSE else RESET)

    def reply(self, response):
        """Read a response as a door does."""
        try:
            payload = json.loads(response.body)
        except ValueError:
            payload = None
        headers = CaseInsensitiveDict({name: str(value) for name, value in response.headers.items()})
        return Received(response.status, headers, response.body, payload)


class Driver:
    """A client without threads and sockets."""

    def __init__(self, scenario, told):
        self.scenario, self.told = scenario, told
        self.clock = ManualClock()
        options = dict(scenario.options)
        self.queue_s = options.pop("queue_timeout", 0.0)
        self.later = []
        self.pool = EndpointPool(
            [Endpoint(name, "http://127.0.0.1:1/v1", **scenario.fields(name)) for name in scenario.endpoints],
            balancer=options.pop("balancer", "weighted"),
            breaker=BreakerConfig(**{name: options.pop(name) for name in BREAKER if name in options}),
            health=HealthConfig(),
            budget=RetryBudget(**options.pop("retry_budget", {})),
            chance=lambda: 0.0,
            queue_size=options.pop("queue_size", 100),
        )
        assert not options
        self.upstreams = {
            name: VirtualUpstream(*scenario.script(name), self.clock) for name in scenario.endpoints
        }

    def call(self, how):
        """Make one call, and tell how it went."""
        began = self.clock()
        course = Course(
            self.pool,
            FailoverRetry(**self.scenario.retry),
            how.get("model", "gpt-4.1"),
            began + self.scenario.timeout,
            read_s=self.scenario.read,
            chance=lambda: 0.0,
            queue_s=self.queue_s,
        )
        attempts, errors, waited_s = [], [], 0.0
        step = course.begin(began)
        while not isinstance(step, Stop):
            if isinstance(step, Pause):
                waited_s += step.until - self.clock()
                self.clock.advance(step.until - self.clock())
                step = course.resume(self.clock())
                continue
            if isinstance(step, Wait):
                came = self.clock()
                step = course.served(self.stand(step), self.clock())
                waited_s += self.clock() - came
                continue
            name = step.endpoint.name
            course.limit(step, self.clock())
            received = self.upstreams[name].send(step.timeout_s)
            outcome = classify(received, expects="choices")
            self.pool.report(step, outcome, self.clock())
            attempts.append((name, outcome.rule.name, waited_s))
            errors.append(outcome.rule.error.__name__)
            waited_s = 0.0
            step = course.after(step, outcome, self.clock())
        answered = step is ANSWERED and outcome is SUCCEEDED
        return self.told(
            attempts,
            self.clock() - began,
            None if answered else error_of(step, errors),
            attempts[-1][0] if answered else None,
        )

    def stand(self, wait):
        """Wait in line as the registry does, while what is to happen later happens."""
        ticket = wait.ticket
        ticket.attempt, ticket.refused = None, not self.pool.lines.join(ticket, self.clock())
        while not ticket.refused:
            self.pool.serve(ticket.model, self.clock())
            if ticket.attempt is not None or self.clock() >= wait.until:
                break
            self.clock.advance(min(STEP_S, wait.until - self.clock()))
            for due in [step for step in self.later if step[0] <= self.clock()]:
                self.later.remove(due)
                self.do(*due[1:])
        self.pool.lines.leave(ticket)
        return ticket.attempt

    def do(self, word, value):
        """Carry out a step that is no call."""
        if word == "wait":
            self.clock.advance(value)
        elif word == "later":
            self.later.append((self.clock() + value[0], *value[1:]))
        elif word in ("down", "up"):
            self.upstreams[value].down = word == "down"
        elif word == "heal":
            self.upstreams[value].faults, self.upstreams[value].always = [], Ok()
        elif word == "probe":
            for name in self.upstreams:
                self.pool.probed(judge(name, value.get(name, 200), 1.0), self.clock())
        else:
            self.pool.control(value, {"disable_breaker": "disable"}.get(word, word), self.clock())


ENDS = {
    UNAVAILABLE: "NoEndpointAvailable",
    OUT_OF_TIME: "DeadlineExceeded",
    TURNED_AWAY: "QueueFull",
    WAITED_IN_VAIN: "QueueTimeout",
}


def error_of(stop, errors):
    """Name the error that an end of a course stands for."""
    if stop in ENDS:
        return ENDS[stop]
    if stop is ANSWERED:
        return errors[-1]
    return errors[0] if len(set(errors)) == 1 else "AllEndpointsFailed"


def test_scenario(scenario, told):
    """What the data says happens, happens in the policy."""
    driver = Driver(scenario, told)
    went = []
    for word, value in scenario.steps:
        if word == "call":
            went.append(driver.call(value))
        else:
            driver.do(word, value)
    scenario.check(
        went,
        {name: node.breaker.state.name.value for name, node in driver.pool.nodes.items()},
        {name: upstream.asked for name, upstream in driver.upstreams.items()},
    )
