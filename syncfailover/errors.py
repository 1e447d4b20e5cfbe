"""Every error that reaches a caller.

FailoverError                    (requests.RequestException)
├── ConfigurationError           (ValueError)            a field, an argument, a payload
├── ClientClosed                 (RuntimeError)          used after `close()`
├── CircuitOpen                                          a `CircuitBreaker` that does not admit
├── NoEndpointAvailable          (requests.ConnectionError)   nobody could be asked
│   ├── QueueFull
│   └── QueueTimeout
├── AllEndpointsFailed           (requests.ConnectionError)   everybody who could be asked failed
├── DeadlineExceeded             (requests.Timeout)
├── RequestRejected              (requests.HTTPError)    the same reason wherever it was asked
│   ├── AuthenticationFailed
│   ├── ModelNotFound
│   ├── ContextLengthExceeded
│   ├── ContentFiltered
│   ├── QuotaExhausted
│   └── RateLimited
├── InvalidReply                                         200, but no answer in it
├── StreamInterrupted                                    a stream that broke after its first content
│   └── StreamDeadlineExceeded   (DeadlineExceeded)      still coming when the call's time was over
└── BudgetExceeded

Each is also the `requests` exception that legacy code would catch. All of them pickle; a pickled one leaves the
response's request and headers behind, for they hold keys. No message contains a key.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence, Tuple, Type

import requests

from .events import AttemptRecord


class FailoverError(requests.RequestException):
    """The root of all errors raised by this package."""

    def __init__(self, message: str, *, response: Optional[requests.Response] = None, **data: Any) -> None:
        super().__init__(message, response=response)
        self.message = message
        self.__dict__.update(data)

    def __str__(self) -> str:
        """Give the message alone."""
        return self.message

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle as class, message and data, with the response stripped of its request and headers."""
        data = {name: value for name, value in self.__dict__.items() if name not in _NOT_PICKLED}
        return _rebuild, (type(self), self.message, _stripped(self.response), data)


class ConfigurationError(FailoverError, ValueError):
    """A field or argument that cannot work; `.field` and `.value` say which (a secret's value is never kept)."""

    field: Optional[str] = None
    value: object = None


class ClientClosed(FailoverError, RuntimeError):
    """The client or session was used after `close()`."""


class CircuitOpen(FailoverError):
    """A standalone `CircuitBreaker` does not admit this call; `.retry_after` is in seconds, None if unknown."""

    retry_after: Optional[float] = None


class NoEndpointAvailable(FailoverError, requests.ConnectionError):
    """No endpoint may be asked now; `.retry_after` in seconds, `.snapshot` says why for each endpoint."""

    retry_after: Optional[float] = None
    snapshot: Any = None


class QueueFull(NoEndpointAvailable):
    """As many callers as allowed are waiting for a recovery already."""


class QueueTimeout(NoEndpointAvailable):
    """No endpoint recovered within the time a caller was willing to wait."""


class AllEndpointsFailed(FailoverError, requests.ConnectionError):
    """Every endpoint that could be asked failed; `.attempts` is the ledger, `.response` the last reply if any."""

    attempts: Sequence[AttemptRecord] = ()


class DeadlineExceeded(FailoverError, requests.Timeout):
    """The call's total time ran out; `.attempts` is the ledger."""

    attempts: Sequence[AttemptRecord] = ()


class RequestRejected(FailoverError, requests.HTTPError):
    """The provider refused this request, and asking elsewhere would not help or did not."""

    status: Optional[int] = None
    code: Optional[str] = None
    attempts: Sequence[AttemptRecord] = ()


class AuthenticationFailed(RequestRejected):
    """Every key that could be used was refused."""


class ModelNotFound(RequestRejected):
    """No endpoint that was asked knows the model."""


class ContextLengthExceeded(RequestRejected):
    """The prompt is longer than the model's context window, and no endpoint declares a larger one."""


class ContentFiltered(RequestRejected):
    """The provider's content filter refused the request; it is not offered to others."""


class QuotaExhausted(RequestRejected):
    """The account behind every key that could be used has no credit left."""


class RateLimited(RequestRejected):
    """Every endpoint that could be asked answered that it is being asked too often."""

    retry_after: Optional[float] = None


class InvalidReply(FailoverError):
    """HTTP 200, but what came is no answer: an error body, HTML, no choices, broken JSON."""

    attempts: Sequence[AttemptRecord] = ()


class StreamInterrupted(FailoverError):
    """A stream broke after its first content; `.text` is what had come, `.attempts` the ledger."""

    text: str = ""
    attempts: Sequence[AttemptRecord] = ()


class StreamDeadlineExceeded(StreamInterrupted, DeadlineExceeded):
    """A stream was still coming when the call's total time ran out; `.text` is what had come."""


class BudgetExceeded(FailoverError):
    """The call would have begun beyond the client's budget, so nothing was sent; both numbers are in USD."""

    budget_usd: float = 0.0
    spent_usd: float = 0.0


# `response` travels stripped; `request` not at all.
_NOT_PICKLED = frozenset({"message", "request", "response"})


def _stripped(response: Optional[requests.Response]) -> Optional[Dict[str, Any]]:
    """Keep of a response what holds no key: status, reason, and the URL without its query."""
    if response is None:
        return None
    url = (response.url or "").split("?", 1)[0]
    return {"status_code": response.status_code, "reason": response.reason, "url": url}


def _rebuild(
    cls: Type[FailoverError],
    message: str,
    stripped: Optional[Dict[str, Any]],
    data: Dict[str, Any],
) -> FailoverError:
    response = None
    if stripped is not None:
        response = requests.Response()
        response.__dict__.update(stripped)
    return cls(message, response=response, **data)
