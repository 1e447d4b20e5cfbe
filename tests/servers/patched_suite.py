"""The suite under gevent: all is patched, and then pytest runs what it is told to, but for what makes no sense here.

It is run by `test_gevent_suite.py`, and takes what pytest takes.
"""

from gevent import monkey

monkey.patch_all()

import faulthandler  # noqa: E402 - whatever is imported is patched first
import os  # noqa: E402
import sys  # noqa: E402
from types import CodeType  # noqa: E402
from typing import Any, Iterator, List, Optional  # noqa: E402

import pytest  # noqa: E402

FORKS = (
    "greenlets go on in a forked child, and the upstreams of a test with them; `patched.py` forks without any"
)
SIGNALS = "a signal is taken by whichever greenlet runs, and cannot be sent to one by its number"
SPINS = "a thread spins until another has done something; a greenlet that never waits lets nobody else run"
COUNTS = "counts what callers and upstreams manage with a processor for each; here they share one thread"
NATIVE = "looks at Python's own locks and threads"
PROGRAMS = "starts programs, which nothing patches"

#: What is left out because of a name that it uses, and why.
USES = {
    "in_child": FORKS,
    "Child": FORKS,
    "fork": FORKS,
    "as_nobody": FORKS,
    "SIGINT": SIGNALS,
    "SIGALRM": SIGNALS,
    "uwsgi": NATIVE,
}
#: What is left out by its name, or by the beginning of it.
LEFT_OUT = {
    "/runtime/test_exits.py::": PROGRAMS,
    "/runtime/test_interpreter_end.py::": PROGRAMS,
    "/runtime/test_kill_switch.py::test_calling_off_breaks_nobody_elses_call": SPINS,
    "/runtime/test_metrics.py::test_a_dictionary_is_consistent_while_calls_go_on": SPINS,
    "/runtime/test_mapper.py::test_what_is_done_is_told_while_the_next_thing_is_long_in_coming": SPINS,
    "/runtime/test_process.py::": NATIVE,
    "/test_hostile.py::test_a_gzip_bomb_is_put_out": COUNTS,
    "/test_map.py::test_without_threads_prompts_are_asked_one_after_another": NATIVE,
    "/test_cli.py::": PROGRAMS,
    "/test_cli_chat.py::": PROGRAMS,
    "/test_cli_watch.py::": PROGRAMS,
    "/test_demo.py::": PROGRAMS,
    "/test_examples.py::": PROGRAMS,
    "/test_readme.py::": PROGRAMS,
}
#: What is run; a quiet test measures time.
MARKED = "not slow and not judge and not server and not quiet"
#: Seconds after which a test hangs, and all ends.
HANGS_S = 60.0


class LeavesOut:
    """Leaves out what makes no sense here, and ends a run that hangs."""

    def __init__(self) -> None:
        self._stderr = os.dup(2)  # pytest puts something else there
        self._unused = set(LEFT_OUT)

    def pytest_itemcollected(self, item: Any) -> None:
        """Mark what is left out."""
        names = {name for name in LEFT_OUT if name in f"/{item.nodeid}"}
        self._unused -= names
        uses = USES.keys() & set(_names(getattr(getattr(item, "function", None), "__code__", None)))
        item.stash[_left_out] = bool(names or uses)

    def pytest_collection_modifyitems(self, config: Any, items: List[Any]) -> None:
        """Take it away; a name above that is nobody's any more is an error."""
        files = {_file(item.nodeid) for item in items}
        gone = [name for name in self._unused if any(f"/{file}".endswith(_file(name)) for file in files)]
        if gone:
            raise pytest.UsageError(f"these tests are no more: {gone}")
        config.hook.pytest_deselected(items=[item for item in items if item.stash[_left_out]])
        items[:] = [item for item in items if not item.stash[_left_out]]

    def pytest_runtest_logstart(self) -> None:
        """Start to count the seconds of a test."""
        faulthandler.dump_traceback_later(HANGS_S, exit=True, file=self._stderr)

    def pytest_runtest_logfinish(self) -> None:
        """It did not hang."""
        faulthandler.cancel_dump_traceback_later()


_left_out = pytest.StashKey[bool]()


def _file(name: str) -> str:
    return name.partition("::")[0]


def _names(code: Optional[CodeType]) -> Iterator[str]:
    """List the names that a function uses, and the functions in it."""
    if code is not None:
        yield from code.co_names + code.co_varnames
        for part in code.co_consts:
            if isinstance(part, CodeType):
                yield from _names(part)


if __name__ == "__main__":
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-m", MARKED]
    sys.exit(pytest.main([*options, *sys.argv[1:]], plugins=[LeavesOut()]))
