"""A bar that shows how far a map is, where tqdm is installed (the extra `progress`)."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Callable, Iterator, Optional


@contextmanager
def shown(total: Optional[int], *, wanted: bool) -> Iterator[Callable[[], object]]:
    """Show a bar while something is done, and yield what moves it on by one.

    Args:
        total: of how many; None where nobody knows.
        wanted: nothing is shown otherwise, or, but for one warning, where there is no tqdm.

    """
    tqdm = _tqdm() if wanted else None
    if tqdm is None:
        yield _nothing
    else:
        # Each step asks the clock: tqdm would else wait for as many as there were in the quick beginning of a resumed map.
        with tqdm(total=total, unit="prompt", miniters=1) as bar:
            yield bar.update


def _nothing() -> None:
    """Move no bar."""


def _tqdm() -> Any:
    """Return tqdm's bar for a terminal or a notebook, whichever this is, without the thread that it starts; or None."""
    try:
        automatic = import_module("tqdm.auto").tqdm
    except ImportError:
        message = "progress=True shows nothing without tqdm: pip install 'syncfailover[progress]'"
        warnings.warn(message, stacklevel=2)
        return None
    return type("Bar", (automatic,), {"monitor_interval": 0})
