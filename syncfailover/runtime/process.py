"""Processes: forks, and whether a thread can run here. Nowhere else is a pid looked at.

A forked child inherits locks in whatever state another thread of the parent had them, threads that do not run, and
sockets that the parent still talks over. `after_fork` of everything registered puts new ones in their place: it only
assigns, for in the child of a threaded program nothing else is safe.

Python calls that hook in the child, where the fork is Python's own. A program in C that forks (uWSGI) may not, so
whoever begins something calls `entered()` first: the pid is the only sure sign.

A program that patches itself for gevent late is in the same plight: what was made before has native locks, at which the
first greenlet to wait would hold up all others, and with them whoever is to release the lock. So it is treated alike.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import weakref
from typing import Any, Callable, Dict, Optional, Protocol

logger = logging.getLogger(__name__)

getpid = os.getpid

#: What uWSGI's options hold where one is set; its versions differ in bytes, texts and booleans.
_SET = (True, b"true", "true", b"1", "1", 1)


class Forkable(Protocol):
    """Something with locks, threads or sockets."""

    def after_fork(self) -> None:
        """Replace what a child must not share. Assigns only: no logging, no import, no lock, no thread."""


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()
_pid = getpid()
#: What locks are made by; gevent puts its own here.
_lock = threading.Lock
#: A lock for each process that has to find out by itself that it was forked; that of a parent is never touched.
_finding_out: Dict[int, threading.RLock] = {}  # type: ignore[valid-type,unused-ignore]
#: Whether this process was told that it has no threads.
_warned = False


def register(thing: Forkable) -> None:
    """Have `thing.after_fork()` called in every forked child for as long as it lives."""
    _forkables.add(thing)


def entered() -> None:
    """Find out if this is a forked child that no hook has told so, and have everything replaced before it is used.

    Or a program that was patched since.
    """
    if _pid != getpid() or _lock is not threading.Lock:
        with _finding_out.setdefault(getpid(), threading.RLock()):
            if _pid != getpid() or _lock is not threading.Lock:
                _in_child()


def _in_child() -> None:
    global _pid, _lock, _warned
    for thing in list(_forkables):
        thing.after_fork()
    _pid, _lock, _warned = getpid(), threading.Lock, False


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_in_child)


def renew_locks(waiting: Any) -> None:
    """Give a queue that was inherited locks of this process; what it holds stays."""
    if isinstance(waiting, queue.Queue) and hasattr(waiting, "mutex"):
        waiting.mutex = threading.Lock()
        waiting.not_empty = threading.Condition(waiting.mutex)
        waiting.not_full = threading.Condition(waiting.mutex)
        waiting.all_tasks_done = threading.Condition(waiting.mutex)


def renewed_lock() -> Any:
    """Return a reentrant lock of this process, for one that was inherited."""
    return threading.RLock()


# Whether threads run here


class NoThread(Exception):
    """No thread can be had; the text says why."""


def start_thread(target: Callable[..., Any], name: str, *args: Any) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        NoThread: the limit is reached, the interpreter is shutting down or allows no daemon threads, or the server
            would not let the thread run.

    """
    trouble = _uwsgi_trouble()
    if trouble is not None:
        raise NoThread(trouble)
    try:
        thread = threading.Thread(target=target, name=name, args=args, daemon=True)
        thread.start()
    except RuntimeError as error:
        raise NoThread(str(error)) from None
    return thread


def _uwsgi_trouble() -> Optional[str]:
    """Say why a thread would stand still under uWSGI, which keeps Python to itself between requests unless told."""
    options = getattr(sys.modules.get("uwsgi"), "opt", None)
    has_greenlets = threading.Lock.__module__.startswith("gevent")  # which stand in for threads, and run
    if not isinstance(options, dict) or has_greenlets:
        return None
    texts = {key.decode() if isinstance(key, bytes) else key: value for key, value in options.items()}
    if texts.get("enable-threads") in _SET or "threads" in texts:
        return None
    return "uWSGI runs without threads: start it with --enable-threads"


def warn_of_no_threads(why: str, consequence: str) -> None:
    """Say once in a process that it has no threads, unless it is about to end."""
    global _warned  # noqa: PLW0603 - the state of the process, of which there is one
    if _warned or "shutdown" in why:
        return
    _warned = True
    logger.warning("no background thread can run (%s); %s", why, consequence)
