"""Endpoints of fake upstreams, each with a key of its own, and how often they are probed."""

from typing import Any, List

from syncfailover import Endpoint
from syncfailover.testing import FakeUpstream


def endpoints_of(upstreams: List[FakeUpstream], **fields: Any) -> List[Endpoint]:
    """Make an endpoint `a`, `b`, `c`, ... of each upstream."""
    fields.setdefault("max_latency_ms", 5000.0)
    return [Endpoint(name, up.url, f"sk-secret-{name}", **fields) for name, up in zip("abcdefgh", upstreams)]


def probes_per_interval(upstream: FakeUpstream, interval_s: float, since: float = 0.0) -> float:
    """Return how many probes came per interval.

    It goes by the time from the first to the last: an interval more or less is a matter of where one begins to count.
    """
    at = [request.at for request in upstream.probes.requests if request.at >= since]
    return (len(at) - 1) * interval_s / (at[-1] - at[0]) if len(at) > 1 else 0.0
