"""Latencies: quantiles within a percent of the exact ones, at the cost of some buckets."""

from math import ceil
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncfailover.policy.histogram import LatencyHistogram


def filled(values: List[float]) -> LatencyHistogram:
    """Make one of values."""
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(
    values=st.lists(st.floats(0.002, 1e7), min_size=1, max_size=300),
    quantile=st.sampled_from([0.5, 0.95, 0.99, 1.0]),
)
def test_a_quantile_is_within_a_percent(values: List[float], quantile: float) -> None:
    """Of the exact one by nearest rank, whatever came."""
    exact = sorted(values)[ceil(round(quantile * len(values), 6)) - 1]
    assert filled(values).quantile_ms(quantile) == pytest.approx(exact, rel=0.0101)


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 100, 700, 1000, 4300])
def test_the_rank_is_the_nearest(count: int) -> None:
    """Of a hundred different ones p95 is the 95th: no rounding takes the next."""
    values = [1.05**step for step in range(count) if step < 100] * (1 if count < 100 else count // 100)
    histogram = filled(values)
    for quantile in (0.5, 0.95, 0.99):
        exact = sorted(values)[ceil(round(quantile * len(values), 6)) - 1]
        assert histogram.quantile_ms(quantile) == pytest.approx(exact, rel=0.0101)


def test_the_average_is_exact() -> None:
    """It comes from count and sum."""
    assert filled([1.0, 2.0, 6.0]).average_ms == 3.0


def test_nothing_is_0() -> None:
    """Before the first one every number is there."""
    assert [LatencyHistogram().quantile_ms(q) for q in (0.0, 0.5, 1.0)] == [0.0, 0.0, 0.0]
    assert LatencyHistogram().average_ms == 0.0


@pytest.mark.parametrize("latency_ms", [0.0, 1e-9, 0.001])
def test_next_to_nothing_is_counted(latency_ms: float) -> None:
    """A clock that did not move is no error."""
    assert filled([latency_ms]).quantile_ms(0.5) == 0.001


def test_it_stays_small() -> None:
    """From a microsecond to three hours there are less than 1,200 buckets."""
    assert len(filled([0.001 * 1.01**step for step in range(2330)])._buckets) < 1200
