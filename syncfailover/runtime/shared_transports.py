"""Connections that outlive a client: a task that brings a pickle of its own finds those of the last one open."""

from __future__ import annotations

import threading
import weakref

from . import process
from .registry import Registry
from .transport import Transports


class SharedTransports(Transports):
    """The transports that all share who were unpickled over one registry.

    They stay open while nobody is there, for whoever comes next; when the last of them is closed, so are they.
    """

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry.endpoints)
        self._closed = False  # guarded by _lock, and so is the next
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        self._make_lock()
        process.register(self)

    def _make_lock(self) -> None:
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Forget a lock that nobody in this process would release; sockets are each transport's own matter."""
        self._make_lock()

    @classmethod
    def of(cls, registry: Registry, user: object) -> SharedTransports:
        """Return the registry's; new ones where there are none, or they were closed."""
        known = registry.transports
        if isinstance(known, cls) and known._take_part(user):
            return known
        made = cls(registry)
        made._take_part(user)
        registry.transports = made  # if another thread was sooner, these serve one user only
        return made

    def _take_part(self, user: object) -> bool:
        process.entered()
        with self._lock:
            if not self._closed:
                self._users.add(user)
            return not self._closed

    def leave(self, user: object) -> None:
        """Close idle connections if nobody else uses them; one that was dropped does not count."""
        process.entered()
        with self._lock:
            self._users.discard(user)
            if self._users:
                return
            self._closed = True
        self.close()
