"""The `chat` command, run as users run it, against upstreams of this machine."""

import json
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest
from command_line import KEY, clean_environment, command, config_of, interrupt, into_closed_pipe, run
from terminal import OnTerminal

from syncfailover.testing import FakeUpstream, Hang, Ok, Status

MODEL = 'model = "gpt-4.1"'


@pytest.fixture
def config(upstreams: List[FakeUpstream], tmp_path: Path) -> str:
    """A configuration of three upstreams; the last one is asked first."""
    return config_of(tmp_path, upstreams, MODEL, "timeout = 5.0")


def chat(*words: str, piped: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `chat` with its output in a pipe."""
    return run("chat", *words, piped=piped, TEST_KEY=KEY, **environment)


def payload(upstream: FakeUpstream) -> Dict[str, Any]:
    """Return what the upstream was asked, the one time that it was."""
    (seen,) = upstream.requests
    return json.loads(seen.body)


def test_the_answer_alone_goes_to_stdout(config: str, upstreams: Any) -> None:
    """A question on the command line gives the answer with a final newline, nothing else, and exit code 0."""
    first = upstreams[0]
    done = chat("Explain failover.", "--config", config)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Hello from {first.name}.\n", "")
    assert payload(first) == {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "Explain failover."}],
    }
    assert first.requests[0].header("authorization") == f"Bearer {KEY}"


def test_nobody_is_probed_for_one_question(upstreams: Any, tmp_path: Path) -> None:
    """One call is one request: no health check goes out, whatever the configuration says of them."""
    config = config_of(tmp_path, upstreams, MODEL, "probe_interval = 0.02", "probe_when = 'always'")
    upstreams[0].script(Ok(delay_s=0.3))
    assert chat("Hi", "--config", config).returncode == 0
    assert [request.is_probe for upstream in upstreams for request in upstream.requests] == [False]


def test_an_answer_that_ends_its_line_gets_no_second_newline(config: str, upstreams: Any) -> None:
    """A final newline is added only where there is none."""
    upstreams[0].script(Ok(text="Two\nlines\n"))
    assert chat("Hi", "--config", config).stdout == "Two\nlines\n"


@pytest.mark.parametrize(
    ("words", "piped", "asked"),
    [
        ([], "From stdin.\n", "From stdin."),
        (["-"], "From stdin,\n\n  indented.\n", "From stdin,\n\n  indented."),
        (["Review this:"], "+ a line\n", "Review this:\n\n+ a line"),
        (["Just this."], "", "Just this."),
        (["Just this."], "\n", "Just this."),
    ],
)
def test_the_question_is_what_was_written_and_what_was_piped_in(
    words: Any, piped: str, asked: str, config: str, upstreams: Any
) -> None:
    """Without a TEXT, or for -, stdin is the question; beside a TEXT it follows it, after a blank line."""
    assert chat(*words, "--config", config, piped=piped).returncode == 0
    assert payload(upstreams[0])["messages"] == [{"role": "user", "content": asked}]


@pytest.mark.parametrize("words", [[], ["-"], [""], ["  "]])
def test_without_a_question_nobody_is_asked(words: Any, config: str, upstreams: Any) -> None:
    """Neither a TEXT nor anything on stdin is wrong usage."""
    done = chat(*words, "--config", config, piped="\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no question" in done.stderr
    assert not any(upstream.requests for upstream in upstreams)


def test_on_a_terminal_it_does_not_wait_for_somebody_to_type(config: str) -> None:
    """Without a TEXT and with a terminal as stdin, it says what is missing instead of seeming to hang."""
    terminal = OnTerminal("chat", "--config", config, TEST_KEY=KEY)
    terminal.read_until("there is no question")
    assert terminal.end()[0] == 2


def test_a_closed_stdin_is_an_empty_one(config: str) -> None:
    """A service without a stdin asks what is on the command line."""
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *command("chat", "Hi", "--config", config)["args"]]
    environment = clean_environment(TEST_KEY=KEY)
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_that_nobody_writes_to_does_not_hold_it_up(config: str) -> None:
    """Beside a TEXT, a stdin that stays open and empty is left alone, which stderr says."""
    how = command("chat", "Hi", "--config", config, TEST_KEY=KEY)
    with subprocess.Popen(**how, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        out, err = process.stdout.read(), process.stderr.read()
    assert (process.returncode, out[:10]) == (0, "Hello from")
    assert "stdin is open, but nothing came for 1 s" in err


def test_what_is_no_text_is_refused(config: str) -> None:
    """Bytes that are no text in stdin's encoding are wrong usage, told in one line."""
    how = command("chat", "--config", config, TEST_KEY=KEY, PYTHONIOENCODING="utf-8")
    how["text"] = False
    done = subprocess.run(**how, stdout=subprocess.PIPE, input=b"\xff\xfe", timeout=20, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"syncfailover: error: stdin: ")


def test_model_and_system_are_sent(config: str, upstreams: Any) -> None:
    """--model wins over the configuration, and --system goes before the question."""
    assert chat("Hi", "--config", config, "--model", "gpt-4o", "--system", "Be brief.").returncode == 0
    assert payload(upstreams[0]) == {
        "model": "gpt-4o",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    }


def test_without_a_model_it_says_where_to_name_one(upstreams: Any, tmp_path: Path) -> None:
    """A configuration without a model needs --model; with it, all is well."""
    config = config_of(tmp_path, upstreams)
    done = chat("Hi", "--config", config)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--model" in done.stderr
    assert chat("Hi", "--config", config, "--model", "gpt-4.1").returncode == 0


def test_json_is_the_reply_as_it_came(config: str, upstreams: Any) -> None:
    """--json prints the provider's whole JSON, readable whatever the encoding of stdout."""
    upstreams[0].script(Ok(text="\u00fcber"))
    told = json.loads(chat("Hi", "--config", config, "--json", PYTHONIOENCODING="ascii").stdout)
    assert told["choices"][0]["message"]["content"] == "\u00fcber"
    assert {"id", "model", "usage"} <= set(told)


def test_verbose_tells_the_story_on_stderr(config: str, upstreams: Any) -> None:
    """-v leaves stdout to the answer and tells each attempt, who answered, the usage and the cost."""
    first, second, _ = upstreams
    first.script(Status(503))
    done = chat("Hi", "--config", config, "-v")
    assert (done.returncode, done.stdout) == (0, f"Hello from {second.name}.\n")
    heading, failed, answered, total = done.stderr.splitlines()
    assert heading.split() == ["endpoint", "outcome", "wait", "latency", "cost", "billed"]
    assert failed.split()[:4] == [first.name, "overloaded:", "HTTP", "503:"]
    assert failed.split()[-2:] == ["-", "no"]
    assert answered.split()[:4] == [second.name, "answered", "0.0", "s"]
    assert answered.split()[-1] == "yes"
    assert total.startswith(f"{second.name} answered in ")
    assert "ms, 2 attempts: gpt-4.1, " in total
    assert total.split()[-1].startswith("$0.0")
    assert KEY not in done.stderr


def test_what_is_not_known_is_not_made_up(config: str, upstreams: Any) -> None:
    """A reply without usage has an unknown cost, not none."""
    upstreams[0].script(Ok(usage={}))
    told = chat("Hi", "--config", config, "-v").stderr.splitlines()
    assert told[1].split()[-2:] == ["-", "yes"]
    assert told[-1].endswith("gpt-4.1, usage unknown, cost unknown")


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_when_nobody_answers_stderr_says_what_was_tried(verbose: Any, config: str, upstreams: Any) -> None:
    """With all endpoints dead, stdout stays empty, the error names every one of them, and the exit code is 1."""
    for upstream in upstreams:
        upstream.kill()
    done = chat("Hi", "--config", config, *verbose)
    assert (done.returncode, done.stdout) == (1, "")
    *story, error = done.stderr.splitlines()
    assert error.startswith("syncfailover: error: ")
    assert all(f"{upstream.name}: connect refused" in error for upstream in upstreams)
    told = {line.split()[0] for line in story}
    assert told == ({"endpoint", *(upstream.name for upstream in upstreams)} if verbose else set())
    assert KEY not in done.stderr


@pytest.mark.quiet
@pytest.mark.parametrize(
    ("option", "words"), [("timeout = 0.4", []), ("timeout = 30.0", ["--timeout", "0.4"])]
)
def test_the_time_is_the_configurations_or_the_options(
    option: str, words: Any, upstreams: Any, tmp_path: Path
) -> None:
    """Silent endpoints cost the timeout of the configuration, or that of --timeout where it is given."""
    for upstream in upstreams:
        upstream.calls.always(Hang())
    done = chat("Hi", "--config", config_of(tmp_path, upstreams, MODEL, option), *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "0.4 s" in done.stderr


def test_a_mistake_in_the_configuration_is_told(upstreams: Any, tmp_path: Path) -> None:
    """A misspelt key names the right one; an option that cannot work names field and value; exit code 2."""
    misspelt = chat("Hi", "-v", "--config", config_of(tmp_path, upstreams, "balanser = 'weighted'"))
    assert (misspelt.returncode, misspelt.stdout) == (2, "")
    assert "balancer" in misspelt.stderr
    assert len(misspelt.stderr.splitlines()) == 1
    wrong = chat("Hi", "--config", config_of(tmp_path, upstreams, MODEL, "balancer = 'heaviest'"))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "'heaviest'" in wrong.stderr


def test_the_demo_answers_without_anything() -> None:
    """--demo needs no key, no configuration and no question; -v shows that another endpoint failed first."""
    done = run("chat", "--demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("I am beta, an endpoint embedded in this command")
    story = run("chat", "Hi", "--demo", "-v").stderr.splitlines()
    assert [line.split()[0] for line in story] == ["endpoint", "alpha", "beta", "beta"]
    assert "HTTP 503" in story[1]


def test_ctrl_c_ends_a_question(config: str, upstreams: Any) -> None:
    """Ctrl-C while nobody answers ends it with one word and exit code 130."""
    upstreams[0].calls.always(Hang())
    how = command("chat", "Hi", "--config", config, TEST_KEY=KEY)
    with subprocess.Popen(**how, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert upstreams[0].wait_for(1)
        assert interrupt(process) == (130, "", "interrupted\n")


def test_nobody_reads_the_answer() -> None:
    """A closed pipe ends it without a word."""
    assert into_closed_pipe("chat", "--demo") == (141, "")
