"""Scenarios are data (given, when, then), told twice: to the pure policy, and over real sockets.

given.endpoints   by name: fields of `Endpoint`, and `calls`, the script of faults (`times` repeats one), with
                  `always` for what follows them. A fault is what `syncfailover.testing.fault_from` reads.
given.client      `timeout`, `read`, `queue_timeout`, `retry` (arguments of `FailoverRetry`), and options of the registry.
when              steps: call (`times`, `every` so many seconds, `model`), wait, down, up, heal, probe, and orders to a
                  breaker (force_open, disable_breaker, reset). A step with `later` happens so many seconds after.
then.calls        for each call in turn (`times` repeats): the attempts as "endpoint outcome" or "endpoint outcome after
                  so many seconds", `took_s` (least, most), and the `error` where it is not answered.
then.breakers     their states at the end; then.asked: how many requests reached an endpoint.

In both runs pauses take no time: the clock skips them; over sockets, what is waited for in line takes as long as it
says. Chance is always 0.
"""

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import pytest

from syncfailover.testing import Fault, fault_from

#: A wait over sockets may be this much longer than planned, on a busy machine.
SLACK_S = 0.4


class Told(NamedTuple):
    """How one call went."""

    #: (endpoint, outcome, seconds waited before it)
    attempts: List[Tuple[str, str, float]]
    took_s: float
    #: The name of the error's class; None for an answer.
    error: Optional[str]
    answered_by: Optional[str]


class Scenario:
    """One scenario, read."""

    def __init__(self, data: Dict[str, Any]) -> None:
        self.says: str = data["says"]
        self.endpoints: Dict[str, Dict[str, Any]] = data["given"]["endpoints"]
        self.options: Dict[str, Any] = dict(data["given"].get("client", {}))
        self.timeout: float = self.options.pop("timeout", 30.0)
        self.read: Optional[float] = self.options.pop("read", None)
        self.retry: Dict[str, Any] = self.options.pop("retry", {})
        self.steps = list(_steps(data["when"]))
        self.then: Dict[str, Any] = data["then"]
        #: A wait for what happens later may be shorter than planned: it begins after that was set up.
        self.early_s = 0.2 if any(word == "later" for word, _ in self.steps) else 0.01

    def fields(self, name: str) -> Dict[str, Any]:
        """Give an endpoint's fields."""
        return {k: v for k, v in self.endpoints[name].items() if k not in ("calls", "always")}

    def script(self, name: str) -> Tuple[List[Fault], Optional[Fault]]:
        """Give an endpoint's faults, and what follows them."""
        given = self.endpoints[name]
        faults = [_fault(data) for data in given.get("calls", []) for _ in range(data.get("times", 1))]
        return faults, _fault(given["always"]) if "always" in given else None

    def check(self, told: List[Told], breakers: Dict[str, str], asked: Dict[str, int]) -> None:
        """Compare what happened with what should have."""
        expected = [call for call in self.then["calls"] for _ in range(call.get("times", 1))]
        assert len(told) == len(expected)
        for number, (call, went) in enumerate(zip(expected, told)):
            self._check_call(f"call {number}: {went}", call, went)
        assert breakers == {**dict.fromkeys(self.endpoints, "closed"), **self.then.get("breakers", {})}
        for name, count in self.then.get("asked", {}).items():
            assert asked[name] == count, name

    def _check_call(self, shown: str, call: Dict[str, Any], went: Told) -> None:
        planned = [_attempt(text) for text in call["attempts"]]
        assert [(name, outcome) for name, outcome, _ in went.attempts] == [p[:2] for p in planned], shown
        for (_, _, wait_s), (_, _, planned_s) in zip(went.attempts, planned):
            assert planned_s - self.early_s <= wait_s <= planned_s + SLACK_S, shown
        assert went.error == call.get("error"), shown
        assert went.answered_by == (None if "error" in call else planned[-1][0]), shown
        least, most = call.get("took_s", (0.0, 0.0))
        assert least - self.early_s <= went.took_s <= most + SLACK_S, shown


def _steps(when: List[Dict[str, Any]]) -> Iterator[Tuple[str, Any]]:
    for step in when:
        ((word, value),) = ((w, v) for w, v in step.items() if w not in ("times", "every", "later"))
        if "later" in step:
            word, value = "later", (step["later"], word, value)
        for number in range(step.get("times", 1)):
            if number and "every" in step:
                yield "wait", step["every"]
            yield word, value


def _fault(data: Dict[str, Any]) -> Fault:
    return fault_from({name: value for name, value in data.items() if name != "times"})


def _attempt(text: str) -> Tuple[str, str, float]:
    what, _, wait_s = text.partition(" after ")
    name, outcome = what.split(" ")
    return name, outcome, float(wait_s or 0.0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Hand each scenario of each file to every test that asks for one."""
    if "scenario" in metafunc.fixturenames:
        files = sorted(Path(__file__).parent.glob("*.json"))
        found = [(path.stem, data) for path in files for data in json.loads(path.read_text("utf-8"))]
        metafunc.parametrize(
            "scenario",
            [pytest.param(Scenario(data), id=f"{stem}: {data['says']}") for stem, data in found],
        )


@pytest.fixture
def told() -> Any:
    """The type of what a runner tells of a call."""
    return Told
