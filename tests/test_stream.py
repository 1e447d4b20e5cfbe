"""`client.chat(..., stream=True)`: what a caller sees of a stream, whole or broken, and what it leaves behind."""

import gc
import json
import logging
import os
import pickle
import signal
import threading
import time
from typing import Any, List

import pytest
import requests
from fleet import endpoints_of

from syncfailover import (
    BudgetExceeded,
    ChatReply,
    ChatStream,
    ClientClosed,
    ConfigurationError,
    DeadlineExceeded,
    FailoverError,
    FailoverRetry,
    StreamDeadlineExceeded,
    StreamInterrupted,
    Timeouts,
)
from syncfailover.testing import (
    ErrorBody,
    FakeUpstream,
    Hang,
    Ok,
    Raw,
    Reset,
    Status,
    Stream,
    StreamCut,
    StreamError,
    StreamGarbage,
    StreamStall,
)

TEN = " ".join(f"token{number}" for number in range(10))
SLOW = Stream(tokens=1000, interval_s=0.005)
#: Every way of breaking after three tokens.
BREAKS = [
    StreamCut(after=3, tokens=10),
    StreamCut(after=3, tokens=10, how="close"),
    StreamCut(after=3, tokens=10, how="chunked"),
    StreamCut(after=3, tokens=10, how="content-length"),
    StreamStall(after=3, tokens=10),
    StreamStall(after=3, tokens=10, comments_every_s=0.02),
    StreamError(after=3, tokens=10),
    StreamError(after=3, tokens=10, done=True),
    StreamGarbage(after=3, tokens=10),
]
IDS = "reset close chunked length stall comments error error-done garbage".split()


def names(stream: Any) -> List[Any]:
    """Return endpoint and outcome of each attempt."""
    return [(attempt.endpoint, attempt.outcome) for attempt in stream.attempts]


def in_flight(client: Any) -> List[int]:
    """Return how many permits each endpoint has given out."""
    return [state.in_flight for state in client.status().endpoints]


# Reading


def test_a_stream_is_the_answer_in_pieces(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Chunks come in the OpenAI shape; after the end there are reply, usage, cost, ledger and times."""
    client = make_client()
    stream = client.chat("Hi", stream=True)
    assert isinstance(stream, ChatStream)
    assert stream.reply is None
    assert stream.usage is None
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == upstreams_text(upstreams[0])
    assert len(pieces) > 2
    assert isinstance(stream.reply, ChatReply)
    assert stream.reply.text == upstreams_text(upstreams[0]) == stream.text
    assert stream.usage.total_tokens == stream.reply["usage"]["total_tokens"] > 0
    assert names(stream) == [("a", "ok")]
    assert stream.reply.attempts == stream.attempts
    assert 0 < stream.first_token_ms <= stream.reply.latency_ms
    assert stream.reply.finish_reason == "stop"


def upstreams_text(upstream: FakeUpstream) -> str:
    """Return what an upstream says."""
    return f"Hello from {upstream.name}."


def test_chunks_read_by_attribute_and_by_item(make_client: Any) -> None:
    """A chunk is read as the openai package's chunks are, and `.text` is what it adds."""
    for chunk in make_client().chat("Hi", stream=True):
        assert chunk.object == chunk["object"] == "chat.completion.chunk"
        assert chunk.text == (chunk["choices"][0]["delta"].get("content") or "")
        assert chunk.restarted is False


def test_text_deltas_are_the_text(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """`text_deltas()` gives the pieces of the text and nothing empty."""
    upstreams[0].script(Stream(tokens=10))
    deltas = list(make_client().chat("Hi", stream=True).text_deltas())
    assert "".join(deltas) == TEN
    assert all(deltas)


def test_collect_gives_the_same_reply_again(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """`collect()` gives the whole reply, also after some chunks were read, and the same one the second time."""
    upstreams[0].script(Stream(tokens=10))
    stream = make_client().chat("Hi", stream=True)
    next(stream)
    reply = stream.collect()
    assert reply.text == TEN
    assert stream.collect() is reply is stream.reply
    assert list(stream) == []


def test_create_streams_as_in_the_openai_package(make_client: Any) -> None:
    """`client.chat.completions.create(stream=True)` is the same stream."""
    create = make_client().chat.completions.create
    stream = create(messages=[{"role": "user", "content": "Hi"}], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == stream.reply.text


def test_usage_is_asked_for_and_shown_only_to_who_asked(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """The usage is known either way, but a chunk without choices would break code that did not ask for it."""
    client = make_client()
    quiet = client.chat("Hi", stream=True)
    assert all(chunk.choices for chunk in quiet)
    assert quiet.usage is not None
    asked = client.chat("Hi", stream=True, stream_options={"include_usage": True})
    assert [bool(chunk.choices) for chunk in asked].count(False) == 1
    refused = client.chat("Hi", stream=True, stream_options={"include_usage": False})
    refused.collect()
    assert refused.usage is None
    without = client.chat("Hi", stream=True, stream_options=None)
    without.collect()
    sent = [upstreams[n].calls.requests[0].json() for n in range(3)] + [upstreams[0].calls.requests[1].json()]
    assert [body["stream_options"] for body in sent[:3]] == [
        {"include_usage": u} for u in (True, True, False)
    ]
    assert "stream_options" not in sent[3]


def test_a_whole_reply_in_place_of_a_stream_is_one_chunk(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """A server that does not stream is read all the same: its whole reply is one chunk."""
    whole = {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}]
    }
    upstreams[0].script(Status(200, whole), Status(200, whole))
    client = make_client()
    assert [chunk.text for chunk in client.chat("Hi", stream=True)] == ["Hi"]
    upstreams[1].script(Status(200, whole))
    stream = client.chat("Hi", stream=True)
    assert stream.collect().text == "Hi"
    assert client.metrics()["successful_requests"] == 2


def test_events_come_as_they_arrive(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """The first chunk is there long before the last one is sent, whatever the coding."""
    for coding in ("chunked", "close", "gzip", "content-length"):
        upstreams[0].script(Stream(tokens=4, interval_s=0.1, coding=coding))
        client = make_client(endpoints_of_first(upstreams))
        began = time.monotonic()
        stream = client.chat("Hi", stream=True)
        moments = [time.monotonic() - began for _ in stream]
        assert moments[0] < 0.1, coding
        assert moments[-1] > 0.25, coding
        assert stream.text == "token0 token1 token2 token3"


def endpoints_of_first(upstreams: List[FakeUpstream]) -> Any:
    """Return an endpoint for the first upstream alone."""
    return endpoints_of(upstreams[:1])


# Whole or broken


@pytest.mark.parametrize("fault", BREAKS, ids=IDS)
def test_a_break_after_content_raises_with_the_text_so_far(
    fault: Any, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """A stream that breaks after its first content raises, with what had come and what was tried; no more is sent."""
    upstreams[0].script(fault)
    client = make_client(timeout=Timeouts(total=5, stall=0.1))
    stream = client.chat("Hi", stream=True)
    seen: List[str] = []
    with pytest.raises(StreamInterrupted, match="a: ") as caught:
        seen.extend(chunk.text for chunk in stream)
    assert "".join(seen) == "token0 token1 token2" == caught.value.text
    assert [attempt.outcome for attempt in caught.value.attempts] == ["interrupted"]
    assert caught.value.attempts[0].maybe_billed
    assert sum(len(upstream.calls.requests) for upstream in upstreams) == 1
    assert in_flight(client) == [0, 0, 0]
    assert client.metrics()["failed_requests"] == 1
    with pytest.raises(StreamInterrupted) as again:
        next(stream)
    assert again.value is caught.value
    with pytest.raises(StreamInterrupted):
        stream.collect()


@pytest.mark.parametrize("fault", BREAKS, ids=IDS)
def test_a_break_before_content_is_not_seen(
    fault: Any, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """Until the first content the call goes on freely: the caller sees one whole stream."""
    early = type(fault)(**{**fault.__dict__, "after": 0})
    upstreams[0].script(early)
    client = make_client(timeout=Timeouts(total=5, first_token=0.1))
    stream = client.chat("Hi", stream=True)
    assert "".join(chunk.text for chunk in stream) == upstreams_text(upstreams[1])
    assert [attempt.endpoint for attempt in stream.attempts] == ["a", "b"]
    assert client.metrics()["successful_requests"] == 1


@pytest.mark.parametrize("fault", BREAKS, ids=IDS)
def test_collect_never_returns_a_part(fault: Any, upstreams: List[FakeUpstream], make_client: Any) -> None:
    """`collect()` begins anew elsewhere and returns one whole answer of one endpoint."""
    upstreams[0].script(fault)
    client = make_client(timeout=Timeouts(total=5, stall=0.1))
    reply = client.chat("Hi", stream=True).collect()
    assert reply.text == upstreams_text(upstreams[1])
    assert names(reply) == [("a", "interrupted"), ("b", "ok")]
    assert client.metrics()["successful_requests"] == 1


def test_a_restart_is_told_before_the_new_beginning(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """With `on_break="restart"` one chunk says that everything before it is void, and the rest is a whole answer."""
    upstreams[0].script(StreamCut(after=3, tokens=10))
    stream = make_client().chat("Hi", stream=True, on_break="restart")
    chunks = list(stream)
    marks = [chunk.restarted for chunk in chunks]
    assert marks.count(True) == 1
    before, after = chunks[: marks.index(True)], chunks[marks.index(True) :]
    assert "".join(chunk.text for chunk in before) == "token0 token1 token2"
    assert "".join(chunk.text for chunk in after) == upstreams_text(upstreams[1]) == stream.reply.text
    assert after[0].choices[0].delta.content is None


def test_a_restart_sends_the_callers_messages_and_no_more(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """What was said before the break is never sent as the beginning of an answer to go on with."""
    upstreams[0].script(StreamCut(after=3, tokens=10))
    make_client().chat("Hi", stream=True).collect()
    first, second = (upstreams[n].calls.requests[0].json() for n in (0, 1))
    assert first == second
    assert [message["role"] for message in second["messages"]] == ["user"]


def test_where_nobody_can_begin_anew_the_break_is_told(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """With every endpoint failing after the break, the error is the interruption, with the text that was read."""
    upstreams[0].script(StreamCut(after=3, tokens=10))
    for upstream in upstreams[1:]:
        upstream.calls.always(Status(503))
    upstreams[0].calls.always(Status(503))
    stream = make_client(timeout=2).chat("Hi", stream=True, on_break="restart")
    with pytest.raises(StreamInterrupted) as caught:
        list(stream)
    assert caught.value.text == "token0 token1 token2"
    assert {attempt.outcome for attempt in caught.value.attempts} == {"interrupted", "overloaded"}


def test_who_must_not_pay_twice_gets_the_break(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """With `ambiguous="raise"` nothing that may have been billed is sent again, before content or after it."""
    upstreams[0].script(StreamCut(after=3, tokens=10))
    upstreams[1].script(StreamCut(after=0, tokens=10))
    client = make_client(max_retries=FailoverRetry(ambiguous="raise"))
    with pytest.raises(StreamInterrupted):
        client.chat("Hi", stream=True).collect()
    with pytest.raises(FailoverError):
        client.chat("Hi", stream=True)
    assert [len(upstream.calls.requests) for upstream in upstreams] == [1, 1, 0]


def test_finish_reason_without_done_is_whole_at_once(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A stream is over when it said why it ends and gave its usage, even if the server then goes silent."""
    upstreams[0].script(Stream(tokens=10, done=False, hold=True))
    began = time.monotonic()
    stream = make_client().chat("Hi", stream=True)
    assert "".join(chunk.text for chunk in stream) == TEN
    assert stream.usage is not None
    assert time.monotonic() - began < 0.5
    assert names(stream) == [("a", "ok")]


@pytest.mark.parametrize("done", [True, False], ids=["[DONE]", "no [DONE]"])
@pytest.mark.parametrize("reason", ["stop", None], ids=["finish_reason", "no finish_reason"])
def test_what_is_whole(done: bool, reason: Any, upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A reason for the end or `[DONE]` makes a stream whole; one that just ends is broken."""
    upstreams[0].script(Stream(tokens=3, done=done, finish_reason=reason))
    stream = make_client().chat("Hi", stream=True)
    if done or reason:
        assert "".join(chunk.text for chunk in stream) == "token0 token1 token2"
    else:
        with pytest.raises(StreamInterrupted, match=r"ended without finish_reason or \[DONE\]"):
            list(stream)


def test_connections_are_used_again_after_a_whole_stream(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """A stream that was read to its end gives its connection back."""
    client = make_client(endpoints_of_first(upstreams))
    for _ in range(3):
        client.chat("Hi", stream=True).collect()
        list(client.chat("Hi", stream=True))
    assert upstreams[0].connections == 1


def test_errors_before_the_stream_are_raised_by_the_call(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """What no endpoint could cure is raised by the call itself, before anything is iterated."""
    for upstream in upstreams:
        upstream.calls.always(Status(400))
    with pytest.raises(requests.HTTPError, match="HTTP 400"):
        make_client().chat("Hi", stream=True)


@pytest.mark.parametrize("fault", [Status(503), Reset(), ErrorBody(), Hang(0.05)], ids=repr)
def test_plain_faults_fail_over_for_streams_too(
    fault: Any, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """A fault before the headers, or an error body, sends a stream elsewhere as it does a plain call."""
    upstreams[0].script(fault)
    assert make_client().chat("Hi", stream=True).collect().text == upstreams_text(upstreams[1])


# Clocks


def test_comments_do_not_keep_a_stream_alive(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A keep-alive comment every 20 ms is no content: the first token is late all the same."""
    upstreams[0].script(Stream(tokens=3, first_token_s=30, comments_every_s=0.02))
    client = make_client(timeout=Timeouts(total=5, first_token=0.2))
    began = time.monotonic()
    stream = client.chat("Hi", stream=True)
    assert 0.2 <= time.monotonic() - began < 0.6
    assert names(stream)[0] == ("a", "late")
    assert "no content within 0.2 s" in stream.attempts[0].detail
    stream.close()


def test_a_silent_server_has_half_the_time_to_its_first_token(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """Without `first_token` one silent stream never eats the whole deadline while another endpoint could answer."""
    upstreams[0].script(Stream(tokens=3, first_token_s=30, comments_every_s=0.02))
    began = time.monotonic()
    stream = make_client(timeout=0.8).chat("Hi", stream=True)
    assert stream.endpoint == "b"
    assert 0.4 <= time.monotonic() - began < 0.7
    stream.close()


def test_total_bounds_a_stream_that_goes_on(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """When the call's time is over a stream ends, with its text; that is not the endpoint's fault."""
    upstreams[0].script(SLOW)
    client = make_client(timeout=0.3)
    stream = client.chat("Hi", stream=True)
    began = time.monotonic()
    with pytest.raises(
        StreamDeadlineExceeded, match=r"after 0.3 s, all that timeout.total left it"
    ) as caught:
        list(stream)
    assert time.monotonic() - began < 0.5
    assert isinstance(caught.value, (DeadlineExceeded, StreamInterrupted))
    assert isinstance(caught.value, requests.Timeout)
    assert caught.value.text.startswith("token0 token1")
    assert client.registry._pool.nodes["a"].breaker.failures == 0


def test_a_slow_reader_is_not_a_stall(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """The pause between two contents is timed while somebody waits for it, not while the reader does other things."""
    upstreams[0].script(Stream(tokens=6, interval_s=0.02))
    stream = make_client(timeout=Timeouts(total=5, stall=0.1)).chat("Hi", stream=True)
    for _ in stream:
        time.sleep(0.12)
    assert names(stream) == [("a", "ok")]


def test_a_whole_answer_over_a_streaming_wire(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """With `wire_stream` a dead generation is noticed by its first token or a stall; the caller gets one whole reply."""
    upstreams[0].script(StreamStall(after=0, tokens=10), StreamStall(after=3, tokens=10))
    client = make_client(timeout=Timeouts(total=10, first_token=0.15, stall=0.15), balancer=First())
    for outcome in ("late", "interrupted"):
        began = time.monotonic()
        reply = client.chat("Hi", wire_stream=True)
        assert isinstance(reply, ChatReply)
        assert (reply.text, reply.endpoint) == (upstreams_text(upstreams[1]), "b")
        assert names(reply) == [("a", outcome), ("b", "ok")]
        assert reply.usage.total_tokens > 0
        assert 0.15 <= time.monotonic() - began < 0.5


class First:
    """A balancer that takes the first."""

    def pick(self, candidates: Any) -> Any:
        """Take the first."""
        return candidates[0]


# The end


def leave_by_break(stream: Any) -> None:
    """Break out of a loop."""
    for _ in stream:
        break


def leave_by_exception(stream: Any) -> None:
    """Raise out of a loop."""
    with pytest.raises(ZeroDivisionError):
        [1 / 0 for _ in stream]


def leave_by_with(stream: Any) -> None:
    """Leave a `with` block."""
    with stream as same:
        next(same)


def leave_by_close(stream: Any) -> None:
    """Close it, twice."""
    stream.close()
    stream.close()


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_exception, leave_by_with, leave_by_close])
def test_leaving_a_stream_frees_everything(
    leave: Any, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """However a stream is left, its connection is closed at once and its permit is free; nobody counts it a failure."""
    upstreams[0].script(SLOW)
    client = make_client()
    stream = client.chat("Hi", stream=True)
    leave(stream)
    assert in_flight(client) == [0, 0, 0]
    assert upstreams[0].wait_for(lambda: upstreams[0].in_flight == 0, 1.0)
    assert client.metrics()["endpoints"]["a"]["outcomes"] == {"abandoned": 1}
    assert client.metrics()["failed_requests"] == client.metrics()["endpoints"]["a"]["failed_requests"] == 0
    for use in (lambda: next(stream), lambda: list(stream), stream.collect):
        with pytest.raises(ClientClosed, match=r"closed before its end, after .* characters"):
            use()


def test_a_closed_stream_says_how_far_it_was_read(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """However it is used after that, the count is that of its text, which stays, and it is told how not to close it."""
    upstreams[0].script(Stream(tokens=100))
    stream = make_client().chat("Hi", stream=True)
    for chunk in stream:
        if chunk.text:
            break
    assert stream.text == "token0"
    told = (
        "this stream was closed before its end, after 6 characters of text: leaving the loop closes it;"
        " next(stream) takes one chunk and leaves it open"
    )
    for use in (stream.collect, lambda: next(stream), lambda: list(stream), stream.collect):
        with pytest.raises(ClientClosed) as caught:
            use()
        assert str(caught.value) == told
        assert stream.text == "token0"


def test_a_broken_stream_raises_again(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """`collect()` after the break does not begin anew: it raises the same error."""
    upstreams[0].script(StreamCut(after=3, tokens=10))
    stream = make_client().chat("Hi", stream=True)
    with pytest.raises(StreamInterrupted) as caught:
        list(stream)
    for use in (stream.collect, lambda: next(stream)):
        with pytest.raises(StreamInterrupted) as again:
            use()
        assert again.value is caught.value


def test_leaving_a_loop_where_the_answer_ends_is_a_success(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """Code that stops reading at `finish_reason` has its answer: breaker, metrics and affinity learn of a success."""
    client = make_client(endpoints_of_first(upstreams), failure_threshold=1, max_retries=0)
    upstreams[0].script(Reset())
    with pytest.raises(FailoverError):
        client.chat("Hi")
    assert client.status()["a"].breaker.value == "open"
    for chunk in client.chat("Hi", stream=True):
        if chunk.choices[0].finish_reason:
            break
    assert client.status()["a"].breaker.value == "closed"
    assert client.metrics()["successful_requests"] == 1


def test_an_interruption_at_the_end_keeps_no_permit(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Ctrl-C while everybody is told of a stream's end, or while its next chunk is waited for, frees all the same."""
    client = make_client()

    def interrupt(_event: Any) -> None:
        raise KeyboardInterrupt

    stop = client.on("attempt", interrupt)
    for read in (list, lambda stream: stream.collect()):
        with pytest.raises(KeyboardInterrupt):
            read(client.chat("Hi", stream=True))
        assert in_flight(client) == [0, 0, 0]
    stop()
    assert all(
        upstream.wait_for(lambda upstream=upstream: upstream.in_flight == 0, 1.0) for upstream in upstreams
    )


class SoftLimit(Exception):
    """What a task queue's signal handler raises."""


def test_a_task_queues_time_limit_is_not_the_endpoints_fault(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """An exception that a signal handler raises in mid-stream reaches the caller; nobody else is asked, none blamed."""
    upstreams[0].calls.always(StreamStall(after=1, tokens=10))
    client = make_client(timeout=10)

    def limit(*_: Any) -> None:
        raise SoftLimit

    old = signal.signal(signal.SIGALRM, limit)
    try:
        for params in ({"wire_stream": True}, {"stream": True}):
            signal.setitimer(signal.ITIMER_REAL, 0.15)
            began = time.monotonic()
            with pytest.raises(SoftLimit):
                list(client.chat("Hi", **params))
            assert time.monotonic() - began < 1.0
            client.registry.force_open("b")
            client.registry.force_open("c")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert in_flight(client) == [0, 0, 0]
    assert client.registry._pool.nodes["a"].breaker.failures == 0
    assert [len(upstream.calls.requests) for upstream in upstreams] == [2, 0, 0]


def test_what_a_left_stream_cost_counts_for_the_next_call(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """A loop that is left is known of by the next call: its cost to the budget, its end to its ledger."""
    client = make_client(endpoints_of(upstreams[:1], prices={"gpt-4.1": 1e6}), budget_usd=1.0)
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    upstreams[0].script(Stream(tokens=3, usage=usage, hold=True))
    stream = client.chat("Hi", stream=True, stream_options={"include_usage": True})
    for chunk in stream:
        if chunk.usage:
            break
    assert stream.attempts[-1].outcome == "ok"
    with pytest.raises(BudgetExceeded):
        client.chat("Hi")


@pytest.mark.parametrize(
    "size", [b"-FFFFFFFFFFFFFFFFFFFFFFFF", b"FFFFFFFFFFFFFFFFFFFFFFFF", b"zz"], ids=bytes.decode
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_size_beyond_all_numbers_is_a_fault(
    size: bytes, stream: bool, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """A chunk of an impossible size is the endpoint's fault, and the call goes elsewhere."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstreams[0].script(Raw(head + size + b"\r\ndata: x\r\n"), Raw(head + size + b"\r\ndata: x\r\n"))
    answer = make_client(max_retries=1).chat("Hi", stream=stream)
    assert (answer.collect() if stream else answer).endpoint == "b"


def test_close_during_a_restart_leaves_nothing(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A stop button that is pressed while another endpoint is being asked frees the new stream as well."""
    upstreams[0].script(StreamCut(after=1, tokens=10))
    upstreams[1].script(Stream(tokens=100, interval_s=0.01, first_token_s=0.3))
    client = make_client()
    stream = client.chat("Hi", stream=True, on_break="restart")
    told: List[Any] = []

    def read() -> None:
        try:
            list(stream)
        except FailoverError as error:
            told.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert upstreams[1].wait_for(1, 2.0)
    stream.close()
    reader.join(3)
    assert isinstance(told[0], ClientClosed)
    assert in_flight(client) == [0, 0, 0]
    assert [attempt.outcome for attempt in stream.attempts] == ["interrupted", "abandoned"]
    assert upstreams[1].wait_for(lambda: upstreams[1].in_flight == 0, 1.0)


def test_a_restart_leaves_no_mark_in_the_reply(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """The reply of a stream that began anew is what the provider sent."""
    upstreams[0].script(StreamCut(after=1, tokens=10))
    assert "restarted" not in make_client().chat("Hi", wire_stream=True).to_dict()


@pytest.mark.parametrize("gap", ["", "\n", "\n\n  "])
def test_an_error_body_in_place_of_events_is_read_whole(
    gap: str, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """A pretty-printed JSON error is named by its code, whatever the headers say and whatever blank comes first."""
    body = gap + json.dumps({"error": {"code": 429, "message": "slow down"}}, indent=2)
    upstreams[0].script(Status(200, body, {"Content-Type": "text/event-stream"}))
    stream = make_client().chat("Hi", stream=True)
    assert names(stream)[0] == ("a", "rate_limited")
    stream.close()


def test_a_dropped_stream_frees_everything(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A stream that nobody holds any more lets go of connection and permit, also when only the collector finds it."""
    upstreams[0].script(SLOW)
    upstreams[1].script(SLOW)
    client = make_client()
    dropped = client.chat("Hi", stream=True)
    del dropped
    assert in_flight(client) == [0, 0, 0]
    cycle: Any = [client.chat("Hi", stream=True)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert in_flight(client) == [0, 0, 0]
    for upstream in upstreams[:2]:
        assert upstream.wait_for(lambda upstream=upstream: upstream.in_flight == 0, 1.0)
    outcomes = [client.metrics()["endpoints"][name]["outcomes"] for name in "ab"]
    assert outcomes == [{"abandoned": 1}, {"abandoned": 1}]


def test_the_collector_may_find_a_stream_anywhere(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A stream that is dropped by a thread that holds the registry's lock does not lock it up."""
    upstreams[0].script(SLOW)
    client = make_client()
    stream = client.chat("Hi", stream=True)
    with client.registry._lock:
        del stream
    assert in_flight(client) == [0, 0, 0]
    assert client.metrics()["endpoints"]["a"]["outcomes"] == {"abandoned": 1}


def test_the_collector_may_find_a_loop_anywhere(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """So does a loop over a stream that somebody else still holds."""
    upstreams[0].script(SLOW)
    client = make_client()
    stream = client.chat("Hi", stream=True)
    loop = iter(stream)
    next(loop)
    with client.registry._lock:
        del loop
    assert client.metrics()["endpoints"]["a"]["outcomes"] == {"abandoned": 1}
    assert in_flight(client) == [0, 0, 0]


def test_close_from_another_thread_ends_a_wait(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A stop button works: the reader who waits for the next chunk is told at once."""
    upstreams[0].script(StreamStall(after=1, tokens=10))
    client = make_client(timeout=10)
    stream = client.chat("Hi", stream=True)
    told: List[Any] = []

    def read() -> None:
        try:
            list(stream)
        except FailoverError as error:
            told.append((error, time.monotonic()))

    reader = threading.Thread(target=read)
    reader.start()
    while not stream._reading:
        time.sleep(0.005)
    stream.close()
    closed = time.monotonic()
    reader.join(2)
    assert isinstance(told[0][0], ClientClosed)
    assert told[0][1] - closed < 0.5
    assert in_flight(client) == [0, 0, 0]
    assert client.metrics()["endpoints"]["a"]["outcomes"] == {"abandoned": 1}


def test_outcomes_are_reported_at_the_end(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """While a stream comes its permit is out, and neither breaker nor metrics know how it will end."""
    upstreams[0].script(StreamCut(after=200, tokens=1000, interval_s=0.0005))
    client = make_client(failure_threshold=1)
    stream = client.chat("Hi", stream=True)
    assert in_flight(client) == [1, 0, 0]
    assert client.metrics()["total_requests"] == 0
    assert client.status()["a"].breaker.value == "closed"
    with pytest.raises(StreamInterrupted):
        list(stream)
    assert client.status()["a"].breaker.value == "open"
    assert client.metrics()["total_requests"] == 1


def test_many_threads_stream_at_once(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """Sixteen threads each read their own streams, whole, broken or given up, and nothing is left or miscounted."""
    for upstream in upstreams:
        upstream.calls.always(Stream(tokens=30, interval_s=0.0005))
    client = make_client(timeout=20)
    gate, wrong = threading.Barrier(16), []

    def work(number: int) -> None:
        gate.wait()
        for turn in range(6):
            stream = client.chat("Hi", stream=True)
            if (number + turn) % 3 == 0:
                leave_by_break(stream)
            elif stream.collect().text != " ".join(f"token{n}" for n in range(30)):
                wrong.append(stream.text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert in_flight(client) == [0, 0, 0]
    counted = client.metrics()
    assert (counted["total_requests"], counted["successful_requests"]) == (96, 64)
    assert counted["failed_requests"] == 0


def test_a_stream_stays_with_the_process_that_began_it(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """A forked child is told that the stream is not its own, and takes nothing from it."""
    upstreams[0].script(Stream(tokens=50, interval_s=0.002))
    stream = make_client().chat("Hi", stream=True)
    child = os.fork()
    if child == 0:
        try:
            next(stream)
        except ClientClosed as error:
            os._exit(0 if "forked" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert stream.collect().text == " ".join(f"token{n}" for n in range(50))
    assert names(stream) == [("a", "ok")]


# What is refused, shown, and kept secret


def test_bad_words_are_refused_at_once(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """An unknown `on_break`, or pieces of a text that could begin anew, name the field before anything is sent."""
    client = make_client()
    with pytest.raises(ConfigurationError, match=r"on_break: 'continue' is not allowed.*'raise', 'restart'"):
        client.chat("Hi", stream=True, on_break="continue")
    with pytest.raises(ConfigurationError, match="wire_stream"):
        client.chat("Hi", stream=True, wire_stream=True)
    assert not upstreams[0].calls.requests
    stream = client.chat("Hi", stream=True, on_break="restart")
    with pytest.raises(ConfigurationError, match="text_deltas"):
        stream.text_deltas()
    stream.close()


def test_a_stream_shows_how_it_is(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """The repr is a status line, and a stream is not pickled."""
    upstreams[0].script(Stream(tokens=3))
    stream = make_client().chat("Hi", stream=True)
    assert repr(stream) == "<ChatStream a open, 0 characters>"
    with pytest.raises(TypeError, match=r"collect\(\) gives a reply that can"):
        pickle.dumps(stream)
    reply = stream.collect()
    assert repr(stream) == "<ChatStream a ended, 20 characters>"
    assert pickle.loads(pickle.dumps(reply)).text == reply.text  # noqa: S301 - our own


def test_an_error_in_a_stream_shows_no_key(
    upstreams: List[FakeUpstream], make_client: Any, caplog: Any
) -> None:
    """What a provider echoes of a key in an error event is blotted out, before the first content and after it."""
    caplog.set_level(logging.DEBUG, "syncfailover")
    echo = {"error": {"message": "bad key sk-secret-a", "code": "sk-secret-a"}}
    for after in (0, 3):
        upstreams[0].script(StreamError(after=after, tokens=10, body=echo))
        client = make_client(endpoints_of_first(upstreams), max_retries=0)
        with pytest.raises(FailoverError) as caught:
            list(client.chat("Hi", stream=True))
        error = caught.value
        shown = [
            str(error),
            repr(error.__dict__),
            repr(error.attempts),
            caplog.text,
            repr(pickle.dumps(error)),
        ]
        assert not [text for text in shown if "sk-secret" in text]
        assert "***" in str(error)
        assert error.response is None or "sk-secret" not in repr(error.response.request.headers)


def test_a_stream_costs_what_its_endpoint_charges(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """The reply's usage is priced at the endpoint that answered; what broke before costs nothing in the metrics."""
    upstreams[0].script(StreamCut(after=3, tokens=10))
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    upstreams[1].script(Stream(tokens=3, usage=usage))
    cheap, dear = endpoints_of(upstreams[:2], prices={"gpt-4.1": 2.0})
    client = make_client([cheap, dear.replace(prices={"gpt-4.1": 8.0})])
    reply = client.chat("Hi", stream=True).collect()
    assert reply.cost_usd == pytest.approx(0.012)
    assert [attempt.cost_usd for attempt in reply.attempts] == [None, pytest.approx(0.012)]
    assert client.metrics()["total_cost_usd"] == pytest.approx(0.012)


def test_a_tool_call_is_put_together(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """A tool call that comes in pieces is whole in the reply, and can be sent back."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    upstreams[0].script(
        Ok(message={"role": "assistant", "content": None, "tool_calls": [call]}, finish_reason="tool_calls")
    )
    client = make_client()
    reply = client.chat("Hi", stream=True).collect()
    assert reply.tool_calls[0].function.arguments == '{"city": "Paris"}'
    assert reply.finish_reason == "tool_calls"
    answer = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    client.chat([{"role": "user", "content": "Hi"}, reply.message, answer])
    assert upstreams[1].calls.requests[0].json()["messages"][1]["tool_calls"] == [call]
