"""The pytest fixtures."""

from typing import ClassVar

from syncfailover.testing import FakeUpstream, ManualClock


def test_each_test_has_a_clock(manual_clock):
    """The clock is a fresh one."""
    assert isinstance(manual_clock, ManualClock)
    assert manual_clock() == 1000.0


def test_each_test_has_a_running_upstream(fake_upstream):
    """The upstream runs and has seen nothing."""
    assert isinstance(fake_upstream, FakeUpstream)
    assert fake_upstream.alive
    assert fake_upstream.requests == []


def test_upstreams_come_in_any_number(fake_upstreams, ask):
    """The factory starts as many as asked for, with options, names and ports of their own."""
    upstreams = fake_upstreams(3, text="I am {name}.")
    assert len({upstream.port for upstream in upstreams}) == 3
    replies = [ask(to=upstream).json()["choices"][0]["message"]["content"] for upstream in upstreams]
    assert replies == ["I am upstream-1.", "I am upstream-2.", "I am upstream-3."]


class TestTeardown:
    """What the factory started, the teardown stops."""

    started: ClassVar = []

    def test_first(self, fake_upstreams):
        """Upstreams run for as long as the test does."""
        self.started.extend(fake_upstreams(2))
        assert all(upstream.alive for upstream in self.started)

    def test_then(self):
        """After the test they are stopped, killed ones too."""
        assert not any(upstream.alive for upstream in self.started)
