"""`client.map`: many prompts in order, errors as values, and with a checkpoint nothing that was answered is asked again."""

import itertools
import json
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from syncfailover import (
    ChatReply,
    ClientClosed,
    ConfigurationError,
    Endpoint,
    FailoverClient,
    RequestRejected,
    Timeouts,
)
from syncfailover.testing import FakeUpstream, Hang, Ok, Status

KEY = "sk-secret-of-the-endpoint"


@pytest.fixture
def echo() -> Iterator[FakeUpstream]:
    """An upstream that says what it was asked."""
    with FakeUpstream("echo", text="{prompt}") as upstream:
        yield upstream


@pytest.fixture
def client(echo: FakeUpstream) -> Iterator[FailoverClient]:
    """A client of it."""
    endpoint = Endpoint("echo", echo.url, KEY, prices={"gpt-4.1": (2.0, 8.0)})
    with FailoverClient([endpoint], model="gpt-4.1", probe_when="never", max_retries=0) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a checkpoint may be made."""
    return str(tmp_path / "run.sqlite")


def asked(upstream: FakeUpstream) -> List[str]:
    """List what the upstream was asked, in order."""
    return [seen.json()["messages"][-1]["content"] for seen in upstream.calls.requests]


def texts(results: List[Any]) -> List[str]:
    """List the texts of replies."""
    return [reply.text for reply in results]


def threads() -> List[str]:
    """List the threads of maps that live."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("syncfailover-map", "syncfailover-checkpoint"))]


# What comes back


def test_results_come_in_the_order_of_the_prompts(client: FailoverClient, echo: FakeUpstream) -> None:
    """Whichever is answered first; texts and lists of messages are asked as `client.chat` asks them."""
    echo.calls.script(Ok(delay_s=0.2), Ok(delay_s=0.1))
    prompts: List[Any] = ["one", [{"role": "system", "content": "s"}, {"role": "user", "content": "two"}]]
    results = client.map([*prompts, "three", "four"], concurrency=4, temperature=0.5)
    assert texts(results) == ["one", "two", "three", "four"]
    assert all(isinstance(reply, ChatReply) for reply in results)
    assert {seen.json()["temperature"] for seen in echo.calls.requests} == {0.5}
    assert client.map([]) == []


def test_errors_are_values(client: FailoverClient, echo: FakeUpstream) -> None:
    """What `client.chat` would have raised for a prompt stands in its place, and the others are answered."""
    echo.calls.script(Ok(), Status(400))
    good, refused, wrong, unfit, last = client.map(["a", "b", None, [{"c": {1, 2}}], "e"], concurrency=1)
    assert (good.text, last.text) == ("a", "e")
    assert isinstance(refused, RequestRejected)
    assert refused.attempts[0].endpoint == "echo"
    assert (wrong.field, unfit.field) == ("messages", "messages")
    assert asked(echo) == ["a", "b", "e"]


def test_as_many_calls_as_allowed_are_under_way(client: FailoverClient, echo: FakeUpstream) -> None:
    """Not more, and not fewer; their threads end with the map."""
    echo.delay_s = 0.05
    assert len(client.map(map(str, range(30)), concurrency=6)) == 30
    assert echo.max_in_flight == 6
    assert threads() == []


def test_a_generator_is_read_as_it_is_needed(client: FailoverClient, echo: FakeUpstream) -> None:
    """In the thread that asks, and a few ahead of what was answered: it may be endless, or a database's cursor."""
    ahead: List[int] = []
    readers = set()

    def prompts() -> Iterator[str]:
        for number in range(60):
            readers.add(threading.get_ident())
            ahead.append(number - len(echo.calls.requests))
            yield str(number)

    assert texts(client.map(prompts(), concurrency=3)) == [str(number) for number in range(60)]
    assert max(ahead) <= 6
    assert readers == {threading.get_ident()}


def test_what_reading_the_prompts_raises_is_raised(
    client: FailoverClient, echo: FakeUpstream, path: str
) -> None:
    """Once the calls under way are done, and their answers kept."""
    echo.delay_s = 0.1

    def prompts() -> Iterator[str]:
        yield "one"
        echo.calls.wait_for(1)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        client.map(prompts(), checkpoint=path)
    assert threads() == []
    assert texts(client.map(["one"], checkpoint=path)) == ["one"]
    assert asked(echo) == ["one"]


def test_a_client_of_other_options_maps_too(client: FailoverClient, echo: FakeUpstream) -> None:
    """On its own terms."""
    child = client.with_options(model="other", default_headers={"X-Who": "child"})
    assert [reply.model for reply in child.map(["a", "b"])] == ["other", "other"]
    assert {seen.header("x-who") for seen in echo.calls.requests} == {"child"}
    assert client.map(["a"], model="third", timeout=Timeouts(total=3.0))[0].model == "third"


def test_a_closed_client_maps_nothing(client: FailoverClient, echo: FakeUpstream) -> None:
    """It says so at once; closed in the middle, the calls that had not begun are errors."""
    closer = iter(["a", "b"])

    def prompts() -> Iterator[str]:
        yield next(closer)
        assert echo.calls.wait_for(1)
        client.close()
        yield next(closer)

    first, second = client.map(prompts(), concurrency=1)
    assert first.text == "a"
    assert isinstance(second, ClientClosed)
    with pytest.raises(ClientClosed):
        client.map(["a"])


# What cannot work


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("prompts", {"prompts": "one text"}),
        ("prompts", {"prompts": b"bytes"}),
        ("prompts", {"prompts": {"role": "user", "content": "Hi"}}),
        ("prompts", {"prompts": 3}),
        ("prompts", {"prompts": None}),
        ("concurrency", {"concurrency": 0}),
        ("concurrency", {"concurrency": 2.5}),
        ("concurrency", {"concurrency": True}),
        ("progress", {"progress": "yes"}),
        ("checkpoint", {"checkpoint": 3}),
        ("checkpoint", {"checkpoint": ""}),
        ("checkpoint", {"checkpoint": b"run.sqlite"}),
        ("model", {"model": ""}),
        ("timeout", {"timeout": -1}),
        ("stream", {"stream": True}),
        ("messages", {"messages": []}),
        ("prompt", {"prompt": "Hi"}),
        ("on_break", {"on_break": "wait"}),
        ("wire_stream", {"wire_stream": "yes"}),
        ("affinity", {"affinity": []}),
        ("timout", {"timout": 3}),
        ("api_key", {"api_key": "sk"}),
        ("extra_headers['Authorization']", {"extra_headers": {"Authorization": "Bearer x"}}),
        ("extra_body", {"extra_body": 3}),
        ("tools", {"tools": [{1, 2}]}),
    ],
)
def test_what_cannot_work_is_told_at_once(field: str, arguments: Any) -> None:
    """It names the field, and nothing is sent."""
    with FailoverClient([Endpoint("echo", "http://127.0.0.1:9")], model="m", probe_when="never") as client:
        with pytest.raises(ConfigurationError) as caught:
            client.map(**{"prompts": ["a"], **arguments})
        assert caught.value.field == field
        assert client.metrics()["total_requests"] == 0


def test_without_a_model_nothing_is_asked(echo: FakeUpstream) -> None:
    """As with `client.chat`."""
    with FailoverClient([Endpoint("echo", echo.url)]) as client, pytest.raises(ConfigurationError) as caught:
        client.map(["a"])
    assert caught.value.field == "model"


def test_no_stream_may_be_said(client: FailoverClient) -> None:
    """Code that always says `stream=False` goes on."""
    assert texts(client.map(["a"], stream=False, wire_stream=True)) == ["a"]


# The checkpoint


def test_what_was_answered_is_not_asked_again(client: FailoverClient, echo: FakeUpstream, path: str) -> None:
    """The same prompts, in another order, with more of them: only what is new is asked."""
    first = client.map(["a", "b", "c"], checkpoint=path)
    echo.clear_log()
    assert client.map(["a", "b", "c"], checkpoint=Path(path)) == first
    assert texts(client.map(["d", "c", "e", "a", "b"], checkpoint=path, concurrency=1)) == list("dceab")
    assert asked(echo) == ["d", "e"]


def test_equal_prompts_have_answers_of_their_own(
    client: FailoverClient, echo: FakeUpstream, path: str
) -> None:
    """As many as there are: whoever asks three times, for three samples, gets them back."""
    first = client.map(["a", "b", "a", "a"], checkpoint=path, concurrency=1)
    assert len({reply.id for reply in first}) == 4
    echo.clear_log()
    second = client.map(["a", "a", "a", "b", "a"], checkpoint=path, concurrency=1)
    assert [reply.id for reply in second[:4]] == [first[place].id for place in (0, 2, 3, 1)]
    assert asked(echo) == ["a"]


SAME: List[Any] = [
    {"prompts": [[{"role": "user", "content": "a"}]]},
    {"prompts": [[{"content": "a", "role": "user"}]]},
    {"model": "gpt-4.1"},
    {"timeout": 3},
    {"affinity": "user-1"},
    {"wire_stream": True},
    {"concurrency": 1},
    {"stream": False},
    {"extra_body": {"seed": 1}, "seed": 2},
    {"tools": [{"function": {}, "type": "function"}]},
    {"extra_headers": {"x-a": "1", "X-B": "2"}},
]
OTHER: List[Any] = [
    {"prompts": ["b"]},
    {"prompts": [[{"role": "system", "content": "a"}]]},
    {"model": "other"},
    {"temperature": 1},
    {"seed": 2},
    {"extra_body": {"seed": 2}},
    {"extra_headers": {"X-A": "1"}},
    {"extra_query": {"version": 2}},
]
#: What was asked first, where it is not the plain prompt.
BEFORE = {
    8: {"seed": 1},
    9: {"tools": [{"type": "function", "function": {}}]},
    10: {"extra_headers": {"X-B": "2", "x-a": "1"}},
}


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        *((BEFORE.get(number, {}), after, True) for number, after in enumerate(SAME)),
        *(({}, after, False) for after in OTHER),
    ],
)
def test_an_answer_belongs_to_what_was_asked(
    client: FailoverClient, echo: FakeUpstream, path: str, before: Any, after: Any, is_same: bool
) -> None:
    """To its content: messages, model, fields, headers and query; not to how it was asked, or how it was written."""
    client.map(["a"], checkpoint=path, **before)
    client.map(**{"prompts": ["a"], "checkpoint": path, **after})
    assert len(echo.calls.requests) == (1 if is_same else 2)


def test_a_list_that_grows_while_it_is_read(client: FailoverClient, echo: FakeUpstream, path: str) -> None:
    """A conversation that a generator yields again and again is asked, and kept, as it was each time."""

    def prompts() -> Iterator[Any]:
        conversation = []
        for number in range(8):
            conversation.append({"role": "user", "content": str(number)})
            yield conversation

    for _ in range(2):
        assert texts(client.map(prompts(), checkpoint=path, concurrency=2)) == list("01234567")
    lengths = sorted(len(seen.json()["messages"]) for seen in echo.calls.requests)
    assert lengths == list(range(1, 9))


def test_what_is_read_back_is_the_whole_reply(client: FailoverClient, echo: FakeUpstream, path: str) -> None:
    """Text, usage, endpoint, latency, cost, attempts, raw: all are as they were, and no price is a price unknown."""
    message = {"role": "assistant", "content": "\ud800 中文 \x00", "tool_calls": [{"id": "1"}]}
    echo.calls.script(Ok(message=message), Ok(usage={"total_tokens": 10**30, "cost": 0.1 + 0.2}))
    first = client.map(["a", "b"], checkpoint=path, concurrency=1)
    second = client.map(["a", "b"], checkpoint=path, concurrency=1)
    for old, new in zip(first, second):
        assert isinstance(new, ChatReply)
        travelled = pickle.loads(pickle.dumps(new))  # noqa: S301 - our own
        assert new.__getstate__() == old.__getstate__() == travelled.__getstate__()
        assert list(new.raw) == list(old.raw)
        for name in ("raw", "text", "usage", "endpoint", "latency_ms", "cost_usd", "attempts", "tool_calls"):
            assert getattr(new, name) == getattr(old, name)
        assert type(new.attempts[0]) is type(old.attempts[0])
    assert second[0].cost_usd is not None
    assert len(echo.calls.requests) == 2


def test_errors_are_tried_again(client: FailoverClient, echo: FakeUpstream, path: str) -> None:
    """Only answers are kept."""
    echo.calls.script(Ok(), Status(400), Ok())
    assert isinstance(client.map(["a", "b", "c"], checkpoint=path, concurrency=1)[1], RequestRejected)
    assert texts(client.map(["a", "b", "c"], checkpoint=path)) == ["a", "b", "c"]
    assert asked(echo) == ["a", "b", "c", "b"]


def test_the_file_is_its_owners_and_holds_no_secret(client: FailoverClient, path: str) -> None:
    """Mode 0600; replies, but neither keys nor prompts; one file when the map is over."""
    client.map(["a question that is asked"], checkpoint=path, wire_stream=False)
    assert list(Path(path).parent.iterdir()) == [Path(path)]
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert KEY.encode() not in Path(path).read_bytes()
    with sqlite3.connect(path) as database:
        ((key, reply),) = database.execute("SELECT * FROM answers").fetchall()
    database.close()
    assert len(key) == 40
    assert set(json.loads(reply)) == {"attempts", "cost_usd", "endpoint", "latency_ms", "raw"}


def test_an_answer_that_cannot_be_read_is_asked_for_again(
    client: FailoverClient, echo: FakeUpstream, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, and is good again from then on."""
    client.map(["a", "b"], checkpoint=path)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("UPDATE answers SET reply = '{\"raw\": 3}' WHERE rowid = 1")
    database.execute("UPDATE answers SET reply = x'00' WHERE rowid = 2")
    database.close()
    assert texts(client.map(["a", "b"], checkpoint=path)) == ["a", "b"]
    assert caplog.text.count("cannot be read") == 2
    assert texts(client.map(["a", "b"], checkpoint=path)) == ["a", "b"]
    assert len(echo.calls.requests) == 4


def test_two_maps_never_share_a_checkpoint(client: FailoverClient, echo: FakeUpstream, path: str) -> None:
    """The second one is refused while the first runs, asks nothing, and does not disturb it."""
    refused: List[Any] = []

    def prompts() -> Iterator[str]:
        yield "a"
        assert echo.calls.wait_for(1)
        with pytest.raises(ConfigurationError, match="no other map") as caught:
            client.map(["x"], checkpoint=path)
        refused.append(caught.value)
        yield "b"

    assert texts(client.map(prompts(), checkpoint=path)) == ["a", "b"]
    assert (refused[0].field, refused[0].value) == ("checkpoint", path)
    assert texts(client.map(["a", "b"], checkpoint=path)) == ["a", "b"]
    assert asked(echo) == ["a", "b"]


def test_a_full_disk_loses_no_answer(client: FailoverClient, echo: FakeUpstream, path: str) -> None:
    """It ends the map, whose error has what was answered; what was kept before is there when it is started again."""
    resource = pytest.importorskip("resource")
    prompts = [f"{number} " + "x" * 2000 for number in range(200)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(ConfigurationError, match="can be read and written") as caught:
            client.map(prompts, checkpoint=path, concurrency=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.field, caught.value.value) == ("checkpoint", path)
    results = caught.value.results
    answered = [reply for reply in results if reply is not None]
    assert sorted(texts(answered)) == sorted(asked(echo))
    assert [reply.text for reply in results if reply] == [
        prompt for prompt, reply in zip(prompts, results) if reply
    ]
    assert 10 < len(answered) < 200
    echo.clear_log()
    assert texts(client.map(prompts, checkpoint=path)) == prompts
    again = len(answered) + len(echo.calls.requests) - 200
    assert 1 <= again <= 4, "only what the full disk did not take is asked again"


# Interrupted, killed, forked


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_returns_promptly(client: FailoverClient, echo: FakeUpstream, path: str, kept: bool) -> None:
    """Calls under way are not waited for, what had been answered is kept, and the next map can begin at once."""
    echo.calls.script(Ok(), Hang(), Hang())
    main = threading.main_thread()

    def interrupt() -> None:
        assert echo.calls.wait_for(3)
        signal.pthread_kill(main.ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        client.map(map(str, itertools.count()), concurrency=2, checkpoint=path if kept else None)
    assert time.monotonic() - began < 3.0
    interrupter.join()
    if kept:
        assert len(texts(client.map(["0", "1", "2"], checkpoint=path))) == 3
        assert len(echo.calls.requests) == 5
    assert len(threads()) == 2
    echo.kill()
    deadline = time.monotonic() + 5.0
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() == []


#: Maps prompts, and prints the texts; the arguments are the upstream's URL, the checkpoint, and how many prompts.
PROGRAM = """
import json, sys
from syncfailover import Endpoint, FailoverClient
url, path, count, concurrency = sys.argv[1:]
with FailoverClient([Endpoint("echo", url, "key")], model="gpt-4.1", probe_when="never") as client:
    prompts = (f"prompt {number}" for number in range(int(count)))
    replies = client.map(prompts, concurrency=int(concurrency), checkpoint=path)
    print(json.dumps([getattr(reply, "text", repr(reply)) for reply in replies]))
"""


def program(upstream: FakeUpstream, path: str, count: int, concurrency: int) -> List[str]:
    """Return the command that maps so many prompts."""
    return [sys.executable, "-W", "error", "-c", PROGRAM, upstream.url, path, str(count), str(concurrency)]


def killed_and_resumed(
    upstream: FakeUpstream, path: str, count: int, concurrency: int, kills: List[int]
) -> "Counter[str]":
    """Kill the program when so many calls were seen, finish it, and return how often each prompt was asked."""
    for calls in kills:
        with subprocess.Popen(program(upstream, path, count, concurrency), stdout=subprocess.PIPE) as process:
            assert upstream.calls.wait_for(calls, 60.0)
            process.kill()
            assert process.stdout is not None
            assert process.stdout.read() == b"", "it was done before it was killed"
    done = subprocess.run(
        program(upstream, path, count, concurrency), capture_output=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == [f"prompt {number}" for number in range(count)]
    times = Counter(asked(upstream))
    assert len(times) == count
    return times


def test_a_map_that_was_killed_goes_on(echo: FakeUpstream, path: str) -> None:
    """It loses nothing, and repeats at most the calls that were under way."""
    echo.delay_s = 0.002
    times = killed_and_resumed(echo, path, 200, 4, kills=[100])
    assert sum(times.values()) <= 200 + 4


@pytest.mark.slow
def test_ten_thousand_prompts_killed_three_times(path: str) -> None:
    """10,000 answers, none twice, and at most `concurrency` calls for each kill are made twice."""
    with FakeUpstream("echo", text="{prompt}") as echo:
        times = killed_and_resumed(echo, path, 10_000, 32, kills=[2_500, 5_000, 7_500])
        print(f"{sum(times.values()) - 10_000} of 10,000 calls made twice")  # noqa: T201 - worth publishing
    assert sum(times.values()) <= 10_000 + 3 * 32


#: Forks in the middle of a map, from another thread and from the prompts, and lets the children end as programs do.
FORKS = """
import os, sys, threading
from syncfailover import Endpoint, FailoverClient
client = FailoverClient([Endpoint("echo", sys.argv[1], "key")], model="gpt-4.1", probe_when="never")

def fork():
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    return os.waitpid(pid, 0)[1] >> 8

def prompts():
    for number in range(100):
        if number == 40:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        if number == 60:
            assert fork() == 7
        if number == 80 and os.fork() == 0:
            raise OSError("child")
        yield f"prompt {number}"

parent = os.getpid()
try:
    replies = client.map(prompts(), concurrency=4, checkpoint=sys.argv[2])
except OSError:
    sys.exit(0 if os.getpid() != parent else 3)
_, status = os.wait()
assert status == 0
assert [reply.text for reply in replies] == [f"prompt {number}" for number in range(100)]
"""


def test_forked_children_do_no_harm(client: FailoverClient, echo: FakeUpstream, path: str) -> None:
    """They end in whatever way, and the parent's map goes on; its checkpoint is whole."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, echo.url, path],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    echo.clear_log()
    prompts = [f"prompt {number}" for number in range(100)]
    assert texts(client.map(prompts, checkpoint=path)) == prompts
    assert echo.calls.requests == []


def test_without_threads_prompts_are_asked_one_after_another(
    client: FailoverClient, echo: FakeUpstream, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under uWSGI without threads, for instance; a checkpoint needs one, and says why it has none."""
    monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(has_threads=0, worker_id=lambda: 1))
    assert texts(client.map(["a", "b", "c"])) == ["a", "b", "c"]
    assert echo.max_in_flight == 1
    with pytest.raises(ConfigurationError, match="--enable-threads") as caught:
        client.map(["d"], checkpoint=path)
    assert caught.value.field == "checkpoint"
    assert asked(echo) == ["a", "b", "c"]


# Progress, and what is loaded


def test_progress_shows_a_bar(client: FailoverClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Where tqdm is installed; and no thread of it stays."""
    client.map(["a", "b", "c"], progress=True)
    assert "3/3" in capsys.readouterr().err
    client.map(iter("ab"), progress=True)
    assert "2prompt" in capsys.readouterr().err
    assert [thread for thread in threading.enumerate() if "tqdm" in type(thread).__module__] == []
    client.map(["a"])
    assert capsys.readouterr().err == ""


def test_progress_without_tqdm_is_one_warning(
    client: FailoverClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how to get it, and the map goes on."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.warns(UserWarning, match=r"pip install 'syncfailover\[progress\]'"):
        assert texts(client.map(["a"], progress=True)) == ["a"]
    assert capsys.readouterr().err == ""


def test_a_python_without_sqlite_maps_without_a_checkpoint(
    client: FailoverClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one it says what is missing."""
    for name in list(sys.modules):
        if name.startswith(("syncfailover.state.checkpoint", "syncfailover.runtime.checkpoint_writer")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    with pytest.raises(ConfigurationError, match="no sqlite3"):
        client.map(["a"], checkpoint=path)
    assert texts(client.map(["a"])) == ["a"]


def test_sqlite_is_loaded_by_the_first_checkpoint(echo: FakeUpstream, path: str) -> None:
    """Not by the import, a client, or a map without one; tqdm is loaded for a bar alone."""
    code = (
        "import sys; from syncfailover import Endpoint, FailoverClient\n"
        "loaded = lambda: [name in sys.modules for name in ('sqlite3', 'tqdm', 'syncfailover.api.mapping')]\n"
        f"client = FailoverClient([Endpoint('a', {echo.url!r})], model='m', probe_when='never')\n"
        "client.chat('a'); print(loaded()); client.map(['a']); print(loaded())\n"
        f"client.map(['a'], checkpoint={path!r}); print(loaded())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == [
        "[False, False, False]",
        "[False, False, True]",
        "[True, False, True]",
    ]
