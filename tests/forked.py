"""Forked children: they do something, and tell how it went.

A raw fork is one that runs no hook of Python, as that of uWSGI: only the pid tells.
"""

import ctypes
import faulthandler
import os
import resource
import select
import signal
import sys
import threading
import traceback
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterable, Iterator

#: Seconds after which a child hangs.
PATIENCE_S = 5.0

#: Children of raw forks that may hang but the last one.
_RAW_TRIES = 3


class Hang(AssertionError):
    """A child did not come back."""


_fork: Callable[[], int] = ctypes.PyDLL(None).fork


def raw_fork() -> int:
    """Fork as a program in C does that knows nothing of Python.

    If another thread has just asked for Python's own lock, the child would hand it over to that one, and wait for ever. So
    the others are made to wait patiently before.
    """
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    threading.Event().wait(0.01)
    pid = _fork()
    sys.setswitchinterval(interval_s)
    return pid


FORKS: Dict[str, Callable[[], int]] = {"hooked": os.fork, "raw": raw_fork}


def in_child(work: Callable[[], Any], fork: Callable[[], int] = raw_fork) -> str:
    """Do the work in a child, and return what it returned, as a text; a failure there is one here, and so is a hang.

    A raw fork inherits Python's own lock as it is at that moment, and where another thread was just taking it the child
    hangs in Python itself. That is very rare; a lock of ours that nobody renewed would hang every child.
    """
    for _ in range(_RAW_TRIES - 1 if fork is raw_fork else 0):
        try:
            return _in_one_child(work, fork)
        except Hang:
            continue
    return _in_one_child(work, fork)


def _in_one_child(work: Callable[[], Any], fork: Callable[[], int]) -> str:
    told, tell = os.pipe()
    pid = fork()
    if pid == 0:
        code = 1
        faulthandler.register(signal.SIGUSR2, tell, all_threads=True)
        try:
            os.write(tell, str(work()).encode())
            code = 0
        except BaseException:  # noqa: BLE001 - a child must not run the rest of the test session
            os.write(tell, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(tell)
    with os.fdopen(told, "rb", buffering=0) as pipe:
        hangs, text = not select.select([pipe], [], [], PATIENCE_S)[0], ""
        if hangs:
            os.kill(pid, signal.SIGUSR2)
            select.select([pipe], [], [], 1.0)
            text = pipe.read(65536).decode()
            os.kill(pid, signal.SIGKILL)
        text += pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    if hangs:
        raise Hang(f"not done after {PATIENCE_S:g} s:\n{text}")
    assert status == 0, f"the child failed:\n{text}"
    return text


def no_more_threads() -> None:
    """Let this process have no further thread: the limit does not bind root, so become somebody else."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if os.getuid() == 0:
        os.setuid(65534)


@contextmanager
def held_elsewhere(locks: Iterable[Any]) -> Iterator[None]:
    """Have another thread hold these locks."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            release.wait(PATIENCE_S)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(PATIENCE_S), "somebody else holds one of them"
        yield
    finally:
        release.set()
        holder.join()
