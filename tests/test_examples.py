"""Every example is really run: as a program of its own, with keys against two upstreams here, and without any."""

import json
import os
import re
import runpy
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
import requests

from syncfailover import providers
from syncfailover.testing import FakeUpstream, Status, Stream, StreamCut

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
#: Points the presets at the addresses in the environment, then runs the example as `python example.py` would.
WITH_KEYS = """
import json, os, runpy, sys
from syncfailover import providers
for name, url in json.loads(os.environ["TEST_BASE_URLS"]).items():
    providers.PRESETS[name] = providers.PRESETS[name]._replace(base_url=url)
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
WEB = [
    pytest.param("flask_app.py", [], id="flask"),
    pytest.param("django_app.py", ["runserver", "--noreload", "{port}"], id="django"),
]


@pytest.fixture
def relays(fake_upstreams: Callable[..., List[FakeUpstream]]) -> Tuple[FakeUpstream, FakeUpstream]:
    """Stand in for the relay of the examples and for their emergency exit."""
    relay, emergency = fake_upstreams(2)
    return relay, emergency


@pytest.fixture
def with_keys(relays: Tuple[FakeUpstream, FakeUpstream]) -> Dict[str, str]:
    """Make the environment in which an example finds keys, and the two upstreams where the providers are."""
    urls = {"holysheep": relays[0].url, "openrouter": relays[1].url}
    assert set(urls) <= set(providers.PRESETS)
    return environment(
        TEST_BASE_URLS=json.dumps(urls),
        HOLYSHEEP_API_KEYS="key-1,key-2",
        OPENROUTER_API_KEY="key-3",
    )


def environment(**more: str) -> Dict[str, str]:
    """Return this process's environment without keys and proxies, and with more."""
    dropped = ("holysheep_api_keys", "openrouter_api_key", "syncfailover_demo", "http_proxy", "all_proxy")
    kept = {name: value for name, value in os.environ.items() if name.lower() not in dropped}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def command(example: str, arguments: List[str], env: Dict[str, str]) -> List[str]:
    """Return the command that runs an example, with the presets redirected where there are keys."""
    wrapper = ["-c", WITH_KEYS] if "TEST_BASE_URLS" in env else []
    return [sys.executable, *wrapper, str(EXAMPLES / example), *arguments]


@contextmanager
def served(example: str, arguments: List[str], env: Dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Run a web example; yield a function that asks its view, with options of requests, and returns the response."""
    port = free_port()
    arguments = [argument.format(port=port) for argument in arguments]
    program = subprocess.Popen(
        command(example, arguments, env),
        env={**env, "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with program:
        try:
            wait_for_port(port, program)
            with requests.Session() as browser:
                browser.trust_env = False
                url = f"http://127.0.0.1:{port}/ask?q=What+now"
                yield lambda **options: browser.get(url, timeout=30, **options)
        finally:
            program.kill()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, program: "subprocess.Popen[bytes]") -> None:
    """Wait until the program listens; fail with its output if it ends instead."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if program.poll() is not None:
            assert program.stdout is not None
            pytest.fail(program.stdout.read().decode())
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("the example does not listen")


@pytest.mark.parametrize(("example", "arguments"), WEB)
def test_a_web_view_goes_on_answering_while_the_relay_dies(
    example: str,
    arguments: List[str],
    relays: Tuple[FakeUpstream, FakeUpstream],
    with_keys: Dict[str, str],
) -> None:
    """A view answers by the relay's keys, by the emergency exit once the relay is dead, and with 503 without both."""
    relay, emergency = relays
    with served(example, arguments, with_keys) as ask:
        assert ask().json() == {"answer": "Hello from upstream-1.", "endpoint": "holysheep-1"}
        assert relay.calls.requests[0].header("authorization") == "Bearer key-1"
        assert relay.calls.requests[0].json()["messages"][0]["content"] == "What now"
        relay.kill()
        answers = [ask() for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert {answer.json()["endpoint"] for answer in answers} == {"openrouter"}
        emergency.always(Status(400))
        broken = ask()
        assert (broken.status_code, list(broken.json())) == (503, ["error"])


@pytest.mark.parametrize(("example", "arguments"), WEB)
def test_a_web_view_runs_without_any_key(example: str, arguments: List[str]) -> None:
    """A view runs anywhere: without keys it answers from endpoints of its own."""
    with served(example, arguments, environment()) as ask:
        answers = [ask().json() for _ in range(2)]
        assert {answer["endpoint"] for answer in answers} <= {"relay-1", "relay-2"}


@pytest.fixture
def ask_for_a_stream(
    relays: Tuple[FakeUpstream, FakeUpstream], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Any]]:
    """Load the streaming view into this process, with keys for the two upstreams; yield what asks it."""
    for name, upstream in zip(("holysheep", "openrouter"), relays):
        preset = providers.PRESETS[name]._replace(base_url=upstream.url)
        monkeypatch.setitem(providers.PRESETS, name, preset)
    monkeypatch.setenv("HOLYSHEEP_API_KEYS", "key-1,key-2")
    monkeypatch.setenv("OPENROUTER_API_KEY", "key-3")
    monkeypatch.delenv("SYNCFAILOVER_DEMO", raising=False)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    sys.modules.pop("llm", None)
    try:
        example = runpy.run_path(str(EXAMPLES / "flask_stream.py"))
        with example["client"]:
            yield lambda: example["app"].test_client().get("/ask?q=What+now")
    finally:
        sys.modules.pop("llm", None)


def events_of(answer: Any) -> List[Tuple[str, Any]]:
    """Return names and data of server-sent events."""
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", answer.text)
    return [(name, json.loads(data)) for name, data in found]


def page_of(events: List[Tuple[str, Any]]) -> str:
    """Return what a page shows that begins anew where it is told to."""
    page = ""
    for name, data in events:
        if name == "message":
            page = "" if data.get("restart") else page + data["text"]
    return page


def test_a_view_streams_an_answer(ask_for_a_stream: Callable[[], Any]) -> None:
    """It comes in pieces, as events that a browser understands, and the last one says that it is whole."""
    answer = ask_for_a_stream()
    events = events_of(answer)
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    assert len(events) > 3
    assert page_of(events) == "Hello from upstream-1."
    assert events[-1] == ("end", {})


def test_a_streaming_view_begins_anew(
    ask_for_a_stream: Callable[[], Any], relays: Tuple[FakeUpstream, FakeUpstream]
) -> None:
    """Where an endpoint dies in the middle, the page is told to forget, and gets a whole answer."""
    relays[0].calls.script(StreamCut(after=3))
    events = events_of(ask_for_a_stream())
    assert ("message", {"restart": True}) in events[1:]
    assert page_of(events) == "Hello from upstream-1."
    assert events[-1] == ("end", {})


def test_an_outage_before_a_stream_is_a_503(
    ask_for_a_stream: Callable[[], Any], relays: Tuple[FakeUpstream, FakeUpstream]
) -> None:
    """The view opens the stream, so that its error handler sees an error."""
    for upstream in relays:
        upstream.calls.always(Status(400))
    answer = ask_for_a_stream()
    assert (answer.status_code, list(answer.json)) == (503, ["error"])


@pytest.mark.parametrize("later", [StreamCut(after=2), Status(503), Status(400), Status(401)], ids=repr)
def test_an_outage_within_a_stream_is_an_event(
    ask_for_a_stream: Callable[[], Any], relays: Tuple[FakeUpstream, FakeUpstream], later: Any
) -> None:
    """The status has been sent by then, so that the page is told by the last event, whatever else went wrong."""
    relays[0].calls.script(StreamCut(after=2))
    for upstream in relays:
        upstream.calls.always(later)
    answer = ask_for_a_stream()
    assert answer.status_code == 200
    name, data = events_of(answer)[-1]
    assert (name, list(data)) == ("error", ["error"])


def test_a_browser_that_hangs_up_ends_the_upstreams_work(
    relays: Tuple[FakeUpstream, FakeUpstream], with_keys: Dict[str, str]
) -> None:
    """In the middle of an answer, over real sockets: it is abandoned at once, and nobody else is asked for it."""
    relay, emergency = relays
    relay.calls.always(Stream(tokens=3000, interval_s=0.01))
    with served("flask_stream.py", [], with_keys) as ask:
        with ask(stream=True) as answer:
            assert next(answer.iter_lines()) == b"event: message"
            assert relay.in_flight == 1
        assert relay.wait_for(lambda: relay.in_flight == 0, timeout=2.0)
        assert len(relay.calls.requests + emergency.calls.requests) == 1


def test_a_streaming_view_runs_without_any_key() -> None:
    """It runs anywhere, too."""
    with served("flask_stream.py", [], environment()) as ask:
        assert page_of(events_of(ask())).startswith("Hello from relay-")


def run(example: str, env: Dict[str, str], stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Run an example to its end."""
    return subprocess.run(
        command(example, [], env),
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_cron_job_survives_a_dead_relay(
    relays: Tuple[FakeUpstream, FakeUpstream], with_keys: Dict[str, str]
) -> None:
    """The cron job sends what it reads, and prints the emergency exit's answer when the relay is dead."""
    relay, emergency = relays
    relay.kill()
    done = run("cron_job.py", with_keys, "disk full")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello from upstream-2.\n", "")
    assert "disk full" in emergency.calls.requests[0].json()["messages"][0]["content"]


def test_the_cron_job_says_what_it_tried(
    relays: Tuple[FakeUpstream, FakeUpstream], with_keys: Dict[str, str]
) -> None:
    """The cron job ends with 1 and one line that names the attempts, without a key, when it cannot be done."""
    relay, _emergency = relays
    relay.always(Status(400))
    done = run("cron_job.py", with_keys, "disk full")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no summary: holysheep-1: HTTP 400")
    assert "key-1" not in done.stderr


@pytest.mark.parametrize("demo", ["", "1"])
def test_the_cron_job_runs_without_a_network(demo: str) -> None:
    """The cron job runs anywhere: without keys, and with keys if SYNCFAILOVER_DEMO=1, it asks nobody outside."""
    env = environment(**({"SYNCFAILOVER_DEMO": "1", "HOLYSHEEP_API_KEYS": "key"} if demo else {}))
    done = run("cron_job.py", env, "disk full")
    warned = "" if demo else "no keys in HOLYSHEEP_API_KEYS: two fake endpoints answer\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello from relay-1.\n", warned)


def test_the_batch_job_asks_again_only_what_failed(
    relays: Tuple[FakeUpstream, FakeUpstream], with_keys: Dict[str, str], tmp_path: Path
) -> None:
    """It prints an answer or an error for each line and exits with 1; started again, it asks for the one that failed."""
    relay, _emergency = relays
    relay.calls.script(Status(400))
    env = {**with_keys, "CHECKPOINT": str(tmp_path / "run.sqlite")}
    prompts = ["one", "two", "three"]
    first, second = (run("batch_job.py", env, "\n".join(prompts)) for _ in range(2))
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    assert [line["prompt"] for line in lines] == prompts
    assert sorted("error" in line for line in lines) == [False, False, True]
    assert (first.returncode, first.stderr) == (1, "1 of 3 failed; start it again to ask for these\n")
    assert (second.returncode, second.stderr) == (0, "")
    assert [json.loads(line)["answer"] for line in second.stdout.splitlines()] == [
        "Hello from upstream-1."
    ] * 3
    assert len(relay.calls.requests) == 4


NOTEBOOK = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))


def test_the_notebook_has_the_format_that_jupyter_reads() -> None:
    """The notebook is nbformat 4.5 without outputs: each cell has an id, a type and its source."""
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        code = {"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {}
        assert cell == {
            "cell_type": cell["cell_type"],
            "id": cell["id"],
            "metadata": {},
            "source": cell["source"],
            **code,
        }


#: Runs code cells as a kernel does: in order, in one namespace, showing the value of a last expression.
KERNEL = """
import ast, json, sys
names = {"__name__": "__main__"}
for source in json.load(sys.stdin):
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if last is not None:
        print(repr(eval(compile(ast.Expression(last.value), "cell", "eval"), names)))
print(names["reply"]._repr_html_())
"""


def test_the_notebook_runs_from_top_to_bottom() -> None:
    """The notebook's cells run in order; an endpoint is killed in one, and the next shows that no call failed."""
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    done = subprocess.run(
        [sys.executable, "-c", KERNEL],
        cwd=str(EXAMPLES),
        env=environment(SYNCFAILOVER_DEMO="1"),
        input=json.dumps(cells),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    status, reply, attempts, metrics, html = done.stdout.splitlines()
    assert "relay-1" in status
    assert "relay-2" in status
    assert reply.startswith("ChatReply(")
    assert "relay-2" in attempts
    assert "'total_requests': 5, 'successful_requests': 5" in metrics
    assert "Hello from relay-" in html
