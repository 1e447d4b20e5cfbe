"""Fixtures for pytest, found by its entry point: ``manual_clock``, ``fake_upstream``, ``fake_upstreams``."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, List

import pytest

from .clock import ManualClock
from .upstream import FakeUpstream


@pytest.fixture
def manual_clock() -> ManualClock:
    """Stand in for time: a clock that only the test moves."""
    return ManualClock()


@pytest.fixture
def fake_upstream() -> Iterator[FakeUpstream]:
    """Run one healthy upstream for the length of a test."""
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def fake_upstreams() -> Iterator[Callable[..., List[FakeUpstream]]]:
    """Start any number of upstreams for the length of a test.

    ::

        first, second = fake_upstreams(2, api_key="made-up")
    """
    with contextlib.ExitStack() as running:

        def start(count: int, **options: Any) -> List[FakeUpstream]:
            names = [f"upstream-{number}" for number in range(1, count + 1)]
            return [running.enter_context(FakeUpstream(name, **options)) for name in names]

        yield start
