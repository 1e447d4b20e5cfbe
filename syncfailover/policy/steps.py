"""The steps of a call: ask somebody, wait, or stop."""

from __future__ import annotations

from typing import NamedTuple, Union

from .line import Ticket
from .node import Attempt


class Pause(NamedTuple):
    """Wait until then, and call `resume`."""

    until: float


class Wait(NamedTuple):
    """Wait in line until then at the latest, and call `served`."""

    ticket: Ticket
    until: float


class Stop(NamedTuple):
    """The end: `why` is one of the words below."""

    why: str


ANSWERED = Stop("answered")  # the last outcome is the caller's: success, or what no other endpoint could cure
EXHAUSTED = Stop("exhausted")  # endpoints, retries or the shared budget are used up
OUT_OF_TIME = Stop("out of time")
UNAVAILABLE = Stop("unavailable")  # nobody could be asked even once
TURNED_AWAY = Stop("turned away")  # too many are waiting
WAITED_IN_VAIN = Stop("waited in vain")

Step = Union[Attempt, Pause, Wait, Stop]
