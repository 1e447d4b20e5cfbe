"""How long things may take."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from ..validation import optional_positive, positive


class Timeouts(NamedTuple):
    """How long things may take, all in seconds of wall clock.

    `total` bounds the whole call: all attempts, waits and the stream together. `connect` bounds finding and opening a
    connection. `read` bounds one attempt from sending to the complete reply (for a stream: to its headers); with None
    an attempt may use half of what is left while another endpoint could still be tried, and all of it otherwise.
    `first_token` and `stall` time the content of streams.
    """

    total: float = 30.0
    connect: float = 3.0
    read: Optional[float] = None
    first_token: Optional[float] = None
    stall: Optional[float] = None

    @classmethod
    def from_value(cls, value: Any) -> Timeouts:
        """Make one of a number (the total), or check one that is made already.

        Raises:
            ConfigurationError: a time that is not a finite number greater than 0.

        """
        return cls().changed(value)

    def changed(self, value: Any) -> Timeouts:
        """Return these with another total, with another (connect, read) as in requests, or others altogether."""
        if isinstance(value, Timeouts):
            chosen = value
        elif isinstance(value, tuple) and len(value) == 2:
            chosen = self._replace(connect=self.connect if value[0] is None else value[0], read=value[1])
        else:
            return self._replace(total=positive("timeout", value))
        positive("timeout.total", chosen.total)
        positive("timeout.connect", chosen.connect)
        for field in ("read", "first_token", "stall"):
            optional_positive(f"timeout.{field}", getattr(chosen, field))
        return chosen
