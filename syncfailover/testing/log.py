"""What an upstream saw, and what it was told to answer: the log and its two channels, calls and probes."""

from __future__ import annotations

import collections
import json
import threading
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Union

from .faults import Fault, Ok

# A soak test must not eat the memory of the machine; no assertion reads further back than this.
_LOG_SIZE = 100_000

_HEALTHY = Ok()


class SeenRequest(NamedTuple):
    """One request that reached an upstream."""

    method: str
    #: With the query.
    path: str
    #: By lower-case name.
    headers: Dict[str, str]
    body: bytes
    #: When it had arrived, on ``time.monotonic``'s clock, in seconds.
    at: float
    #: The connection's number, counted from 1. Two requests with the same number shared a connection.
    connection: int
    #: What it was answered with.
    fault: Fault
    is_probe: bool
    #: The HTTP status of that answer; None where it has none: ``Hang``, ``Reset``, ``Refuse``, ... As with the fault, a
    #: client that did not stay for the answer changes nothing.
    status: Optional[int] = None

    def header(self, name: str, default: Optional[str] = None) -> Optional[str]:
        """Look a header up, in whatever case."""
        return self.headers.get(name.lower(), default)

    def json(self) -> Any:
        """Parse the body; ``ValueError`` when it is not JSON."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        """Show a status line, without headers: they hold keys."""
        return f"<SeenRequest {self.method} {self.path} on connection {self.connection}: {self.fault!r}>"


#: Where a request will be seen once it is known what it is answered with: empty until then.
Place = List[SeenRequest]


class Log:
    """All requests in order of arrival.

    ``changed`` is the one condition of an upstream: everything that a test may wait for notifies it.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._places: Deque[Place] = collections.deque(maxlen=_LOG_SIZE)

    def reserve(self) -> Place:
        """Keep the next place in the order of arrival. Hold ``changed`` when calling this."""
        place: Place = []
        self._places.append(place)
        self.changed.notify_all()
        return place

    def fill(self, place: Place, request: SeenRequest) -> None:
        """Show a request in its place."""
        with self.changed:
            place.append(request)
            self.changed.notify_all()

    def clear(self) -> None:
        """Forget everything seen so far; a reserved place is not seen yet."""
        with self.changed:
            self._places = collections.deque((place for place in self._places if not place), _LOG_SIZE)

    def requests(self, is_probe: Optional[bool] = None) -> List[SeenRequest]:
        """Copy what was seen: all of it, or one channel's."""
        with self.changed:
            seen = [request for place in self._places for request in place]
        return [request for request in seen if is_probe is None or request.is_probe is is_probe]

    def wait_for(
        self, what: Union[int, Callable[[], object]], timeout: float, is_probe: Optional[bool] = None
    ) -> bool:
        """Wait until that many requests were seen, or until the predicate holds; ``False`` on timeout."""

        def enough() -> bool:
            return len(self.requests(is_probe)) >= what if isinstance(what, int) else bool(what())

        with self.changed:
            return self.changed.wait_for(enough, timeout)


class Channel:
    """One kind of traffic of an upstream, with faults of its own.

    Each request takes the next fault of the script; when the script is over, the default.
    """

    def __init__(self, log: Log, *, is_probe: bool) -> None:
        self._log = log
        self._is_probe = is_probe
        self._script: Deque[Fault] = collections.deque()
        self._default: Fault = _HEALTHY

    def __repr__(self) -> str:
        """Show what comes next."""
        kind = "probes" if self._is_probe else "calls"
        return f"<Channel {kind}: {len(self._script)} scripted, then {self._default!r}>"

    @property
    def requests(self) -> List[SeenRequest]:
        """The requests seen on this channel: a copy, the latest 100,000."""
        return self._log.requests(self._is_probe)

    def script(self, *faults: Fault) -> None:
        """Append faults to the script: each next request takes one, in order."""
        for fault in faults:
            _check(fault)
        with self._log.changed:
            self._script.extend(faults)

    def always(self, fault: Fault) -> None:
        """Answer every request with this fault, once the script is over."""
        _check(fault)
        with self._log.changed:
            self._default = fault

    def heal(self) -> None:
        """Drop the script and the default: every request is answered well again."""
        with self._log.changed:
            self._script.clear()
            self._default = _HEALTHY

    def wait_for(self, what: Union[int, Callable[[], object]], timeout: float = 5.0) -> bool:
        """Wait until this channel saw ``what`` requests, or ``what()`` holds.

        :param timeout: seconds, after which the answer is ``False``.
        """
        return self._log.wait_for(what, timeout, self._is_probe)

    def draw(self) -> Fault:
        """Take the fault for the next request. Hold the log's condition when calling this."""
        return self._script.popleft() if self._script else self._default


def _check(fault: object) -> None:
    if not isinstance(fault, Fault):
        raise TypeError(f"fault: {fault!r} is not a Fault, such as Status(503)")
