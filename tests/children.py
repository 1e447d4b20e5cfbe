"""Work done in a forked child, and what came of it."""

import os
import pickle
import signal
import sys
import traceback
from typing import Any, Callable, List, Optional

#: Seconds after which a child is killed that should have ended.
PATIENCE_S = 20


class Child:
    """A forked child that does some work.

    Args:
        work: what it does; its result, or error, comes back.
        fork: makes the child.

    """

    def __init__(self, work: Callable[[], Any], fork: Callable[[], int] = os.fork) -> None:
        reading, writing = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            signal.alarm(PATIENCE_S)
            try:
                os.close(reading)
                try:
                    found = pickle.dumps((True, work()))
                except BaseException:  # noqa: BLE001 - a child must not run the rest of the test session
                    found = pickle.dumps((False, traceback.format_exc()))
                while found:
                    found = found[os.write(writing, found) :]
            finally:
                sys.stderr.flush()
                os._exit(0)
        os.close(writing)
        self._reading = reading

    def kill(self) -> None:
        """End it as the system would."""
        os.kill(self.pid, signal.SIGKILL)
        self._wait()

    def result(self) -> Any:
        """Wait for it; return what its work returned."""
        found = self._wait()
        assert found, "the child was killed, or did not end in time"
        went_well, value = pickle.loads(found)  # noqa: S301 - of our own child
        assert went_well, f"in the child: {value}"
        return value

    def _wait(self) -> bytes:
        parts: List[bytes] = []
        while not parts or parts[-1]:
            parts.append(os.read(self._reading, 65536))
        os.close(self._reading)
        os.waitpid(self.pid, 0)
        return b"".join(parts)


def in_child(work: Callable[[], Any], fork: Callable[[], int] = os.fork) -> Any:
    """Do some work in a forked child, and return its result."""
    return Child(work, fork).result()


def as_nobody(work: Callable[[], Any], directory: Optional[str] = None) -> Any:
    """Do some work in a child to which permissions apply, which they do not to root.

    Args:
        work: what it does.
        directory: where it goes before.

    """

    def limited() -> Any:
        if directory is not None:
            os.chdir(directory)
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        return work()

    return in_child(limited)
