"""Windows of recent latencies: what counts as late."""

import pytest

from syncfailover.policy.recent import Paces, RecentQuantile


def test_too_few_samples_say_nothing() -> None:
    """There is a value from the twentieth sample on."""
    window = RecentQuantile(0.95)
    for sample in range(19):
        window.add(float(sample))
        assert window.value is None
    window.add(19.0)
    assert window.value == 18.0


@pytest.mark.parametrize("count", [20, 52, 20 + 32 * 10])
def test_it_is_the_quantile_by_nearest_rank(count: int) -> None:
    """Of the latest 256 samples, no more than one in twenty is above it."""
    window, samples = RecentQuantile(0.95), [n * 7919 % 1009 / 1009 for n in range(count)]
    for sample in samples:
        window.add(sample)
    last = samples[-256:]
    assert window.value is not None
    assert sum(sample > window.value for sample in last) <= len(last) * 0.05 + 1
    assert sum(sample >= window.value for sample in last) >= len(last) * 0.05


def test_it_forgets() -> None:
    """A window full of new samples knows nothing of the old ones."""
    window = RecentQuantile(0.95)
    for sample in [9.0] * 300 + [1.0] * 300:
        window.add(sample)
    assert window.value == 1.0


def test_the_stricter_of_two_paces_counts() -> None:
    """An endpoint is late by its own pace or by everybody's, whichever is less, for each model apart."""
    paces = Paces()
    quick, slow = paces.of("quick", "m"), paces.of("slow", "m")
    assert slow.late_s is None
    for _ in range(300):
        quick.add(1.0)
    assert (quick.late_s, slow.late_s) == (1.0, 1.0)
    for _ in range(20):
        slow.add(5.0)
    assert (slow.own.value, quick.own.value) == (5.0, 1.0)
    assert slow.late_s == slow.anywhere.value
    assert paces.of("slow", "m") is slow
    assert paces.of("slow", "other").late_s is None


def test_names_without_number_do_not_fill_the_memory() -> None:
    """Models that callers make up push out the oldest."""
    paces = Paces()
    for number in range(5000):
        paces.of("a", f"made-up-{number}").add(1.0)
    assert len(paces._pairs) <= 1024
    assert len(paces._models) <= 1024
