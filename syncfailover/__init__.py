"""Keeps `client.chat(...)` working when an LLM endpoint does not: synchronous failover for code that already exists.

Importing this package opens no socket and starts no thread. What it exports is loaded on first use (PEP 562), and is
nothing beyond its three dependencies.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any, Dict, List

from ._version import __version__

if TYPE_CHECKING:  # for type checkers and editors; what runs is the table below
    from . import providers, testing
    from .adapter import EndpointRegistry, FailoverAdapter
    from .api import ChatStream
    from .client import FailoverClient
    from .completion.reply import ChatReply
    from .default import chat, default_client
    from .endpoint import Endpoint
    from .errors import (
        AllEndpointsFailed,
        AuthenticationFailed,
        BudgetExceeded,
        CircuitOpen,
        ClientClosed,
        ConfigurationError,
        ContentFiltered,
        ContextLengthExceeded,
        DeadlineExceeded,
        FailoverError,
        InvalidReply,
        ModelNotFound,
        NoEndpointAvailable,
        QueueFull,
        QueueTimeout,
        QuotaExhausted,
        RateLimited,
        RequestRejected,
        StreamDeadlineExceeded,
        StreamInterrupted,
    )
    from .policy.balancer import Cheapest, LeastBusy, LowestLatency, RoundRobin, WeightedRoundRobin
    from .policy.breaker import BreakerState
    from .policy.health import HealthStatus, ProbeResult
    from .policy.retry import FailoverRetry
    from .runtime.breaker import CircuitBreaker
    from .runtime.monitor import HealthMonitor
    from .runtime.timeouts import Timeouts
    from .session import FailoverSession

#: Where each exported name lives.
_EXPORTS = {
    "adapter": ("EndpointRegistry", "FailoverAdapter"),
    "api": ("ChatStream",),
    "client": ("FailoverClient",),
    "completion.reply": ("ChatReply",),
    "default": ("chat", "default_client"),
    "endpoint": ("Endpoint",),
    "errors": (
        "AllEndpointsFailed",
        "AuthenticationFailed",
        "BudgetExceeded",
        "CircuitOpen",
        "ClientClosed",
        "ConfigurationError",
        "ContentFiltered",
        "ContextLengthExceeded",
        "DeadlineExceeded",
        "FailoverError",
        "InvalidReply",
        "ModelNotFound",
        "NoEndpointAvailable",
        "QueueFull",
        "QueueTimeout",
        "QuotaExhausted",
        "RateLimited",
        "RequestRejected",
        "StreamDeadlineExceeded",
        "StreamInterrupted",
    ),
    "policy.balancer": ("Cheapest", "LeastBusy", "LowestLatency", "RoundRobin", "WeightedRoundRobin"),
    "policy.breaker": ("BreakerState",),
    "policy.health": ("HealthStatus", "ProbeResult"),
    "policy.retry": ("FailoverRetry",),
    "runtime.breaker": ("CircuitBreaker",),
    "runtime.monitor": ("HealthMonitor",),
    "runtime.timeouts": ("Timeouts",),
    "session": ("FailoverSession",),
}
_MODULE_OF: Dict[str, str] = {name: module for module, names in _EXPORTS.items() for name in names}

logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "AllEndpointsFailed",
    "AuthenticationFailed",
    "BreakerState",
    "BudgetExceeded",
    "ChatReply",
    "ChatStream",
    "Cheapest",
    "CircuitBreaker",
    "CircuitOpen",
    "ClientClosed",
    "ConfigurationError",
    "ContentFiltered",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "Endpoint",
    "EndpointRegistry",
    "FailoverAdapter",
    "FailoverClient",
    "FailoverError",
    "FailoverRetry",
    "FailoverSession",
    "HealthMonitor",
    "HealthStatus",
    "InvalidReply",
    "LeastBusy",
    "LowestLatency",
    "ModelNotFound",
    "NoEndpointAvailable",
    "ProbeResult",
    "QueueFull",
    "QueueTimeout",
    "QuotaExhausted",
    "RateLimited",
    "RequestRejected",
    "RoundRobin",
    "StreamDeadlineExceeded",
    "StreamInterrupted",
    "Timeouts",
    "WeightedRoundRobin",
    "__version__",
    "chat",
    "default_client",
    "providers",
    "testing",
]


def __getattr__(name: str) -> Any:
    """Load an exported name when it is first used."""
    if name in _MODULE_OF:
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    elif name in ("providers", "testing"):
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
