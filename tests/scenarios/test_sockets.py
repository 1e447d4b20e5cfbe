"""Every scenario over real sockets: the client against fake upstreams, with a clock that skips what is waited for."""

import contextlib
import threading
import time

import pytest

from syncfailover import Endpoint, FailoverClient, FailoverRetry, Timeouts
from syncfailover.errors import FailoverError
from syncfailover.policy.retry import RetryBudget
from syncfailover.testing import FakeUpstream, Status


class SkippingClock:
    """The machine's own clock, put forward instead of waiting."""

    def __init__(self):
        self.ahead_s = 0.0

    def __call__(self):
        """Read it."""
        return time.monotonic() + self.ahead_s

    def skip(self, seconds):
        """Be so many seconds later at once."""
        self.ahead_s += seconds


class Stage:
    """Upstreams and a client of them."""

    def __init__(self, scenario, told, running):
        self.told = told
        self.clock = SkippingClock()
        self.upstreams = {name: running.enter_context(FakeUpstream(name)) for name in scenario.endpoints}
        for name, upstream in self.upstreams.items():
            faults, always = scenario.script(name)
            upstream.calls.script(*faults)
            if always is not None:
                upstream.calls.always(always)
        options = dict(scenario.options)
        if "retry_budget" in options:
            options["retry_budget"] = RetryBudget(**options["retry_budget"])
        self.client = running.enter_context(
            FailoverClient(
                [
                    Endpoint(name, upstream.url, max_latency_ms=60_000.0, **scenario.fields(name))
                    for name, upstream in self.upstreams.items()
                ],
                model="gpt-4.1",
                timeout=Timeouts(total=scenario.timeout, connect=2.0, read=scenario.read),
                max_retries=FailoverRetry(**scenario.retry),
                probe_when="never",
                clock=self.clock,
                sleep=self.clock.skip,
                chance=lambda: 0.0,
                **options,
            )
        )

    def call(self, how):
        """Make one call, and tell how it went."""
        began = self.clock()
        try:
            reply = self.client.chat("Hello", **how)
        except FailoverError as error:
            attempts, failed, answered_by = getattr(error, "attempts", ()), type(error).__name__, None
        else:
            attempts, failed, answered_by = reply.attempts, None, reply.endpoint
            assert reply.text == f"Hello from {answered_by}."
        return self.told(
            [(a.endpoint, a.outcome, a.wait_s) for a in attempts],
            self.clock() - began,
            failed,
            answered_by,
        )

    def do(self, word, value):
        """Carry out a step that is no call."""
        if word == "wait":
            self.clock.skip(value)
        elif word == "later":
            threading.Timer(value[0], self.do, value[1:]).start()
        elif word == "down":
            self.upstreams[value].kill()
        elif word == "up":
            self.upstreams[value].revive()
        elif word == "heal":
            self.upstreams[value].heal()
        elif word == "probe":
            for name, upstream in self.upstreams.items():
                upstream.probes.always(Status(value.get(name, 200)))
            self.client._monitor.probe_all()
        else:
            getattr(self.client.registry, word)(value)


@pytest.fixture
def stage(scenario, told):
    """Run the upstreams for the length of a test."""
    with contextlib.ExitStack() as running:
        yield Stage(scenario, told, running)


def test_scenario(scenario, stage):
    """What the data says happens, happens over sockets."""
    went = [done for done in (perform(stage, word, value) for word, value in scenario.steps) if done]
    scenario.check(
        went,
        {name: state.breaker.value for name, state in stage.client.status().items()},
        {name: len(upstream.calls.requests) for name, upstream in stage.upstreams.items()},
    )


def perform(stage, word, value):
    """Carry out a step; return how it went if it was a call."""
    return stage.call(value) if word == "call" else stage.do(word, value)
