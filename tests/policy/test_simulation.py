"""The simulation of benchmarks/simulate.py on a small fleet: the limits that it is there to show, so that it cannot rot.

A small fleet is noisier than the ten thousand clients of docs/simulation.md, so where chance has a part the limits here
are wider by what that is worth.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def simulate() -> Any:
    """Run a scenario with few clients, and return its figures."""
    sys.path.insert(0, BENCHMARKS)
    try:
        from simulated import figures, fleet, scenarios  # noqa: PLC0415 - scripts, which are no package
    finally:
        sys.path.remove(BENCHMARKS)

    def run(name: str, sharing: str = "alone", **changes: Any) -> Any:
        return figures.Figures(fleet.run(scenarios.ALL[name]._replace(**changes), sharing, seed=1))

    return run


def test_an_outage_of_one_is_found_after_three_calls_and_fails_none(simulate: Any) -> None:
    """One endpoint of five refuses: no call fails, three attempts tell, few are made twice, nobody is overrun after it."""
    figures = simulate("dead", one_in=625, rates=(10.0, 40.0))
    assert sum(figures.run.calls) > 15_000
    assert sum(figures.run.failed) == 0
    assert figures.met.most <= 3
    assert figures.peak_amplification <= 1.2
    assert figures.peak_after <= 1.4
    assert figures.run.knew_s.count(None) == 0
    assert figures.returned_s <= 20


def test_probes_alone_find_an_outage_in_seven_seconds(simulate: Any) -> None:
    """Nobody calls, and yet every client knows in time, be the endpoint dead or silent."""
    for name in ("probes-alone", "probes-alone-silent"):
        figures = simulate(name, one_in=100)
        assert figures.run.knew_s.count(None) == 0
        assert figures.knew_s.most <= 7.0


@pytest.mark.parametrize(("sharing", "stores"), [("sqlite", 3), ("redis", 1)])
def test_one_probes_for_all_and_is_replaced(simulate: Any, sharing: str, stores: int) -> None:
    """Of 96 processes on three hosts one of each store probes, once an interval, and when it is killed another does within two."""
    run = simulate("probing", sharing, fleet=96, until=30.0, killed_at=15.0).run
    assert sum(run.probes[0][5:13]) == pytest.approx(stores * 8.0 / 2.0, abs=stores)
    gaps = [b - a for times in run.probed_at for a, b in zip(times, times[1:]) if a < 15.0 <= b]
    assert len(gaps) == stores * 5
    assert max(gaps) <= 4.0


def test_what_one_finds_out_all_know(simulate: Any) -> None:
    """With shared state, the whole fleet knows within a second of what took each of them alone up to seven."""
    alone, shared = (simulate("dead", sharing, one_in=400, until=14.0) for sharing in ("alone", "redis"))
    assert alone.knew_s.most > 2.0
    assert shared.knew_s.most <= 1.0


def test_a_run_can_be_had_again(simulate: Any) -> None:
    """The same seed gives the same run."""
    first, second = (simulate("all-dead", "sqlite", one_in=1000, until=8.0).run for _ in range(2))
    assert first._replace(scenario=None) == second._replace(scenario=None)
