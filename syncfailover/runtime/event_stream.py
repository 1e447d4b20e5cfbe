"""The events of one attempt's reply, judged as they come: what of it is content, whether it is whole, what broke it.

Three clocks run over a stream, and all of them time content, not bytes, so that a comment every second keeps nothing
alive: the first content has its time, the pause between two has one if the caller wants, and the whole call has one.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from ..completion.sse import EventTooLong, SSEDecoder
from ..policy.node import Attempt
from ..policy.progress import Progress
from ..policy.received import BROKEN_OFF, INTERRUPTED, LATE, OVERDUE, Received
from .attempt_clock import AttemptClock
from .exchange import WIRE_ERRORS, Reader, fault_of, forget_frames, whole, whole_of
from .live_body import LiveBody
from .target import EndpointResponse

#: Seconds of silence after an answer that has ended, in which its usage may come; and for the end of the body after
#: that, which lets the connection be used again.
_USAGE_S, _END_S = 1.0, 0.05
#: Bytes, and events, that may come before the first content: they are held back until then.
_LONGEST_OPENING, _MOST_EVENTS = 16 * 1024 * 1024, 10_000
#: Bytes, and blank ones, by which is known what a body is.
_TELLING, _MOST_BLANKS = 8, 64 * 1024
#: A stream that has brought nothing for so many seconds when the call's time is over was stuck, not only long.
_STUCK_S = 5.0
#: How a reply may begin that is a stream of events although its headers do not say so.
_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":", b"\xef\xbb\xbf")


class Limits(NamedTuple):
    """What a stream may take, in seconds."""

    #: From sending to the first content.
    content_s: float
    #: From sending to the end.
    total_s: float
    #: Between two contents; None for as long as the whole may take.
    stall_s: Optional[float]


class EventStream:
    """A reply that is a stream of events; whoever reads it takes what `pull` brings, until it is over or broken."""

    def __init__(
        self, response: Any, clock: AttemptClock, secrets: Sequence[str], progress: Progress, limits: Limits
    ) -> None:
        self.response = response
        self.progress = progress
        #: Bytes of the body that the last `pull` took.
        self.part = b""
        #: JSON objects, and bytes, that had come when the first content came.
        self.held: List[Dict[str, Any]] = []
        self.held_parts: List[bytes] = []
        #: Seconds from sending to the first content.
        self.first_content_s = 0.0
        self._model: Any = None
        self.over = False
        #: What broke it; None where nothing did.
        self.broken: Optional[Received] = None
        self._clock = clock
        self._secrets = secrets
        self._limits = limits
        self._body = LiveBody(response.raw)
        self._decoder = SSEDecoder()
        #: When somebody began to wait for the next content; None before.
        self._waiting_since: Optional[float] = None

    def begin(self) -> Received:
        """Read until the first content has come, or until it is known that none will."""
        status, headers = self.response.status_code, self.response.raw.headers
        self._clock.extend(self._limits.content_s)
        try:
            first = self._beginning()
        except WIRE_ERRORS as error:
            self._end(error)
            self.close()
            return self._broken_early
        if not _holds_events(headers, first.lstrip()[:_TELLING]):
            received = whole_of(self.response, self._body, first, self._clock, self._secrets)
            self._body.release()
            return received
        self.held, self.held_parts = self._take(first), [first]
        size = len(first)
        while not (self.progress.begun or self.over or self.broken):
            self.held += self.pull()
            self.held_parts.append(self.part)
            size += len(self.part)
            too_long = size > _LONGEST_OPENING or len(self.held) > _MOST_EVENTS
            if too_long and not self.progress.begun:
                self._break(f"no content in {size} bytes")
        if not self.progress.begun:
            self.close()
            return self._broken_early
        self._model = _model_in(self.held)
        self.first_content_s = monotonic() - self._clock.began
        self._clock.extend(self._limits.total_s)
        return Received(status, headers, response=self.response, secrets=self._secrets, stream=self)

    def _beginning(self) -> bytes:
        """Read until it can be told what the body is: some servers begin with blank lines, or byte by byte."""
        first = part = self._body.read()
        while part and len(first) < _MOST_BLANKS:
            told = first.strip()
            if len(told) >= _TELLING or (told and first.endswith((b"\n", b"\r"))):
                break
            part = self._body.read()
            first += part
        return first

    @property
    def _broken_early(self) -> Received:
        """What broke it before the first content."""
        nothing = Received(
            self.response.status_code, self.response.raw.headers, fault=BROKEN_OFF, detail="no content"
        )
        return self.broken or nothing

    @property
    def is_answered(self) -> bool:
        """Whether the answer is there, be there more to come or not."""
        return self.broken is None and (self.over or self.progress.ended)

    def said(self) -> Dict[str, Any]:
        """Return what it told of model and usage."""
        return {"usage": self.progress.usage, "model": self._model}

    def pull(self) -> List[Dict[str, Any]]:
        """Wait for the next bytes, and return the JSON objects that they complete."""
        self._wind()
        try:
            self.part = self._body.read()
        except WIRE_ERRORS as error:
            self.part = b""
            self._end(error)
            return []
        return self._take(self.part)

    def _take(self, part: bytes) -> List[Dict[str, Any]]:
        progress = self.progress
        found: List[Dict[str, Any]] = []
        try:
            events = self._decoder.feed(part) if part else self._decoder.end()
        except EventTooLong as error:
            self._break(str(error))
            return found
        for event in events:
            payload = progress.take(event)
            if progress.content:
                self._waiting_since = None  # the pause begins when somebody waits for the next
            if payload is not None:
                found.append(payload)
            if progress.broken:
                self._break(progress.detail, progress.error)
                break
            if progress.over:
                self.over = True
                break
        if not part and not self.over and self.broken is None:
            self._end(None)
        return found

    def _wind(self) -> None:
        """Set the clock for what is waited for now."""
        if not self.progress.begun or self._waiting_since is not None:
            return
        self._waiting_since = monotonic()
        pause_s = _USAGE_S if self.progress.ended else self._limits.stall_s
        self._clock.extend(self._limits.total_s)
        if pause_s is not None:
            self._clock.hasten(self._waiting_since + pause_s)

    def _end(self, error: Optional[Exception]) -> None:
        """Take in the end of the body, or of the connection."""
        if self.progress.ended or (error is None and self.progress.whole):
            self.over = True
        elif error is None:
            self._break("the stream ended without finish_reason or [DONE]")
        else:
            fault = fault_of(error, self._clock, self._secrets)
            late = self._clock.expired
            forget_frames(error)
            self._break(self._lateness() if late else fault.detail, late=late)

    def _lateness(self) -> str:
        if self._clock.aborted:
            return "called off"
        if not self.progress.begun:
            return f"no content within {self._limits.content_s:.1f} s"
        if self._clock.ran_s(self._limits.total_s):
            return f"still coming after {self._limits.total_s:.1f} s, all that timeout.total left it"
        return f"stalled: no content for {self._limits.stall_s or 0.0:.1f} s"

    def _break(self, detail: str, error: Optional[Dict[str, Any]] = None, *, late: bool = False) -> None:
        """Note what broke the stream, as a reply or as a fault."""
        status, headers = self.response.status_code, self.response.raw.headers
        begun = self.progress.begun
        if error is not None and not begun:
            self.broken = Received(
                status, headers, b"{}", error, response=self.response, secrets=self._secrets
            )
            return
        if not begun:
            fault = LATE if late else BROKEN_OFF
        elif late and self._clock.ran_s(self._limits.total_s) and not self._is_stuck():
            fault = OVERDUE
        else:
            fault = INTERRUPTED
        detail = "the stream reported an error" if error is not None else detail
        self.broken = Received(
            status,
            headers,
            payload=error,
            response=self.response,
            fault=fault,
            detail=detail,
            secrets=self._secrets,
        )

    def _is_stuck(self) -> bool:
        return self._waiting_since is not None and monotonic() - self._waiting_since >= _STUCK_S

    def release(self) -> None:
        """Give the connection back after the end, if the rest of the body comes at once; else close it.

        No other thread may be reading.
        """
        if not self.over or self.broken is not None:
            self.close()
            return
        self._clock.hasten(monotonic() + _END_S)
        try:
            while self._body.read():
                pass
            self._body.release()
        except WIRE_ERRORS as error:  # the answer is whole: how its connection ends harms nobody
            forget_frames(error)
            self.close()
        except BaseException:  # a signal
            self.close()
            raise

    def close(self) -> None:
        """Close the connection at once; no other thread may be reading."""
        self._body.close()
        if self._clock.kill_switch is not None:
            self._clock.kill_switch.let_go()

    def abort(self) -> None:
        """Have a thread that reads now find the connection closed."""
        self._clock.abort()


def begin_stream(progress: Callable[[], Progress], attempt: Attempt, stall_s: Optional[float]) -> Reader:
    """Return what reads an attempt's reply as a stream: a good one to its first content, any other to its end.

    Args:
        progress: makes what follows the stream's events.
        attempt: its times set.
        stall_s: seconds between two contents; None for as long as the whole may take.

    """
    limits = Limits(attempt.content_s, attempt.call_left_s, stall_s)

    def read(response: EndpointResponse, clock: AttemptClock, secrets: Sequence[str]) -> Received:
        if response.status_code >= 300:
            return whole(response, clock, secrets)
        stream = EventStream(response, clock, secrets, progress(), limits)
        try:
            return stream.begin()
        except BaseException:  # a signal
            stream.close()
            raise

    return read


def _model_in(held: Sequence[Dict[str, Any]]) -> Any:
    """Return the model that a stream's first event names."""
    first = held[0] if held else {}
    response = first.get("response")
    return (response if type(response) is dict else first).get("model")


def _holds_events(headers: Any, beginning: bytes) -> bool:
    """Tell whether a body is a stream of events, by what it begins with, and else by what its headers say."""
    if beginning.startswith((b"{", b"[", b"<")):  # an error, or a web page, whatever the headers say
        return False
    says_so = "event-stream" in (headers.get("content-type") or "").lower()
    return says_so or beginning.startswith(_BEGINNINGS)
