"""The `upstream` command: an endpoint that fails on command, and a line for each request that it sees."""

import time
from contextlib import suppress
from dataclasses import fields
from typing import List

from .errors import ConfigurationError
from .testing import FakeUpstream, Fault, SeenRequest


def play(upstream: FakeUpstream) -> None:
    """Print the base URL, and then what is asked and answered, until Ctrl-C.

    Raises:
        ConfigurationError: it cannot listen there.

    """
    with suppress(KeyboardInterrupt), _listening(upstream):
        print(upstream.url, flush=True)
        while True:
            for request in _news(upstream):
                print(_seen(request), flush=True)


def _listening(upstream: FakeUpstream) -> FakeUpstream:
    try:
        return upstream.start()
    except OSError as error:
        where = upstream.origin.partition("://")[2]
        raise ConfigurationError(f"cannot listen on {where}: {error.strerror or error}") from None


def _news(upstream: FakeUpstream) -> List[SeenRequest]:
    """Wait for requests, take them out of the log and return them; an empty list from time to time."""
    news: List[SeenRequest] = []

    def take() -> List[SeenRequest]:  # under the log's lock, so that no request falls between the two steps
        news.extend(upstream.requests)
        upstream.clear_log()
        return news

    upstream.wait_for(take, timeout=1.0)
    return news


def _seen(request: SeenRequest) -> str:
    path = request.path.encode("ascii", "backslashreplace").decode()
    status = "-" if request.status is None else request.status
    return f"{time.strftime('%H:%M:%S')}  {request.method} {path}  {status}  {_brief(request.fault)}"


def _brief(fault: Fault) -> str:
    """Write a fault with what was chosen of it: `Status(code=503)`."""
    chosen = [
        f"{f.name}={getattr(fault, f.name)!r}" for f in fields(fault) if getattr(fault, f.name) != f.default
    ]
    return f"{type(fault).__name__}({', '.join(chosen)})"
