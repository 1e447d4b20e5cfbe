"""How long things may take."""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple, Optional

from ..validation import optional_positive, positive, reject


class _Times(NamedTuple):
    """The fields of `Timeouts`."""

    total: float
    connect: float
    read: Optional[float]
    first_token: Optional[float]
    stall: Optional[float]


class Timeouts(_Times):
    """How long things may take, all in seconds of wall clock.

    `total` bounds the whole call: all attempts, waits and the stream together. `connect` bounds finding and opening a
    connection. `read` bounds one attempt from sending to the complete reply (for a stream: to its headers); with None
    an attempt may use half of what is left while another endpoint could still be tried, and all of it otherwise.
    `first_token` and `stall` time the content of streams.

    Raises:
        ConfigurationError: a time that is not a finite number greater than 0.

    """

    __slots__ = ()

    def __new__(
        cls,
        total: float = 30.0,
        connect: float = 3.0,
        read: Optional[float] = None,
        first_token: Optional[float] = None,
        stall: Optional[float] = None,
    ) -> Timeouts:
        """Make one, checked."""
        positive("timeout.total", total)
        positive("timeout.connect", connect)
        optional_positive("timeout.read", read)
        optional_positive("timeout.first_token", first_token)
        optional_positive("timeout.stall", stall)
        return super().__new__(cls, total, connect, read, first_token, stall)

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Timeouts:  # type: ignore[override]  # none is below it
        """Make one of its fields in order, checked; `_replace` does it so."""
        return cls(*iterable)

    @classmethod
    def from_value(cls, value: Any) -> Timeouts:
        """Make one of a number (the total), or return one that is made already.

        Raises:
            ConfigurationError: a time that is not a finite number greater than 0.

        """
        if value is None:
            no_limit = f"{_ALLOWED}; there is no 'no limit': give a large number"
            raise reject("timeout", value, no_limit)
        return cls().changed(value)

    def changed(self, value: Any) -> Timeouts:
        """Return these with another total, with another (connect, read) as in requests, or others altogether."""
        if isinstance(value, Timeouts):
            return value
        if isinstance(value, tuple) and len(value) == 2:
            return self._replace(connect=self.connect if value[0] is None else value[0], read=value[1])
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise reject("timeout", value, _ALLOWED)
        total = positive("timeout", value)
        return tuple.__new__(Timeouts, (total, *self[1:]))  # the others are checked already


_ALLOWED = "seconds (a number greater than 0), a pair (connect, read), or Timeouts(...)"
