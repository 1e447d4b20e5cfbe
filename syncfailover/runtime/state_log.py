"""One line in the log for each change of state; no key is in any."""

import logging

from ..events import Event

logger = logging.getLogger(__name__)

#: The events that are logged, and how loudly.
LOGGED = {
    "breaker_opened": logging.WARNING,
    "breaker_half_opened": logging.INFO,
    "breaker_closed": logging.INFO,
    "health_changed": logging.INFO,
    "key_rests": logging.WARNING,
    "all_down": logging.ERROR,
    "recovered": logging.INFO,
}


def log_change(event: Event) -> None:
    """Write one line for a change of state."""
    level = logging.WARNING if event.new == "unhealthy" else LOGGED[event.name]
    if event.endpoint is None:
        logger.log(level, "%s: %s", event.name, event.reason)
    elif event.new is None:
        logger.log(level, "%s: %s: %s", event.endpoint, event.name, event.reason)
    else:
        logger.log(
            level, "%s: %s: %s -> %s: %s", event.endpoint, event.name, event.old, event.new, event.reason
        )
