"""Keeps `client.chat(...)` working when an LLM endpoint does not: synchronous failover for code that already exists.

Importing this package opens no socket, starts no thread and loads nothing beyond its three dependencies.
"""

import logging

from . import providers
from ._version import __version__
from .adapter import EndpointRegistry, FailoverAdapter
from .chat.reply import ChatReply
from .client import FailoverClient
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
    StreamInterrupted,
)
from .policy.balancer import Cheapest, LeastBusy, LowestLatency, RoundRobin, WeightedRoundRobin
from .policy.breaker import BreakerState
from .policy.health import HealthStatus, ProbeResult
from .policy.retry import FailoverRetry
from .runtime.breaker import CircuitBreaker
from .runtime.failover import Timeouts
from .runtime.monitor import HealthMonitor
from .session import FailoverSession

logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "AllEndpointsFailed",
    "AuthenticationFailed",
    "BreakerState",
    "BudgetExceeded",
    "ChatReply",
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
    "StreamInterrupted",
    "Timeouts",
    "WeightedRoundRobin",
    "__version__",
    "providers",
]
