"""What holds for every stream: cut replies become whole again, and no JSON is too strange."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from syncfailover.completion.assembly import ChatAssembly, TextAssembly, _Assembly

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1741234567, "model": "gpt-4.1-2025"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}

texts = st.text(max_size=12)
some_text = st.text(min_size=1, max_size=12)
tokens = st.builds(
    lambda token: {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []},
    some_text,
)
token_lists = st.lists(tokens, max_size=4)
functions = st.fixed_dictionaries({"name": st.sampled_from(["f", "get_time"]), "arguments": texts})


@st.composite
def tool_calls(draw):
    """Calls with ids of their own."""
    made = draw(st.lists(functions, min_size=1, max_size=3))
    return [{"id": f"call_{n}", "type": "function", "function": function} for n, function in enumerate(made)]


@st.composite
def messages(draw):
    """A whole message."""
    message = draw(
        st.fixed_dictionaries(
            {
                "role": st.just("assistant"),
                "content": st.none() | some_text,
                "refusal": st.none() | some_text,
            },
            optional={
                "tool_calls": tool_calls(),
                "function_call": functions,
                "reasoning_content": texts,
                "reasoning_details": st.lists(st.fixed_dictionaries({"text": texts}), max_size=3),
                "provider_says": some_text,
            },
        ),
    )
    if (
        message["content"] is None
        and not {"tool_calls", "function_call"} & set(message)
        and not message["refusal"]
    ):
        message["content"] = ""
    return message


@st.composite
def completions(draw):
    """A whole reply as OpenAI sends it without streaming."""
    logprobs = st.none() | st.fixed_dictionaries(
        {"content": token_lists, "refusal": st.none() | token_lists},
    )
    choice = st.fixed_dictionaries(
        {
            "message": messages(),
            "finish_reason": st.sampled_from("stop length tool_calls content_filter function_call".split()),
            "logprobs": logprobs,
        },
    )
    made = draw(st.lists(choice, min_size=1, max_size=3))
    choices = [{"index": index, **each} for index, each in enumerate(made)]
    head = {**HEAD, "object": "chat.completion", "choices": choices, "system_fingerprint": "fp_1"}
    return {**head, "usage": USAGE} if draw(st.booleans()) else head


def cut(rng, sequence):
    """Cut text or a list into pieces at random places, some of them empty."""
    places = sorted(rng.randint(0, len(sequence)) for _ in range(rng.randint(0, 3)))
    return [sequence[a:b] for a, b in zip([0, *places], [*places, len(sequence)])]


def cut_function(rng, function, **fields):
    """Cut a function into pieces: the name first, then arguments."""
    later = [{"arguments": part} for part in cut(rng, function["arguments"])]
    bodies = [{**function, "arguments": ""}, *later]
    return bodies[:1], bodies[1:]


def cut_call(rng, index, call):
    """Cut a call into pieces."""
    (first,), later = cut_function(rng, call["function"])
    opening = {**call, "index": index, "function": first}
    return [
        {"tool_calls": [each]} for each in [opening, *({"index": index, "function": body} for body in later)]
    ]


def cut_field(rng, name, value):
    """Cut a message's field into deltas, in the ways it may be cut."""
    if name == "tool_calls":
        return [cut_call(rng, index, call) for index, call in enumerate(value)]
    if name == "function_call":
        first, later = cut_function(rng, value)
        return [[{name: each} for each in first + later]]
    if value is None or name in {"role", "provider_says"}:
        return [[{name: value}]]
    return [[{name: part} for part in cut(rng, value)]]


def cut_choice(rng, choice):
    """Cut a choice into runs of pieces, each run in its own order."""
    index = choice["index"]
    fields = choice["message"].items()
    runs = [run for name, value in fields for run in cut_field(rng, name, value)]
    runs = [[{"index": index, "delta": delta, "finish_reason": None} for delta in run] for run in runs]
    for name, value in (choice["logprobs"] or {}).items():
        parts = [None] if value is None else cut(rng, value)
        runs.append([{"index": index, "delta": {}, "logprobs": {name: part}} for part in parts])
    return [*runs, [{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}]]


def chunks_of(rng, reply):
    """Cut a reply into chunks: all runs of pieces shuffled together, one or several pieces in a chunk."""
    runs = [run for choice in reply["choices"] for run in cut_choice(rng, choice)]
    head = {
        **{name: reply[name] for name in reply if name not in {"choices", "usage"}},
        "object": HEAD["object"],
    }
    while any(runs):
        pieces = [run.pop(0) for run in (rng.choice(runs) for _ in range(rng.randint(1, 3))) if run]
        yield {**head, "choices": pieces, "usage": None}
    if "usage" in reply:
        yield {**head, "choices": [], "usage": reply["usage"]}


@given(completions(), st.integers(0, 2**32))
def test_a_reply_cut_into_chunks_is_whole_again(reply, seed):
    """However a reply is cut, what is put together is that reply."""
    assembly = ChatAssembly()
    for chunk in chunks_of(random.Random(seed), reply):  # noqa: S311 - cuts, not secrets
        assembly.add(chunk)
    assert assembly.whole() == reply
    ChatCompletion.model_validate(assembly.whole())


class SlowWay(ChatAssembly):
    """An assembly that never takes the quick way."""

    _add_choices = _Assembly._add_choices


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "a", "b", "assistant", "\ud83d"])
)
FIELDS = """choices index delta message content role refusal tool_calls function_call function custom name arguments id
type input audio data transcript expires_at annotations reasoning reasoning_content reasoning_details finish_reason
logprobs text tokens usage created model object service_tier system_fingerprint odd""".split()
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=8,
)


def odd(expected):
    """What is expected, mostly; else anything."""
    return expected | expected | expected | junk


def some(**fields):
    """An object with any of the fields, each mostly of its type."""
    return st.fixed_dictionaries({}, optional={name: odd(value) for name, value in fields.items()})


indices = st.sampled_from([0, 0, 0, 1, 2, 127, 128, -1])
words = st.sampled_from(["", "a", "b", "ab"])
bodies = some(name=words, arguments=words, input=words)
odd_calls = some(index=indices, id=words, type=words, function=bodies, custom=bodies)
odd_deltas = some(
    role=words,
    content=words,
    refusal=words,
    reasoning=words,
    tool_calls=st.lists(odd(odd_calls), max_size=3),
    function_call=bodies,
    audio=some(id=words, data=words, expires_at=st.integers()),
    annotations=st.lists(junk, max_size=2),
    odd=junk,
)
odd_choices = some(
    index=indices,
    delta=odd_deltas,
    text=words,
    finish_reason=st.none() | words,
    logprobs=some(content=st.lists(junk, max_size=2), tokens=st.lists(junk, max_size=2)),
    odd=junk,
)
lone_tokens = st.fixed_dictionaries(
    {
        "index": odd(st.just(0)),
        "delta": odd(st.fixed_dictionaries({"content": odd(words)})),
        "finish_reason": odd(st.none()),
    },
    optional={"logprobs": odd(st.none()), "odd": junk},
)
odd_chunks = some(
    id=words,
    created=st.integers(),
    model=words,
    system_fingerprint=words,
    usage=st.none() | some(total_tokens=st.integers()),
    choices=st.lists(odd(odd_choices | lone_tokens), max_size=3),
    odd=junk,
)
odd_streams = st.lists(odd_chunks, max_size=6)


def is_text_or_none(value):
    """Tell whether something is a string or null."""
    return value is None or isinstance(value, str)


def is_well_formed_function(body, said="arguments"):
    """Tell whether a function has all that it needs."""
    return isinstance(body["name"], str) and isinstance(body[said], str)


def is_well_formed_call(call):
    """Tell whether a tool call has all that it needs."""
    said = {"function": "arguments", "custom": "input"}[call["type"]]
    return isinstance(call["id"], str) and is_well_formed_function(call[call["type"]], said)


def check_message(message):
    """Check the types of a message."""
    assert isinstance(message["role"], str)
    assert is_text_or_none(message["content"])
    assert is_text_or_none(message["refusal"])
    assert is_text_or_none(message.get("reasoning"))
    assert all(is_well_formed_call(call) for call in message.get("tool_calls", ()))
    assert is_well_formed_function(message.get("function_call", {"name": "", "arguments": ""}))
    assert all(isinstance(each, dict) for each in message.get("annotations", ()))


def check_logprobs(logprobs, *names):
    """Check the types of logprobs."""
    assert logprobs is None or isinstance(logprobs, dict)
    for name in names:
        assert isinstance((logprobs or {}).get(name) or [], list)


def check_reply(reply, kind):
    """Check the types of a reply."""
    assert reply["object"] == kind
    assert all(isinstance(reply[name], str) for name in ("id", "model"))
    assert type(reply["created"]) is int
    assert is_text_or_none(reply.get("system_fingerprint"))
    assert isinstance(reply.get("usage", {}), dict)
    indices = [choice["index"] for choice in reply["choices"]]
    assert indices
    assert indices == sorted(set(indices))
    for choice in reply["choices"]:
        assert isinstance(choice["finish_reason"], str)
        if kind == "text_completion":
            assert isinstance(choice["text"], str)
            check_logprobs(choice["logprobs"], "tokens", "text_offset")
        else:
            check_message(choice["message"])
            check_logprobs(choice["logprobs"], "content", "refusal")


def check_odd_stream(chunks):
    """Put a stream of odd chunks together in all ways, and check what comes out."""
    before = json.dumps(chunks)
    quick, slow, text = ChatAssembly(), SlowWay(), TextAssembly()
    for each in chunks:
        for assembly in (quick, slow, text):
            assembly.add(each)
            check_reply(assembly.whole(), "text_completion" if assembly is text else "chat.completion")
    assert json.dumps(chunks) == before
    assert json.dumps(quick.whole()) == json.dumps(quick.whole()) == json.dumps(slow.whole())
    assert (quick.text, quick.usage) == (slow.text, slow.usage)


@given(odd_streams)
def test_any_stream_makes_a_reply(chunks):
    """No JSON raises; types come out right; chunks stay as they were; the quick way gives what the slow one does."""
    check_odd_stream(chunks)


@pytest.mark.slow
@settings(max_examples=1_000, suppress_health_check=list(HealthCheck))
@given(odd_streams)
def test_any_stream_makes_a_reply_at_length(chunks):
    """The same holds for very many streams."""
    check_odd_stream(chunks)
