"""Processes: what must not survive a fork is registered here, and nowhere else is a pid looked at.

A forked child inherits locks in whatever state another thread of the parent had them, threads that do not run, and
sockets that the parent still talks over. `after_fork` of everything registered puts new ones in their place: it only
assigns, for in the child of a threaded program nothing else is safe.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

getpid = os.getpid


class Forkable(Protocol):
    """Something with locks, threads or sockets."""

    def after_fork(self) -> None:
        """Replace what a child must not share. Assigns only: no logging, no import, no lock, no thread."""


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()


def register(thing: Forkable) -> None:
    """Have `thing.after_fork()` called in every forked child for as long as it lives."""
    _forkables.add(thing)


def _in_child() -> None:
    for thing in list(_forkables):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_in_child)
