"""Endpoints of fake upstreams, each with a key of its own."""

from typing import Any, List

from syncfailover import Endpoint
from syncfailover.testing import FakeUpstream


def endpoints_of(upstreams: List[FakeUpstream], **fields: Any) -> List[Endpoint]:
    """Make an endpoint `a`, `b`, `c`, ... of each upstream."""
    fields.setdefault("max_latency_ms", 5000.0)
    return [Endpoint(name, up.url, f"sk-secret-{name}", **fields) for name, up in zip("abcdefgh", upstreams)]
