"""The latency of live calls: peaks at once, calm slowly."""

from math import exp

import pytest

from syncfailover.policy.latency import PeakEwma


def test_unknown_before_the_first_call():
    """There is no latency, not one of 0."""
    assert PeakEwma().value_ms(100.0) is None


def test_a_peak_counts_at_once():
    """A slower call than ever replaces the average."""
    latency = PeakEwma()
    latency.observe(10.0, 0.0)
    latency.observe(500.0, 1.0)
    assert latency.value_ms(1.0) == 500.0


def test_calm_comes_slowly():
    """A quicker call moves the average by the share of the time constant of 10 s that has passed."""
    latency = PeakEwma()
    latency.observe(500.0, 0.0)
    latency.observe(10.0, 10.0)
    assert latency.value_ms(10.0) == pytest.approx(500.0 * exp(-1) + 10.0 * (1 - exp(-1)))


def test_a_quick_call_right_after_a_peak_hardly_counts():
    """A burst of quick errors does not hide a slow endpoint."""
    latency = PeakEwma()
    latency.observe(500.0, 0.0)
    for _ in range(100):
        latency.observe(1.0, 0.0)
    assert latency.value_ms(0.0) == 500.0


def test_it_decays_while_nobody_calls():
    """One that was slow long ago is tried again: after 10 s a third is left."""
    latency = PeakEwma()
    latency.observe(1000.0, 0.0)
    assert latency.value_ms(10.0) == pytest.approx(1000.0 * exp(-1))
    assert latency.value_ms(100.0) < 0.1


def test_time_that_does_not_move_changes_nothing():
    """Read at the time of the last call, or before it, the value is the one observed."""
    latency = PeakEwma()
    latency.observe(80.0, 50.0)
    assert latency.value_ms(50.0) == 80.0
    assert latency.value_ms(49.0) == 80.0
