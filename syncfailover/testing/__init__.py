"""What a test of failover needs: an upstream that fails on command, and a clock that obeys."""

from .answer import Answer, End, State
from .clock import ManualClock
from .faults import (
    Blackhole,
    CloseAfter,
    Empty,
    ErrorBody,
    Fault,
    GarbageJson,
    Hang,
    Html,
    Ok,
    Raw,
    Redirect,
    Refuse,
    Reset,
    Status,
    Trickle,
    Truncate,
    WrongLength,
)
from .flow import Flow, Step
from .log import Channel, SeenRequest
from .spec import fault_from, parse_fault
from .stream_faults import Stream, StreamCut, StreamError, StreamGarbage, StreamStall
from .upstream import FakeUpstream

__all__ = [
    "Answer",
    "Blackhole",
    "Channel",
    "CloseAfter",
    "Empty",
    "End",
    "ErrorBody",
    "FakeUpstream",
    "Fault",
    "Flow",
    "GarbageJson",
    "Hang",
    "Html",
    "ManualClock",
    "Ok",
    "Raw",
    "Redirect",
    "Refuse",
    "Reset",
    "SeenRequest",
    "State",
    "Status",
    "Step",
    "Stream",
    "StreamCut",
    "StreamError",
    "StreamGarbage",
    "StreamStall",
    "Trickle",
    "Truncate",
    "WrongLength",
    "fault_from",
    "parse_fault",
]
