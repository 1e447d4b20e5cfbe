"""What was unpickled, by the identity of its original: two pickles of one thing are one thing again in a process.

So what a worker's breakers learned in one task is known in the next, though each task brings a pickle of its own.
"""

from __future__ import annotations

import os
from typing import Callable, Generic, TypeVar

from cachetools import LRUCache

from . import process

Thing = TypeVar("Thing")

#: Originals whose copies a process keeps: with what was learned, idle connections, and where state is shared a thread.
_KEPT = 32


class Identity:
    """What tells an original from others that are configured alike; made when first asked for."""

    def __init__(self, token: str = "") -> None:
        self._token = token

    def token(self) -> str:
        """Return it: the same for all threads, in this process and in those that were forked later."""
        return self._token or self.__dict__.setdefault("_made", os.urandom(16).hex())


class Rebuilt(Generic[Thing]):
    """The latest things that were unpickled, by token.

    A forked child keeps what was there before the fork, which has to be safe to use there, unless another thread of the
    parent was just changing it.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._changing = False  # written under _lock
        self._begin()
        process.register(self)

    def _begin(self) -> None:
        self._things: LRUCache[str, Thing] = LRUCache(self._kept)  # guarded by _lock
        self._make_lock()

    def _make_lock(self) -> None:
        self._lock = process.renewed_lock()  # reentrant: what is dropped here may end by unpickling something

    def after_fork(self) -> None:
        """Forget a lock that nobody in this process would release, and what was half changed."""
        if self._changing:
            self._changing = False
            self._begin()
        else:
            self._make_lock()

    def get(self, token: str, make: Callable[[], Thing]) -> Thing:
        """Return the thing of that token, made if there is none; whatever making it raises."""
        process.entered()
        found = self._look(token)
        return self._keep(token, make()) if found is None else found

    def _look(self, token: str) -> Thing | None:
        with self._lock:
            before, self._changing = self._changing, True
            found = self._things.get(token)
            self._changing = before
        return found

    def _keep(self, token: str, made: Thing) -> Thing:
        """Keep what was made, unless another thread was sooner: then both have that thread's."""
        with self._lock:
            before, self._changing = self._changing, True
            kept = self._things.setdefault(token, made)
            self._changing = before
        return kept
