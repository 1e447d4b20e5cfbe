"""Processes: forks, and whether a thread can run here. Nowhere else is a pid looked at.

A forked child inherits locks in whatever state another thread of the parent had them, threads that do not run, and
sockets that the parent still talks over. `after_fork` of everything registered puts new ones in their place: it only
assigns, for in the child of a threaded program nothing else is safe.

Python calls that hook in the child, where the fork is Python's own. A program in C that forks (uWSGI) may not, so
whoever begins something calls `entered()` first: the pid is the only sure sign.

What a library keeps per process cannot be put right in a child at all. So whatever uses one that does not bear a fork in
the middle of something is asked to be done before, and waited for, but not for long.

A program that patches itself for gevent late is in the same plight: what was made before has native locks, at which the
first greenlet to wait would hold up all others, and with them whoever is to release the lock. So it is treated alike.

mod_wsgi takes a sub-interpreter apart under the daemon threads that still run in it: a process that ends then crashes or
hangs. It says so before, and all threads end.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import sys
import threading
import weakref
from contextlib import suppress
from time import monotonic
from typing import Any, Callable, Dict, List, Optional, Protocol, Tuple, TypeVar, runtime_checkable

logger = logging.getLogger(__name__)

getpid = os.getpid

#: Chance of our own. That of the program repeats in all processes which seed it alike, and in all children of a fork that
#: runs no hook; their probes and retries would go in step.
_dice = random.Random()  # noqa: S311 - no secret
chance = _dice.random

#: What to do where Python has no thread, by what it says then.
_REMEDIES = (
    ("start new thread", "raise the limit: ulimit -u, or pids.max of the container"),
    ("interpreter", "use the main interpreter"),
)

#: Why the process that forks uWSGI's workers has no threads; the workers have.
_FORKS_LATER = "uWSGI has yet to fork its workers"


class Forkable(Protocol):
    """Something with locks, threads or sockets."""

    def after_fork(self) -> None:
        """Replace what a child must not share. Assigns only: no logging, no import, no lock, no thread."""


@runtime_checkable
class Holdable(Protocol):
    """Something that must not be in the middle of anything when the process forks."""

    def before_fork(self, until: float) -> bool:
        """Be in the middle of nothing, by `until` at the latest; tell whether that is so. Log nothing."""

    def after_fork_in_parent(self) -> None:
        """Go on, if it was so."""


@runtime_checkable
class Threaded(Protocol):
    """Something with threads that would go on for as long as it lives."""

    def end_threads(self) -> None:
        """Have them end, and start no more; wait for none that is in the middle of something."""


#: Seconds that a fork waits at most for whatever must not be in the middle of anything.
_HOLD_S = 0.3
#: Seconds that the end of an interpreter waits for threads at most, of the 3 after which Apache kills (APR: TIMEOUT_USECS).
_END_S = 1.5

Thing = TypeVar("Thing")

_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()
_holdables: weakref.WeakSet[Holdable] = weakref.WeakSet()
#: What holds still, by the thread that forks.
_held: Dict[int, List[Holdable]] = {}
_pid = getpid()
#: What locks are made by; gevent puts its own here.
_lock = threading.Lock
#: A lock for each process that has to find out by itself that it was forked; that of a parent is never touched.
_finding_out: Dict[int, threading.RLock] = {}  # type: ignore[valid-type,unused-ignore]
#: Whoever pops it tells this process that it has no threads.
_to_be_told = [True]
#: Whether the interpreter is about to end.
_ending = False
#: An item for each thread that is about to begin. A greenlet that does in a forked child is not known there as a thread,
#: and Python prints an error.
_beginning: List[bool] = []


def register(thing: Forkable) -> None:
    """Have `thing.after_fork()` called in every forked child for as long as it lives."""
    entered()  # or it would be added while another thread goes through them all
    _forkables.add(thing)


def living(things: weakref.WeakSet[Thing]) -> List[Thing]:
    """Return what is in a weak set, to which another thread may be adding: a copy of a set is made in one piece."""
    references = vars(things)["data"].copy()
    return [thing for thing in (reference() for reference in references) if thing is not None]


def register_held(thing: Holdable) -> None:
    """Have `thing` asked to hold still before every fork of Python's for as long as it lives."""
    _holdables.add(thing)


def entered() -> None:
    """Find out if this is a forked child that no hook has told so, and have everything replaced before it is used.

    Or a program that was patched since.
    """
    if _pid != getpid() or _lock is not threading.Lock:
        with _finding_out.setdefault(getpid(), threading.RLock()):
            if _pid != getpid() or _lock is not threading.Lock:
                _in_child()


def _before() -> None:
    until = monotonic() + _HOLD_S
    while _beginning and _has_greenlets() and monotonic() < until:
        threading.Event().wait(0.001)
    held = _held[threading.get_ident()] = []
    things: List[Holdable] = []
    for _ in range(10):
        with suppress(RuntimeError):  # another thread has just registered one
            things = list(_holdables)
            break
    held.extend(thing for thing in things if thing.before_fork(until))


def _in_parent() -> None:
    for thing in _held.pop(threading.get_ident(), ()):
        thing.after_fork_in_parent()


def _in_child() -> None:
    global _pid, _lock
    _held.clear()
    _beginning.clear()
    for thing in list(_forkables):
        thing.after_fork()
    _to_be_told[:] = [True]
    _dice.seed()
    _pid, _lock = getpid(), threading.Lock


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def _before_end(_event: str = "", **_reason: Any) -> None:
    """End every thread of ours, for the interpreter ends next."""
    global _ending  # noqa: PLW0603 - the state of the interpreter, of which there is one
    _ending = True
    until = monotonic() + _END_S
    for thing in living(_forkables):
        if isinstance(thing, Threaded):
            thing.end_threads()
    for thread in threading.enumerate():
        if thread.name.startswith("syncfailover-") and thread is not threading.current_thread():
            with suppress(RuntimeError):  # it has yet to begin
                thread.join(max(0.0, until - monotonic()))


# mod_wsgi puts itself into each of its interpreters; the package of that name elsewhere has no such function.
_on_end = getattr(sys.modules.get("mod_wsgi"), "subscribe_shutdown", None)
if _on_end is not None:
    _on_end(_before_end)


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
    trouble = "interpreter shutdown" if _ending else _uwsgi_trouble()
    if trouble is not None:
        raise NoThread(trouble)
    _beginning.append(True)
    try:
        home = getpid(), target, args
        thread = threading.Thread(target=_at_home, name=name, args=home, daemon=True)
        thread.start()
    except RuntimeError as error:
        raise NoThread(_with_remedy(str(error))) from None
    finally:
        del _beginning[-1:]  # which a fork may have cleared
    return thread


def _at_home(home: int, target: Callable[..., Any], args: Tuple[Any, ...]) -> None:
    """Do what a thread is for; where it turns out to be in a forked child, never end.

    A greenlet goes on there, but as a thread it is not known any more, and its end would be an error that Python prints.
    """
    target(*args)
    if getpid() != home:
        threading.Event().wait()


def _with_remedy(why: str) -> str:
    found = [remedy for words, remedy in _REMEDIES if words in why and not _is_farewell(why)]
    return f"{why}: {found[0]}" if found else why


def _is_farewell(why: str) -> bool:
    """Tell whether there is no thread because the program is about to end."""
    return "shutdown" in why


def _uwsgi_trouble() -> Optional[str]:
    """Say why no thread may be started under uWSGI.

    It may keep Python to itself between requests; its options do not tell, for some versions run threads without being
    asked, and many options imply them. And it forks whenever it likes, whatever a thread of the process that forks is at:
    the child would inherit Python's own lock from one that is not there, and hang.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None:
        return None
    if not _has_greenlets() and not getattr(uwsgi, "has_threads", True):
        return "uWSGI runs without threads: start it with --enable-threads"
    return _FORKS_LATER if _is_before_uwsgi_forks(uwsgi) else None


def _has_greenlets() -> bool:
    """Tell whether gevent's greenlets stand in for threads; they run where a thread would not."""
    return threading.Lock.__module__.startswith("gevent")


def forks_later() -> bool:
    """Tell whether this process is about to be forked by a program that calls no hook of Python's."""
    uwsgi: Any = sys.modules.get("uwsgi")
    return uwsgi is not None and _is_before_uwsgi_forks(uwsgi)


def _is_before_uwsgi_forks(uwsgi: Any) -> bool:
    """Tell whether this is uWSGI's master, or where there is none, whether it has not begun to work."""
    master = uwsgi.masterpid() if hasattr(uwsgi, "masterpid") else None
    return master == getpid() or (master == 0 and uwsgi.worker_id() == 0)


def warn_of_no_threads(why: str, consequence: str) -> None:
    """Say once in a process that it has no threads, unless it is about to end, or to fork those that have."""
    if _is_farewell(why) or why == _FORKS_LATER:
        return
    with suppress(IndexError):  # it was told already
        _to_be_told.pop()
        logger.warning("no background thread can run (%s); %s", why, consequence)
