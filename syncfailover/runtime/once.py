"""Something that a process makes once, when it is first asked for."""

from __future__ import annotations

import threading
from typing import Callable, Generic, Optional, TypeVar

from . import process

Thing = TypeVar("Thing")


class Once(Generic[Thing]):
    """Makes its thing for the first caller and gives the same one to all others.

    What raises in making is not kept: the next caller tries again. A forked child keeps what was made before the
    fork, which has to be safe to use there, and makes its own where the parent was still at it.

    Args:
        make: makes the thing; one thread at a time is in it.
        spent: tells of a thing whether it is of no use any more; another one is made in its place.

    """

    def __init__(self, make: Callable[[], Thing], spent: Callable[[Thing], bool]) -> None:
        self._make = make
        self._spent = spent
        self._thing: Optional[Thing] = None  # written under _lock, read without it
        self._make_lock()
        process.register(self)

    def _make_lock(self) -> None:
        self._lock = threading.RLock()  # a signal handler may ask while its own thread is making

    def after_fork(self) -> None:
        """Forget a lock that nobody in this process would release."""
        self._make_lock()

    def get(self) -> Thing:
        """Return the thing; whatever making it raises."""
        process.entered()
        thing = self._thing
        if thing is None or self._spent(thing):
            with self._lock:
                thing = self._thing
                if thing is None or self._spent(thing):
                    thing = self._thing = self._make()
        return thing
