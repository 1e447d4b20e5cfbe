"""Chunks of a stream, put together into the reply that the provider would have sent without streaming."""

import copy
import json

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from syncfailover.completion.assembly import MAX_CHOICES, ChatAssembly, TextAssembly

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1741234567, "model": "gpt-4.1-2025"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def chunk(delta=None, finish_reason=None, index=0, **top):
    """Make a chunk of OpenAI's."""
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish_reason}
    return {**HEAD, "system_fingerprint": "fp_1", "choices": [choice], "usage": None, **top}


def sparse(delta, **choice):
    """Make a chunk of those who leave out what is null."""
    return {**HEAD, "choices": [{"index": 0, "delta": delta, **choice}]}


def assembly_of(chunks, kind=ChatAssembly):
    """Take in chunks, which stay as they are."""
    assembly, before = kind(), copy.deepcopy(chunks)
    for each in chunks:
        assembly.add(each)
    assert chunks == before
    return assembly


def whole(chunks):
    """Put a chat together; OpenAI's types find it valid."""
    reply = assembly_of(chunks).whole()
    ChatCompletion.model_validate(reply)
    return reply


def choice_of(chunks):
    """Put a chat with one choice together and return that."""
    (choice,) = whole(chunks)["choices"]
    return choice


def message_of(chunks):
    """Put a chat with one choice together and return its message."""
    return choice_of(chunks)["message"]


def piece(name=None, arguments=None, **fields):
    """Make one entry of a delta's `tool_calls`; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**fields, "function": function}


def test_openai_text():
    """Text, fingerprint and usage come out as without streaming, OpenAI's padding does not."""
    chunks = [
        chunk({"role": "assistant", "content": "", "refusal": None}, obfuscation="Xa"),
        chunk({"content": "Hel"}, obfuscation="b"),
        chunk({"content": "lo"}, obfuscation="Kq9"),
        chunk({}, "stop", obfuscation="c"),
        {**chunk(), "choices": [], "usage": USAGE, "service_tier": "default", "obfuscation": ""},
    ]
    assert whole(chunks) == {
        **HEAD,
        "object": "chat.completion",
        "system_fingerprint": "fp_1",
        "service_tier": "default",
        "usage": USAGE,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            },
        ],
    }
    assert assembly_of(chunks).text == "Hello"
    assert assembly_of(chunks).usage == USAGE


def test_openai_parallel_tool_calls():
    """Arguments go to the call of their index, and a message that only calls tools has the content null."""
    first = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "now", "arguments": ""}}
    second = {"index": 1, "id": "call_b", "type": "function", "function": {"name": "add", "arguments": ""}}
    choice = choice_of(
        [
            chunk({"role": "assistant", "content": None, "tool_calls": [first]}),
            chunk({"tool_calls": [piece(arguments="{}", index=0)]}),
            chunk({"tool_calls": [second]}),
            chunk({"tool_calls": [piece(arguments='{"a":', index=1)]}),
            chunk({"tool_calls": [piece(arguments="1}", index=1)]}),
            chunk({}, "tool_calls"),
        ],
    )
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            {"id": "call_b", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
        ],
    }


def test_openai_function_call():
    """The older single function call is put together."""
    message = message_of(
        [
            chunk({"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": ""}}),
            chunk({"function_call": {"arguments": "{"}}),
            chunk({"function_call": {"arguments": "}"}}),
            chunk({}, "function_call"),
        ],
    )
    assert message["function_call"] == {"name": "now", "arguments": "{}"}
    assert message["content"] is None


def test_openai_several_choices_interleaved():
    """Each choice gets what is its own, and they come out in order."""
    reply = whole(
        [
            chunk({"role": "assistant", "content": ""}, index=1),
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "B"}, index=1),
            chunk({"content": "A"}),
            chunk({"content": "b"}, index=1),
            chunk({"content": "a"}),
            chunk({}, "length", index=1),
            chunk({}, "stop"),
        ],
    )
    said = [(each["index"], each["message"]["content"], each["finish_reason"]) for each in reply["choices"]]
    assert said == [(0, "Aa", "stop"), (1, "Bb", "length")]


def test_openai_logprobs():
    """The logprobs of all chunks are there in order, and null where there were none."""
    hello, world = (
        {"token": t, "logprob": -0.1, "bytes": None, "top_logprobs": []} for t in ("Hello", " world")
    )
    chunks = [chunk({"content": "Hello"}), chunk({"content": " world"}), chunk({}, "stop")]
    assert choice_of(chunks)["logprobs"] is None
    chunks[0]["choices"][0]["logprobs"] = {"content": [hello], "refusal": None}
    chunks[1]["choices"][0]["logprobs"] = {"content": [world], "refusal": None}
    assert choice_of(chunks)["logprobs"] == {"content": [hello, world], "refusal": None}
    chunks[1]["choices"][0]["logprobs"] = {"content": None, "refusal": [world]}
    assert choice_of(chunks)["logprobs"] == {"content": [hello], "refusal": [world]}


def test_openai_refusal():
    """A refusal is put together, and its message has no content."""
    message = message_of(
        [
            chunk({"role": "assistant", "content": "", "refusal": None}),
            chunk({"refusal": "I can"}),
            chunk({"refusal": "not."}),
            chunk({}, "stop"),
        ],
    )
    assert message == {"role": "assistant", "content": None, "refusal": "I cannot."}


def test_openai_audio():
    """Sound and transcript grow; id and expiry are taken from where they come."""
    message = message_of(
        [
            chunk({"role": "assistant", "content": None, "audio": {"id": "audio_1", "transcript": "Hi"}}),
            chunk({"audio": {"transcript": " you"}}),
            chunk({"audio": {"data": "AAAA"}}),
            chunk({"audio": {"data": "BBBB"}}),
            chunk({"audio": {"expires_at": 1741234999}}),
        ],
    )
    assert message["content"] is None
    assert message["audio"] == {
        "id": "audio_1",
        "data": "AAAABBBB",
        "expires_at": 1741234999,
        "transcript": "Hi you",
    }


def test_openai_annotations():
    """The citations of a web search are all there."""
    cited = [
        {
            "type": "url_citation",
            "url_citation": {"start_index": n, "end_index": 9, "title": "t", "url": "https://a"},
        }
        for n in range(3)
    ]
    chunks = [
        chunk({"content": "Hi"}),
        chunk({"annotations": cited[:2]}),
        chunk({"annotations": cited[2:]}, "stop"),
    ]
    assert message_of(chunks)["annotations"] == cited


def test_azure():
    """Chunks that carry only filter results neither hide the id nor lose their results."""
    empty = {"id": "", "object": "", "created": 0, "model": ""}
    prompt = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}]
    results = {"hate": {"filtered": False, "severity": "safe"}}
    later = {"index": 0, "finish_reason": None, "content_filter_results": results}
    reply = whole(
        [
            {**empty, "choices": [], "prompt_filter_results": prompt},
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Hello"}),
            {**HEAD, "choices": [{**later, "delta": {"content": " you"}}]},
            {
                **HEAD,
                "choices": [{**later, "delta": {}, "finish_reason": "stop", "content_filter_results": {}}],
            },
            {**empty, "choices": [{**later, "content_filter_offsets": {"check_offset": 44}}]},
        ],
    )
    assert (reply["id"], reply["created"], reply["model"]) == ("chatcmpl-1", 1741234567, "gpt-4.1-2025")
    assert reply["prompt_filter_results"] == prompt
    (choice,) = reply["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello you", "stop")
    assert choice["content_filter_results"] == results


def test_gemini_whole_tool_calls():
    """Calls without index, each whole in one delta, stay apart, and keep what Gemini wants to have back."""
    signed = {"google": {"thought_signature": "s"}}
    message = message_of(
        [
            sparse(
                {"role": "assistant", "tool_calls": [piece("f", '{"a":1}', id="1", extra_content=signed)]}
            ),
            sparse({"role": "assistant", "tool_calls": [piece("f", '{"a":2}', id="2", type="function")]}),
            sparse({"role": "assistant"}, finish_reason="stop"),
        ],
    )
    assert message["tool_calls"] == [
        {
            "id": "1",
            "type": "function",
            "function": {"name": "f", "arguments": '{"a":1}'},
            "extra_content": signed,
        },
        {"id": "2", "type": "function", "function": {"name": "f", "arguments": '{"a":2}'}},
    ]


def test_mistral_content_in_parts():
    """Of content that is a list of typed parts, the text counts."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts = [thought, {"type": "text", "text": "Hel"}, "l", 5, None, {"type": "text", "text": None}]
    assert message_of([sparse({"content": parts}), sparse({"content": "o"})])["content"] == "Hello"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_deepseek_and_vllm_reasoning(name):
    """Reasoning is put together beside the text, under the name that the provider gives it."""
    message = message_of(
        [
            chunk({"role": "assistant", "content": None, name: ""}),
            chunk({"content": None, name: "Let me"}),
            chunk({"content": None, name: " think."}),
            chunk({"content": "42", name: None}),
            chunk({"content": "", name: None}, "stop"),
        ],
    )
    assert message == {"role": "assistant", "content": "42", "refusal": None, name: "Let me think."}


def test_openrouter():
    """Reasoning comes twice, as text and as details; both are there, and so is who answered."""
    details = [{"type": "reasoning.text", "text": t, "format": "unknown", "index": 0} for t in ("Let", " me")]
    nothing = {"native_finish_reason": None, "logprobs": None, "finish_reason": None}
    said = [{"role": "assistant", "content": "", "reasoning": each["text"]} for each in details]
    chunks = [
        {**sparse({**delta, "reasoning_details": [detail]}, **nothing), "provider": "DeepInfra"}
        for delta, detail in zip(said, details)
    ]
    chunks.append(sparse({"role": "assistant", "content": "42", "reasoning": None}, **nothing))
    chunks.append(
        sparse({"role": "assistant", "content": ""}, finish_reason="stop", native_finish_reason="STOP")
    )
    chunks.append({**chunks[-1], "usage": {**USAGE, "cost": 0.01}})
    reply = whole(chunks)
    (choice,) = reply["choices"]
    assert (reply["provider"], reply["usage"]["cost"]) == ("DeepInfra", 0.01)
    assert choice["native_finish_reason"] == "STOP"
    assert choice["message"] == {
        "role": "assistant",
        "content": "42",
        "refusal": None,
        "reasoning": "Let me",
        "reasoning_details": details,
    }


def test_ollama_without_finish_reason():
    """A stream that ends without ever saying why has ended by itself."""
    chunks = [sparse({"role": "assistant", "content": t}, finish_reason=None) for t in ("Hel", "lo", "")]
    assert choice_of(chunks)["finish_reason"] == "stop"
    assert message_of(chunks)["content"] == "Hello"


def test_perplexity_citations():
    """A list at the top that is sent with every chunk comes out once."""
    chunks = [{**sparse({"content": "a"}), "citations": ["https://a", "https://b"]}] * 3
    assert whole(chunks)["citations"] == ["https://a", "https://b"]


def test_vllm_token_ids():
    """Lists that a choice or a delta is sent in pieces grow."""
    reply = choice_of(
        [sparse({"images": [1]}, token_ids=[1, 2]), sparse({"images": [2]}), sparse({}, token_ids=[3])],
    )
    assert (reply["token_ids"], reply["message"]["images"]) == ([1, 2, 3], [1, 2])


def test_legacy_completions():
    """Text, logprobs and finish reason of the older endpoint are put together."""
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "davinci"}

    def piece_of(text, finish_reason=None, index=0, logprobs=None):
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**head, "choices": [choice]}

    def logprobs(token, offset):
        return {"tokens": [token], "token_logprobs": [-0.5], "top_logprobs": None, "text_offset": [offset]}

    assembly = assembly_of(
        [
            piece_of("Hel", logprobs=logprobs("Hel", 0)),
            piece_of("Bye", index=1),
            piece_of("lo", logprobs=logprobs("lo", 3)),
            piece_of("", "length", index=1),
            piece_of("", "stop"),
            {**head, "choices": [], "usage": USAGE},
        ],
        TextAssembly,
    )
    joint = {"tokens": ["Hel", "lo"], "token_logprobs": [-0.5, -0.5], "text_offset": [0, 3]}
    reply = assembly.whole()
    Completion.model_validate(reply)
    assert reply == {
        **head,
        "choices": [
            {"text": "Hello", "index": 0, "logprobs": joint, "finish_reason": "stop"},
            {"text": "Bye", "index": 1, "logprobs": None, "finish_reason": "length"},
        ],
        "usage": USAGE,
    }
    assert (assembly.text, assembly.usage) == ("Hello", USAGE)


@pytest.mark.parametrize(
    "chunks", [[], [{}], [{"choices": None}], [{"choices": []}], [{"choices": [{}]}]], ids=repr
)
def test_nothing_came(chunks):
    """A reply without chunks is valid and empty."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    empty = {"id": "", "object": "chat.completion", "created": 0, "model": "", "choices": [choice]}
    assert whole(chunks) == empty
    text = assembly_of(chunks, TextAssembly).whole()
    Completion.model_validate(text)
    assert text["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]


def test_asking_changes_nothing():
    """The reply may be asked for at any time, and what is done to it is nobody else's business."""
    assembly = ChatAssembly()
    assert assembly.whole() == assembly.whole()
    assembly.add(chunk({"content": "b", "images": [1], "annotations": []}, index=1))
    reply = assembly.whole()
    assert [choice["index"] for choice in reply["choices"]] == [1]
    message = reply["choices"][0]["message"]
    message["images"].append(2)
    message["annotations"].append({})
    assembly.add(chunk({"content": "a"}))
    assert [choice["index"] for choice in assembly.whole()["choices"]] == [0, 1]
    assert assembly.whole()["choices"][1]["message"]["images"] == [1]
    assert assembly.whole()["choices"][1]["message"]["annotations"] == []


@pytest.mark.parametrize("index", [-1, MAX_CHOICES, 10**30, True, False, 0.0, "0", [0], {}])
@pytest.mark.parametrize(
    "delta", [{"content": "x"}, {"content": "x", "role": "assistant"}], ids=["lone", "full"]
)
def test_a_choice_at_a_strange_index_is_left_out(index, delta):
    """What cannot be told apart is not mixed up."""
    assert whole([chunk({"content": "a"}), chunk(delta, index=index)]) == whole([chunk({"content": "a"})])


def test_a_choice_without_index_is_known_by_its_position():
    """Where there is no index, or null, the position is."""
    reply = whole(
        [{"choices": [{"delta": {"content": "a"}}, {"index": None, "delta": {"content": "b"}}]}] * 2
    )
    assert [(c["index"], c["message"]["content"]) for c in reply["choices"]] == [(0, "aa"), (1, "bb")]


@pytest.mark.parametrize("strange", [None, 5, True, [], ["x"], [[]], {}], ids=repr)
@pytest.mark.parametrize("name", sorted({*chunk(), "service_tier"}))
def test_a_strange_value_at_the_top_does_no_harm(name, strange):
    """The reply stays valid, and what the chunk says beside it is not lost."""
    reply = whole([chunk({"content": "a"}), {**chunk({"content": "b"}), name: strange}])
    assert reply["choices"][0]["message"]["content"] == ("a" if name == "choices" else "ab")


@pytest.mark.parametrize("strange", [5, True, "x", [], ["x"], [[]], {}, {"x": 1}, {"content": 1}], ids=repr)
@pytest.mark.parametrize(
    "name",
    "annotations audio content function_call refusal reasoning reasoning_content reasoning_details tool_calls".split(),
)
def test_a_strange_value_in_a_delta_does_no_harm(name, strange):
    """The message stays valid, and its text is not lost."""
    message = message_of([chunk({"content": "a"}), chunk({name: strange}), chunk({"content": "b"})])
    assert message["content"][::2] in {"ab", "a"}


@pytest.mark.parametrize(
    "strange", [5, True, "x", ["x"], {"content": 5}, {"content": [5]}, {"x": []}], ids=repr
)
def test_strange_logprobs_do_no_harm(strange):
    """What is no list of objects counts as not sent."""
    made = chunk({"content": "a"})
    made["choices"][0]["logprobs"] = strange
    assert choice_of([made])["message"]["content"] == "a"


def test_the_last_value_that_says_something_stays():
    """At the top, in a choice and in a delta, null and emptiness replace nothing."""
    said = [{"odd": "a"}, {"odd": "b"}, {"odd": ""}, {"odd": None}, {"odd": {}}, {"odd": []}, {}]
    reply = whole([{**sparse(each, **each), **each} for each in said])
    (choice,) = reply["choices"]
    assert (reply["odd"], choice["odd"], choice["message"]["odd"]) == ("b", "b", "b")
    assert whole([{"odd": False}, {"odd": 0}])["odd"] == 0


def test_a_lone_token_with_something_beside_it():
    """What a choice carries beside its text is not overlooked for the sake of speed."""
    made = chunk({"content": "a"})
    made["choices"][0]["stop_reason"] = 7
    assert choice_of([made])["stop_reason"] == 7
    assert choice_of([chunk({"content": "a"}, "length")])["finish_reason"] == "length"


def test_an_id_and_a_role_are_the_first_and_a_finish_reason_the_last():
    """Strings that are sent again are not joined, and empty ones do not count."""
    sent = [{"role": "assistant", "audio": {"id": "a"}, "refusal": ""}, {"role": "", "audio": {"id": "b"}}]
    chunks = [chunk(sent[0]), chunk(sent[1], "stop"), chunk({}, "length"), chunk({}, "")]
    choice = choice_of(chunks)
    assert (choice["message"]["role"], choice["finish_reason"]) == ("assistant", "length")
    assert choice["message"]["audio"]["id"] == "a"
    assert choice["message"]["refusal"] is None


def test_usage_is_the_latest_that_came():
    """Some send it with every chunk, and null or nonsense does not undo it."""
    sent = [{**USAGE, "total_tokens": 10}, USAGE, None, {}, [], "x", 5]
    assert assembly_of([{"usage": each} for each in sent]).usage == USAGE
    assert ChatAssembly().usage is None


def test_a_time_with_a_fraction_is_a_time():
    """Servers written in Python send it so; infinity is no time."""
    assert whole([{"created": 1741234567.89}])["created"] == 1741234567
    assert whole([{"created": float("inf")}])["created"] == 0
    assert whole([{"created": float("nan")}])["created"] == 0


def test_a_character_cut_in_two_is_one_again():
    """Half an emoji in each of two chunks makes an emoji; half of one alone becomes the replacement character."""
    chunks = [json.loads(json.dumps(chunk({"content": "", "reasoning": half}))) for half in "\ud83d\ude00"]
    chunks += [json.loads(json.dumps(chunk({"content": half}))) for half in "\ud83d\ude00"]
    assert (
        assembly_of(chunks).text == message_of(chunks)["content"] == message_of(chunks)["reasoning"] == "😀"
    )
    assert assembly_of([chunk({"content": "a\ud83d"})]).text == "a\ufffd"


def test_choices_are_bounded():
    """A provider gone wild does not fill our memory."""
    assert len(whole([chunk(index=n) for n in range(MAX_CHOICES + 9)])["choices"]) == MAX_CHOICES
    assert len(whole([{"choices": [{}] * (MAX_CHOICES + 9)}])["choices"]) == MAX_CHOICES


@pytest.mark.parametrize("nothing", [None, [], [None], ["f"], "f", 5, {}])
def test_no_tool_calls(nothing):
    """A message that calls no tool does not carry the field, whatever stands for nothing."""
    message = message_of([chunk({"content": "", "tool_calls": nothing, "function_call": {}, "audio": {}})])
    assert message == {"role": "assistant", "content": "", "refusal": None}
