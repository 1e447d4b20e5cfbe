"""The thread that a checkpoint belongs to: the workers of a map hand it their answers and wait until they are committed.

One commit takes all that came while the last one was under way. And since the open file is known to nothing but that
thread's own stack, a forked child, in which the thread does not run, can neither use nor close it: for SQLite, to close it
there would be to take the write-ahead log away from the parent.
"""

from __future__ import annotations

import threading
from typing import List, Optional, Set

from ..errors import ConfigurationError
from ..state.checkpoint import MOST_AT_ONCE, Checkpoint
from ..validation import reject
from . import process

#: Seconds between looks whether the thread is still there.
_LOOK_S = 0.5


class _Request:
    """An answer to be kept, or, without one, to be read."""

    __slots__ = ("done", "key", "reply")

    def __init__(self, key: bytes, reply: Optional[str]) -> None:
        self.key = key
        self.reply = reply
        self.done = threading.Event()


class CheckpointWriter:
    """A checkpoint for many threads.

    It is to be opened first, and closed in the end, whatever comes of the opening.

    Args:
        path: of the file.

    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._waiting: List[_Request] = []  # guarded by _changed
        self._closed = False  # only ever becomes true
        # Written by the thread alone.
        self._opened = threading.Event()
        self._trouble: Optional[ConfigurationError] = None
        #: The keys of the answers that were there at the beginning.
        self.known: Set[bytes] = set()
        self._thread: Optional[threading.Thread] = None
        process.register(self)

    def open(self) -> None:
        """Open the file.

        Raises:
            ConfigurationError: it cannot be used, as `Checkpoint` says; or no thread can be had for it.

        """
        try:
            self._thread = process.start_thread(self._run, "syncfailover-checkpoint")
        except process.NoThread as why:
            raise reject("checkpoint", self._path, f"None where no thread can run ({why})") from None
        while not self._opened.wait(_LOOK_S) and self._runs():
            pass
        if self._trouble is not None:
            raise self._trouble

    @property
    def trouble(self) -> Optional[ConfigurationError]:
        """What went wrong first; None while all is well."""
        return self._trouble

    @property
    def takes(self) -> bool:
        """Whether answers can still be kept."""
        return self._trouble is None and not self._closed

    def read(self, key: bytes) -> Optional[str]:
        """Return a known answer; None where it cannot be read."""
        request = _Request(key, None)
        self._do(request)
        return request.reply

    def write(self, key: bytes, reply: str) -> None:
        """Keep an answer, and return when it is committed, cannot be (see `trouble`), or the checkpoint was closed."""
        self._do(_Request(key, reply))

    def _do(self, request: _Request) -> None:
        with self._changed:
            if self._closed:
                return
            self._waiting.append(request)
            self._changed.notify()
        while not request.done.wait(_LOOK_S) and self._runs():
            pass

    def close(self, patience_s: Optional[float] = None) -> None:
        """Give the file free, once all that was handed in is done; wait so many seconds for that, or without limit."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_LOOK_S if patience_s is None else patience_s)
            while patience_s is None and self._runs():
                self._thread.join(_LOOK_S)

    def _runs(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def after_fork(self) -> None:
        """Be closed in a child: it has neither the thread nor the lock."""
        self._changed = threading.Condition()
        self._waiting, self._closed = [], True

    # The thread's own

    def _run(self) -> None:
        checkpoint = None
        try:
            checkpoint = Checkpoint(self._path)
            self.known = checkpoint.keys()
            self._opened.set()
            self._serve(checkpoint)
        except ConfigurationError as error:
            self._trouble = error
        except Exception as error:  # noqa: BLE001 - not one answer may go missing unseen
            self._trouble = reject("checkpoint", self._path, f"a file that can be used ({error!r})")
        finally:
            self._closed = True
            self._opened.set()
            if checkpoint is not None:
                checkpoint.close()

    def _serve(self, checkpoint: Checkpoint) -> None:
        batch = self._next()
        while batch:
            self._perform(checkpoint, batch)
            batch = self._next()

    def _next(self) -> List[_Request]:
        """Wait for requests; none are left when it was closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
        return batch

    def _perform(self, checkpoint: Checkpoint, batch: List[_Request]) -> None:
        answers = [(request.key, request.reply) for request in batch if request.reply is not None]
        try:
            for request in batch:
                if request.reply is None:
                    request.reply = checkpoint.read(request.key)
            if answers:
                checkpoint.write(answers)
        except ConfigurationError as error:
            self._trouble = self._trouble or error
        finally:
            for request in batch:
                request.done.set()
