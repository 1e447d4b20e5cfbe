"""How a call that found no answer is told: the error that says what was tried, with numbers."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Type

from ..errors import (
    AllEndpointsFailed,
    DeadlineExceeded,
    FailoverError,
    QueueFull,
    QueueTimeout,
    RequestRejected,
    StreamDeadlineExceeded,
    StreamInterrupted,
)
from ..events import AttemptRecord
from ..policy.outcome import Outcome
from ..policy.steps import ANSWERED, OUT_OF_TIME, TURNED_AWAY, UNAVAILABLE, WAITED_IN_VAIN, Stop
from .attempt import Tried
from .exchange import without_key
from .registry import Registry


class Story(NamedTuple):
    """What happened to a call until its end."""

    #: The caller's name for the model.
    model: Optional[str]
    tries: List[Tried]
    elapsed_s: float
    #: Of these, what it stood in line.
    queued_s: float


def error_of(registry: Registry, stop: Stop, story: Story) -> FailoverError:
    """Make the error that a caller gets, which shows no key, nor a body that echoes one."""
    error = without_key(_told(registry, stop, story))
    last = story.tries[-1].received if story.tries else None
    if last is not None and last.body and last.response is not None:
        last.response.take(last.blotted(last.body))
    return error


def _told(registry: Registry, stop: Stop, story: Story) -> FailoverError:
    attempts = tuple(tried.record for tried in story.tries)
    tried_so_far = "; ".join(map(str, attempts))
    if stop is TURNED_AWAY:
        what = f" and the queue is full (queue_size={registry.queue_size})"
        return registry.unavailable(QueueFull, what, model=story.model, attempts=attempts)
    if stop is WAITED_IN_VAIN:
        what = f" after {story.queued_s:.1f} s in the queue"
        return registry.unavailable(QueueTimeout, what, model=story.model, attempts=attempts)
    if stop is UNAVAILABLE or (not attempts and stop is not OUT_OF_TIME):
        return registry.unavailable(model=story.model)
    response = story.tries[-1].received.response if story.tries else None
    if any(issubclass(tried.outcome.rule.error, StreamInterrupted) for tried in story.tries):
        late = stop is OUT_OF_TIME or story.tries[-1].outcome.rule.error is StreamDeadlineExceeded
        cut = StreamDeadlineExceeded if late else StreamInterrupted
        return cut(f"stream interrupted: {tried_so_far}", attempts=attempts, response=response)
    if stop is OUT_OF_TIME:
        tried_so_far = tried_so_far or f"no endpoint available: {registry.snapshot()}"
        message = f"out of time after {story.elapsed_s:.1f} s: {tried_so_far}"
        return DeadlineExceeded(message, attempts=attempts, response=response)
    outcomes = [tried.outcome for tried in story.tries]
    if stop is ANSWERED:
        last = outcomes[-1]
        return _rejection(last.rule.error, f"{attempts[-1]}", last, attempts, response)
    kinds = {outcome.rule.error for outcome in outcomes}
    kind = kinds.pop() if len(kinds) == 1 else AllEndpointsFailed
    message = f"all attempts failed: {tried_so_far}{_untried(registry, attempts)}"
    if kind is AllEndpointsFailed:
        return AllEndpointsFailed(message, attempts=attempts, response=response)
    return _rejection(kind, message, outcomes[-1], attempts, response)


def _rejection(
    kind: Type[FailoverError],
    message: str,
    outcome: Outcome,
    attempts: Tuple[AttemptRecord, ...],
    response: Any,
) -> FailoverError:
    if issubclass(kind, RequestRejected):
        data: Dict[str, Any] = {"status": outcome.status, "code": outcome.code, "attempts": attempts}
        if outcome.retry_after_s is not None:
            data["retry_after"] = outcome.retry_after_s
        return kind(message, response=response, **data)
    return kind(message, response=response, attempts=attempts)


def _untried(registry: Registry, attempts: Sequence[AttemptRecord]) -> str:
    """Say why those who were not asked were not."""
    tried = {attempt.endpoint for attempt in attempts}
    snapshot = registry.snapshot()
    resting = [
        str(type(snapshot)((state,), snapshot.taken_at))
        for state in snapshot.endpoints
        if state.name not in tried and not state.eligible
    ]
    return f"; not asked: {', '.join(resting)}" if resting else ""
