"""llmock, a server that grades clients: every fault it knows, through every door of ours.

llmock sees one server, not the caller: leaving it for another one, or telling the caller, looks to it like giving up.
What it finds for that reason is written down here and in docs/judges.md, to the word; anything else fails.
"""

from importlib import import_module as judge
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import pytest
from openai_shapes import check, text_of

from syncfailover import FailoverClient, FailoverError, Timeouts

pytestmark = pytest.mark.judge

PRIMARY, FALLBACK = "the primary", "the fallback"
#: Seconds; llmock sends them in `Retry-After-Ms`, too.
SHORTLY, LONG = 0.1, 30.0


class End(NamedTuple):
    """How a call ends, and what the primary's judge finds."""

    #: Whose answer comes, or the name of the error that is raised.
    gets: str
    finds: Tuple[str, ...] = ()


class Fault(NamedTuple):
    """A fault of the primary, and how calls end that meet it."""

    name: str
    inject: Callable[[Any], Any]
    with_fallback: End
    alone: End
    #: How streams end whose reader has seen content, and wants no new beginning; None where it has seen none.
    seen: Optional[End] = None
    #: Whether it is felt only by who waits too long.
    slow: bool = False
    streams_only: bool = False


def status(
    number: int, with_fallback: End, alone: End, *, name: str = "", times: Optional[int] = 1, **what: Any
) -> Fault:
    """Make a fault that is an HTTP status."""
    return Fault(name or str(number), lambda p: p.fail(number, times=times, **what), with_fallback, alone)


def mid_stream(
    name: str, inject: Callable[[Any], Any], with_fallback: End, alone: End, seen: Optional[End] = None
) -> Fault:
    """Make a fault of a stream; llmock spaces the chunks out, so that it notices who leaves."""
    return Fault(name, lambda p: inject(p.pace(5)), with_fallback, alone, seen, streams_only=True)


def late(name: str, inject: Callable[[Any], Any], alone: End, seen: Optional[End] = None) -> Fault:
    """Make a fault that only a clock notices."""
    ends = End(FALLBACK), alone, seen
    return Fault(name, inject, *ends, slow=True, streams_only=name != "delay")


def every_stream(kind: str) -> Callable[[Any], Any]:
    """Return what breaks all streams after their first chunk, which only says a role."""

    def inject(primary: Any) -> None:
        state = primary.pace(5)._server.state
        chaos = type(state.stream_chaos)
        state.stream_chaos = chaos(fault_rates=((kind, 1.0),), chunk_delay_ms=5, max_after_chunks=1)

    return inject


def chaos(name: str, value: Any) -> Callable[[Any], Any]:
    """Return what sets one of llmock's rates for all requests."""
    return lambda primary: setattr(primary._server.state.chaos, name, value)


FIRST = End(PRIMARY)
OTHER = End(FALLBACK)
LEFT = End(FALLBACK, ("gave_up",))
FAILED = End("AllEndpointsFailed")


def refused(error: str) -> End:
    """Return the end that is an error nobody could cure."""
    return End(error)


FAULTS = [
    # Nobody could answer this.
    status(400, refused("RequestRejected"), refused("RequestRejected")),
    status(413, refused("RequestRejected"), refused("RequestRejected")),
    status(422, refused("RequestRejected"), refused("RequestRejected")),
    status(501, refused("RequestRejected"), refused("RequestRejected")),
    status(400, refused("ContentFiltered"), refused("ContentFiltered"), name="filter", code="content_filter"),
    Fault("context overflow", lambda p: p.context_overflow(), *[refused("ContextLengthExceeded")] * 2),
    Fault("context window", lambda p: p.limits(context_window=1), *[refused("ContextLengthExceeded")] * 2),
    # Another key, or another server, can.
    status(401, OTHER, refused("AuthenticationFailed")),
    status(402, OTHER, refused("QuotaExhausted")),
    status(403, OTHER, refused("RequestRejected")),
    status(404, OTHER, refused("ModelNotFound")),
    # A moment later all is well.
    status(408, FIRST, FIRST),
    status(409, FIRST, FIRST),
    status(429, FIRST, FIRST, retry_after=SHORTLY),
    status(500, FIRST, FIRST),
    status(502, FIRST, FIRST),
    status(504, FIRST, FIRST, retry_after=SHORTLY),
    status(503, LEFT, FIRST, retry_after=SHORTLY),
    status(529, LEFT, FIRST, retry_after=SHORTLY),
    # It lasts.
    Fault("429 twice", lambda p: p.rate_limit(times=2, retry_after=SHORTLY), OTHER, FIRST),
    Fault("429 for long", lambda p: p.rate_limit(retry_after=LONG), LEFT, End("RateLimited", ("gave_up",))),
    status(429, LEFT, End("QuotaExhausted", ("gave_up",)), name="429 for billing", code="insufficient_quota"),
    Fault("requests per minute", lambda p: used_up(p, rpm=1), LEFT, End("RateLimited", ("gave_up",))),
    Fault("tokens per minute", lambda p: used_up(p, tpm=1), LEFT, End("RateLimited", ("gave_up",))),
    status(503, LEFT, FAILED, name="503 outage", times=None, retry_after=SHORTLY),
    Fault("500 outage", lambda p: p.outage(status=500), OTHER, FAILED),
    Fault("500 always", chaos("error_rate_500", 1.0), OTHER, FAILED),
    # It is slow.
    Fault("latency", chaos("latency_ms", 50), FIRST, FIRST),
    Fault("pace", lambda p: p.pace(10), FIRST, FIRST, streams_only=True),
    late("delay", lambda p: p.delay(0.6), FAILED),
    late("slow first token", lambda p: p.slow_first_token(3.0), FAILED),
    late("stall at once", lambda p: p.stall(after_chunks=0, seconds=3.0), FAILED),
    late("stall before content", lambda p: p.stall(after_chunks=1, seconds=3.0), FAILED),
    late("stall", lambda p: p.stall(after_chunks=3, seconds=3.0), FIRST, End("StreamInterrupted")),
    # The stream breaks before its content: after no chunk, or after one that only says a role.
    mid_stream("disconnect at once", lambda p: p.disconnect(after_chunks=0), FIRST, FIRST),
    mid_stream("disconnect before content", lambda p: p.disconnect(after_chunks=1), FIRST, FIRST),
    mid_stream("truncate at once", lambda p: p.truncate(after_chunks=0), FIRST, FIRST),
    mid_stream("truncate before content", lambda p: p.truncate(after_chunks=1), FIRST, FIRST),
    mid_stream("corrupt at once", lambda p: p.corrupt(after_chunks=0), FIRST, FIRST),
    mid_stream("corrupt before content", lambda p: p.corrupt(after_chunks=1), FIRST, FIRST),
    # All of them do.
    mid_stream("disconnect always", every_stream("disconnect"), OTHER, FAILED),
    mid_stream(
        "truncate always",
        every_stream("truncate"),
        End(FALLBACK, ("truncated_stream_accepted",)),
        End("AllEndpointsFailed", ("truncated_stream_accepted",)),
    ),
    mid_stream(
        "corrupt always",
        every_stream("malformed"),
        End(FALLBACK, ("malformed_chunk_ignored",)),
        End("AllEndpointsFailed", ("malformed_chunk_ignored",)),
    ),
    # The stream breaks after content.
    mid_stream(
        "disconnect",
        lambda p: p.disconnect(after_chunks=3),
        LEFT,
        FIRST,
        End("StreamInterrupted", ("gave_up",)),
    ),
    mid_stream(
        "truncate",
        lambda p: p.truncate(after_chunks=3),
        End(FALLBACK, ("truncated_stream_accepted",)),
        FIRST,
        End("StreamInterrupted", ("truncated_stream_accepted",)),
    ),
    mid_stream(
        "corrupt",
        lambda p: p.corrupt(after_chunks=3),
        End(FALLBACK, ("malformed_chunk_ignored",)),
        FIRST,
        End("StreamInterrupted", ("malformed_chunk_ignored",)),
    ),
]


def used_up(primary: Any, **limits: int) -> None:
    """Have nothing left of a limit for a minute."""
    limiter = primary.limits(**limits)._server.state.limiter
    limiter.admit("openai", "Bearer sk-primary", 1)


#: Why we keep to what the judge finds, by the end of the call.
REASONS = {
    ("gave_up", FALLBACK): "We leave at once for the fallback; the judge sees one attempt.",
    ("gave_up", "RateLimited"): "The server asks for more time than the call has; the caller is told so.",
    ("gave_up", "QuotaExhausted"): "No retry pays a bill; the caller is told so.",
    ("gave_up", "StreamInterrupted"): "Content was read; the caller is told, with the text so far.",
    (
        "truncated_stream_accepted",
        FALLBACK,
    ): "We noticed, and began anew at the fallback, which the judge cannot see.",
    (
        "truncated_stream_accepted",
        "StreamInterrupted",
    ): "We noticed; the caller is told, with the text so far.",
    ("truncated_stream_accepted", "AllEndpointsFailed"): "We noticed, tried again, and told the caller.",
    (
        "malformed_chunk_ignored",
        FALLBACK,
    ): "We noticed, and began anew at the fallback, which the judge cannot see.",
    ("malformed_chunk_ignored", "StreamInterrupted"): "We noticed; the caller is told, with the text so far.",
    ("malformed_chunk_ignored", "AllEndpointsFailed"): "We noticed, tried again, and told the caller.",
}


# Doors: each asks, checks what its reader sees on the way, and returns the text.


def chat(client: FailoverClient, prompt: str) -> str:
    """Ask for a whole answer."""
    return whole(client.chat(prompt))


def wire_stream(client: FailoverClient, prompt: str) -> str:
    """Ask for a whole answer that travels as a stream."""
    return whole(client.chat(prompt, wire_stream=True))


def collect(client: FailoverClient, prompt: str) -> str:
    """Ask for a stream and wait for all of it."""
    return whole(client.chat(prompt, stream=True).collect())


def loop(client: FailoverClient, prompt: str) -> str:
    """Read a stream piece by piece."""
    return read(client.chat(prompt, stream=True))


def restart(client: FailoverClient, prompt: str) -> str:
    """Read a stream piece by piece, and again from the beginning where it breaks."""
    return read(client.chat(prompt, stream=True, on_break="restart"))


def openai(client: FailoverClient, prompt: str) -> str:
    """Ask for a whole answer through the openai package."""
    return through_openai(client, prompt).choices[0].message.content


def openai_stream(client: FailoverClient, prompt: str) -> str:
    """Read a stream piece by piece through the openai package."""
    chunks = through_openai(client, prompt, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def whole(reply: Any) -> str:
    """Check a whole reply's shape."""
    check("ChatCompletion", reply)
    return reply.text


def read(stream: Any) -> str:
    """Put the pieces together, and compare them with the whole."""
    text = text_of(stream)
    assert whole(stream.reply) == text
    return text


def through_openai(client: FailoverClient, prompt: str, **params: Any) -> Any:
    """Ask as code for the openai package does."""
    from syncfailover.contrib.openai import failover_openai  # noqa: PLC0415 - it needs the package

    messages = [{"role": "user", "content": prompt}]
    with failover_openai(client) as sdk:
        answer = sdk.chat.completions.create(model="gpt-4o", messages=messages, **params)
        return list(answer) if params else answer


DOORS: Dict[str, Callable[[FailoverClient, str], str]] = {
    door.__name__: door for door in (chat, wire_stream, collect, loop, restart, openai, openai_stream)
}
#: Those that ask for no stream, and those whose reader sees content before the end.
WHOLE, READING = ("chat", "openai"), ("loop", "openai_stream")


def cases(*doors: str) -> List[Any]:
    """Pair every fault with every door that can meet it."""
    return [
        pytest.param(
            fault,
            door,
            id=f"{fault.name}-{door}",
        )
        for fault in FAULTS
        for door in doors
        if door not in WHOLE or not fault.streams_only
    ]


def codes(handle: Any) -> List[str]:
    """Return what the judge has found."""
    return sorted(finding.code for finding in handle.verdict().findings)


def gets(door: str, end: End, primary: Any) -> str:
    """Return what the caller of a door gets; the openai package has errors of its own, by status."""
    if end.gets in (PRIMARY, FALLBACK) or not door.startswith("openai"):
        return end.gets
    last = primary.requests[-1].status
    return f"HTTP {last}" if last >= 400 else "no HTTP status"


def ask(client: FailoverClient, door: str, prompt: str) -> str:
    """Ask, and return who answers, or the name of the error."""
    try:
        text = DOORS[door](client, prompt)
    except FailoverError as error:
        return type(error).__name__
    except judge("openai").APIStatusError as error:
        return f"HTTP {error.status_code}"
    except judge("openai").APIConnectionError:
        return "no HTTP status"
    speaker = text[len("I am ") : text.index(",")]
    assert text == f"I am {speaker}, and this is my whole answer."
    return speaker


def options(fault: Fault) -> Dict[str, Any]:
    """Return what a client needs that is to notice the fault."""
    return {"timeout": Timeouts(total=10.0, read=0.4, first_token=0.4, stall=0.4)} if fault.slow else {}


@pytest.mark.parametrize(("fault", "door"), cases(*DOORS))
def test_with_a_fallback(fault: Fault, door: str, pair: Any, make_client: Any, request: Any) -> None:
    """The caller gets one whole answer or a clean error, and the judge finds what is written down."""
    fault.inject(pair.primary)
    end = fault.seen if fault.seen and door in READING else fault.with_fallback
    client = make_client(pair.endpoints(), **options(fault))
    got = ask(client, door, request.node.name)
    assert got == gets(door, end, pair.primary)
    assert codes(pair.primary) == sorted(end.finds), pair.primary.verdict().render()
    assert codes(pair.fallback) == []
    assert len(pair.fallback.requests) == (end.gets == FALLBACK)


@pytest.mark.parametrize(("fault", "door"), cases("chat", "collect", "loop", "openai"))
def test_alone(fault: Fault, door: str, pair: Any, make_client: Any, request: Any) -> None:
    """With nowhere to go, what can be tried again is, as politely as the judge asks."""
    fault.inject(pair.primary)
    end = fault.seen if fault.seen and door in READING else fault.alone
    client = make_client(pair.endpoints()[:1], **options(fault))
    got = ask(client, door, request.node.name)
    assert got == gets(door, end, pair.primary)
    assert codes(pair.primary) == sorted(end.finds), pair.primary.verdict().render()


@pytest.mark.parametrize("door", DOORS)
def test_a_forced_status(door: str, pair: Any, make_client: Any, request: Any) -> None:
    """A server that answers nothing but 502 is asked twice, and left."""
    client = make_client(pair.endpoints(headers={"X-LLMock-Force-Status": "502"}))
    assert ask(client, door, request.node.name) == FALLBACK
    assert [record.status for record in pair.primary.requests] == [502, 502]
    assert codes(pair.primary) == []


@pytest.mark.parametrize("door", DOORS)
def test_an_outage_does_not_become_a_storm(door: str, pair: Any, make_client: Any, request: Any) -> None:
    """Of ten calls in an outage all are answered, and the server that is down is asked three times."""
    pair.primary.outage(status=500)
    client = make_client(pair.endpoints())
    assert {ask(client, door, f"{request.node.name} {n}") for n in range(10)} == {FALLBACK}
    assert len(pair.primary.requests) == 3


@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_broken_tool_call_is_the_callers(kind: str, streamed: bool, pair: Any, make_client: Any) -> None:
    """What a model says is handed on as it is, and the same in a stream: only the caller knows its tools."""
    primary = pair.primary.reset()
    primary.break_tool_call(kind)
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    client = make_client(pair.endpoints())
    reply = client.chat("What is the weather in Paris?", tools=[tool], stream=streamed)
    (call,) = (reply.collect() if streamed else reply).tool_calls
    if kind == "unknown_tool":
        assert call.function.name == "llmock_unknown_tool"
    else:
        assert call.function.name == "get_weather"
        assert call.function.arguments.startswith("{")
        assert not call.function.arguments.endswith("}")
    assert codes(primary) == []


def test_every_fault_it_knows_is_here(pair: Any) -> None:
    """A fault that a newer llmock knows is a fault to be judged by."""
    handle = type(pair.primary)
    knows = {name for name in vars(handle) if not name.startswith("_")}
    used = set("fail rate_limit outage context_overflow delay disconnect truncate corrupt stall pace".split())
    used |= {"slow_first_token", "break_tool_call", "limits"}
    no_faults = set("url base_url env reply call_tool tool_mode add requests last_request reset".split())
    assert knows - no_faults - {"verdict", "assert_resilient"} == used


def test_every_finding_has_its_reason_in_the_documentation() -> None:
    """docs/judges.md lists what is found and why, no less and no more."""
    page = Path(__file__).parents[2].joinpath("docs", "judges.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `")] == findings()


def findings() -> List[str]:
    """Return the rows of the table in docs/judges.md: what is found, where, and why it stays."""
    where: Dict[Tuple[str, str], List[str]] = {}
    for fault in FAULTS:
        for end in filter(None, (fault.with_fallback, fault.alone, fault.seen)):
            for code in end.finds:
                names = where.setdefault((code, REASONS[code, end.gets]), [])
                names += [] if fault.name in names else [fault.name]
    return [f"| `{code}` | {', '.join(names)} | {why} |" for (code, why), names in where.items()]
