"""The command line, run as users run it: in a process of its own, or through `main` where nothing else is shown."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, Tuple

import pytest
from command_line import KEY, PRIVATE, clean_environment, command, config_of, into_closed_pipe, run

from syncfailover import __version__, providers, settings
from syncfailover.cli import main
from syncfailover.starter import STARTER_TOML
from syncfailover.testing import FakeUpstream, Hang


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own keys and proxies out."""
    for name in (*PRIVATE, *(name for name in os.environ if name.startswith("SYNCFAILOVER_"))):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def upstreams() -> Iterator[Tuple[FakeUpstream, FakeUpstream, FakeUpstream]]:
    """Run three upstreams that ask for a key."""
    with FakeUpstream("a", api_key=KEY) as a, FakeUpstream("b", api_key=KEY) as b, FakeUpstream("c") as c:
        yield a, b, c


def test_without_a_command_it_shows_help(capsys: pytest.CaptureFixture) -> None:
    """`syncfailover` alone names the commands and is no error."""
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("chat", "watch", "check", "init", "demo", "upstream"))


def test_version() -> None:
    """`python -m syncfailover --version` gives the package's version."""
    assert run("--version").stdout == f"syncfailover {__version__}\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nonsense"], "nonsense"),
        (["check"], "HOLYSHEEP_API_KEYS"),
        (["check", "ftp://host"], "base_url: 'ftp://host'"),
        (["check", "http://host?key=secret"], "no query"),
        (["check", "http://[::1"], "base_url: "),
        (["check", "http://me:secret@host"], "no credentials"),
        (["check", "=http://host"], "name: ''"),
        (["check", "a=http://host", "a=http://other"], "each name only once"),
        (["check", "http://host", "--timeout", "0"], "'0' is not a number of at least 0.01"),
        (["check", "http://host", "--timeout", "nan"], "'nan' is not a number"),
        (["check", "http://host", "--path", "a b"], "health_check_path: 'a b'"),
        (["check", "http://host", "--provider", "acme"], "acme"),
        (["check", "http://host", "--key-env", "NOT_SET"], "NOT_SET is not set"),
        (["check", "--key-env", "NOT_SET"], "--key-env: whose key?"),
        (["check", "--provider", "openai"], "set OPENAI_API_KEY"),
        (["check", "--provider", "openai", "--key-env", "NOT_SET"], "NOT_SET is not set"),
        (["check", "--config", "no-such-file.toml"], "no-such-file.toml"),
        (["check", "http://host", "--config", "x.toml"], "--config: names the endpoints"),
        (["check", "--provider", "openai", "--config", "x.toml"], "--config: names the endpoints"),
        (["chat", "hello", "--config", "no-such-file.toml"], "no-such-file.toml"),
        (["chat", "hello", "--config", "x.toml", "--demo"], "not allowed with"),
        (["chat", "hello", "--timeout", "0"], "'0' is not a number of at least 0.01"),
        (["watch", "--config", "no-such-file.toml"], "no-such-file.toml"),
        (["watch", "--interval", "0"], "'0' is not a number of at least 0.1"),
        (["watch", "--seconds", "inf"], "'inf' is not a number"),
        (["init", "--output", "no/such/folder/x.toml"], "No such file or directory"),
        (["upstream", "--fault", "explode"], "'explode' is not one of"),
        (["upstream", "--always", "status:999"], "999"),
        (["upstream", "--port", "65536"], "'65536' is not a whole number from 0 to 65535"),
        (
            ["upstream", "--port", "0", "--host", "no.such.host.invalid"],
            "cannot listen on no.such.host.invalid",
        ),
        (["demo", "--seconds", "1"], "'1' is not a number of at least 2"),
        (["demo", "--threads", "0"], "'0' is not a whole number"),
        (["demo", "--kill", "nobody"], "nobody"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(
    words: Any, complaint: str, capsys: pytest.CaptureFixture
) -> None:
    """A mistake on the command line gives one clear message on stderr, nothing on stdout, and exit code 2."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert complaint in err
    assert "Traceback" not in err
    assert "secret" not in err
    assert not out


def test_check_with_all_up(upstreams: Any) -> None:
    """With all up, the first line says so and the exit code is 0."""
    done = run("check", *(f"{up.name}={up.url}" for up in upstreams))
    assert done.stdout.splitlines()[0] == "OK: 3 of 3 endpoints up"
    assert [line.split()[:3] for line in done.stdout.splitlines()[3:]] == [[n, "up", "200"] for n in "abc"]
    assert (done.returncode, done.stderr) == (0, "")


def test_check_with_some_down(upstreams: Any) -> None:
    """One dead and one silent: the first line names both and why, and the silent one costs one timeout."""
    dead, silent, _well = upstreams
    dead.kill()
    silent.always(Hang())
    began = time.monotonic()
    done = run("check", "--timeout", "0.5", *(f"{up.name}={up.url}" for up in upstreams))
    first = done.stdout.splitlines()[0]
    assert first.startswith("DOWN: 2 of 3 endpoints down (a: connect refused, b: ")
    assert done.returncode == 1
    assert time.monotonic() - began < 5


def test_check_names_endpoints_by_host_where_no_name_is_given(
    upstreams: Any, capsys: pytest.CaptureFixture
) -> None:
    """A URL goes by host and port, and by itself where that is taken."""
    url = upstreams[0].url
    assert main(["check", url, url + "/x", "--path", "/health", "--json"]) == 0
    names = [endpoint["endpoint"] for endpoint in json.loads(capsys.readouterr().out)["endpoints"]]
    assert names == [f"127.0.0.1:{upstreams[0].port}", url + "/x"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_check_takes_a_key_from_the_environment_and_never_shows_it(upstreams: Any, form: Any) -> None:
    """The key of --key-env reaches the endpoint and appears in no output; a refused one counts as down."""
    a = upstreams[0]
    words = ["check", f"a={a.url}", "--path", "models", "--key-env", "MY_KEY", *form]
    good, bad = run(*words, MY_KEY=KEY), run(*words, MY_KEY="sk-wrong-9876543210")
    assert (good.returncode, bad.returncode) == (0, 1)
    assert "DOWN: 1 of 1 endpoints down (a: HTTP 401" in bad.stdout
    assert a.requests[0].header("authorization") == f"Bearer {KEY}"
    shown = good.stdout + good.stderr + bad.stdout + bad.stderr
    assert KEY not in shown
    assert "sk-wrong" not in shown


def test_check_sends_no_key_to_a_url_unless_told_to(upstreams: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's key in the environment does not go to a URL, not even as --provider's."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert main(["check", f"c={upstreams[2].url}", "--provider", "openai"]) == 0
    (seen,) = upstreams[2].requests
    assert (seen.path, seen.header("authorization")) == ("/v1/models", None)


def test_check_without_urls_takes_the_providers_from_the_environment(
    upstreams: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Keys in the environment make the endpoints: one per key, each provider at its own place."""
    for name, up in zip(("holysheep", "openai", "openrouter"), upstreams):
        monkeypatch.setitem(providers.PRESETS, name, providers.PRESETS[name]._replace(base_url=up.url))
    monkeypatch.setenv("HOLYSHEEP_API_KEYS", f"{KEY}, other-{KEY},")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[3:]] == ["holysheep-1", "holysheep-2", "openai-1"]
    assert KEY not in out
    assert main(["check", "--provider", "openai"]) == 0
    assert capsys.readouterr().out.startswith("OK: 1 of 1 ")


def test_check_takes_one_providers_key_from_the_variable_that_is_named(
    upstreams: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """--provider with --key-env probes with that key alone, whatever else is in the environment; --path is obeyed."""
    a = upstreams[0]
    monkeypatch.setitem(providers.PRESETS, "openai", providers.PRESETS["openai"]._replace(base_url=a.url))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("MINE", KEY)
    assert main(["check", "--provider", "openai", "--key-env", "MINE", "--path", "/v1/models"]) == 0
    assert capsys.readouterr().out.startswith("OK: 1 of 1 ")
    assert [(r.path, r.header("authorization")) for r in a.requests] == [("/v1/models", f"Bearer {KEY}")]


def test_check_takes_the_endpoints_of_a_configuration_file(upstreams: Any, tmp_path: Path) -> None:
    """--config names the endpoints, their keys come from the environment, and no output shows one."""
    upstreams[1].kill()
    words = ["check", "--json", "--path", "models", "--config", config_of(tmp_path, upstreams)]
    done = run(*words, TEST_KEY=KEY)
    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout)
    assert [(e["endpoint"], e["up"]) for e in told["endpoints"]] == [("c", True), ("b", False), ("a", True)]
    assert upstreams[0].requests[0].header("authorization") == f"Bearer {KEY}"
    assert KEY not in done.stdout
    unset = run(*words)
    assert (unset.returncode, unset.stdout) == (2, "")
    assert "TEST_KEY" in unset.stderr


def test_check_takes_the_file_that_the_environment_names(upstreams: Any, tmp_path: Path) -> None:
    """Without --config, SYNCFAILOVER_CONFIG names the file."""
    done = run("check", SYNCFAILOVER_CONFIG=config_of(tmp_path, upstreams), TEST_KEY=KEY)
    assert done.stdout.startswith("OK: 3 of 3 endpoints up\n")


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["chat", "hello"], "syncfailover chat --demo"),
        (["watch"], "syncfailover watch --demo"),
        (["check"], "name a URL"),
    ],
)
def test_with_nothing_configured_a_command_says_what_to_set(words: Any, way_out: str) -> None:
    """A few lines on stderr name the variables, the file and the way out; exit code 2."""
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) in range(3, 6)
    for hint in ("HOLYSHEEP_API_KEYS", "SYNCFAILOVER_CONFIG", "syncfailover init", "--config FILE", way_out):
        assert hint in done.stderr


def test_init_prints_a_file_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `init` prints is a configuration file, complete once its variables are set; it needs none itself."""
    done = run("init")
    assert (done.returncode, done.stdout, done.stderr) == (0, STARTER_TOML, "")
    path = tmp_path / "printed.toml"
    path.write_text(done.stdout, encoding="utf-8")
    for names in settings.KEY_VARIABLES.values():
        monkeypatch.setenv(names[0], KEY)
    assert settings.from_file(path).endpoints


def test_init_writes_a_file_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """--output writes it; a file that is there already is kept, with exit code 2."""
    path = tmp_path / "new.toml"
    assert main(["init", "--output", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == STARTER_TOML
    path.write_text("precious", encoding="utf-8")
    assert main(["init", "--output", str(path)]) == 2
    assert path.read_text(encoding="utf-8") == "precious"
    out, err = capsys.readouterr()
    assert not out
    assert f"--output: {str(path)!r} is not allowed; expected a file that does not exist yet" in err


def test_check_says_what_its_exit_codes_mean(capsys: pytest.CaptureFixture) -> None:
    """The help names the exit codes, what Nagios makes of them, and how to have a dead endpoint be CRITICAL."""
    assert main(["check", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "0 all endpoints are up (OK: ...), 1 any is down (DOWN: ...), 2 wrong usage" in told
    assert "OK, WARNING and CRITICAL" in told
    assert "|| exit 2" in told


def test_json_tells_everything(upstreams: Any, capsys: pytest.CaptureFixture) -> None:
    """--json prints one object with the summary and, per endpoint, what the probe found."""
    upstreams[1].kill()
    assert main(["check", "--json", f"a={upstreams[0].url}", f"b={upstreams[1].url}"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["up"] is False
    assert told["summary"] == "DOWN: 1 of 2 endpoints down (b: connect refused)"
    a, b = told["endpoints"]
    assert (a["url"], a["up"], a["status"]) == (upstreams[0].origin + "/health", True, 200)
    assert a["latency_ms"] > 0
    assert (b["endpoint"], b["up"], b["status"], b["latency_ms"]) == ("b", False, None, None)


def test_a_name_that_the_output_cannot_show_is_no_error(upstreams: Any) -> None:
    """With an ASCII stdout, other signs are written as escapes."""
    done = run("check", f"\u00fcber={upstreams[0].url}", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xfcber" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["check", "http://127.0.0.1:9"], ["demo", "--seconds", "2"]])
def test_nobody_reads_the_output(words: Any) -> None:
    """A closed pipe (`| head`) ends a command without a word; unbuffered, argparse does not even notice."""
    code, complaint = into_closed_pipe(*words)
    assert (code in (0, 141), complaint) == (True, "")


def test_upstream_plays_its_faults_and_tells_what_it_saw() -> None:
    """Scripted faults come in order, then the default; probes have their own; SIGTERM ends it with 0."""
    words = (
        "--fault",
        "status:503",
        "--fault",
        "status:429,retry-after=2",
        "--probes",
        "html",
        "--text",
        "Hi",
    )
    with serving(*words) as (process, port):
        assert [ask(port)[0] for _ in range(2)] == [503, 429]
        status, body = ask(port)
        assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "Hi")
        assert ask(port, "GET", "/health")[1].startswith(b"<!DOCTYPE html>")
        lines = [process.stdout.readline().split(None, 1)[1] for _ in range(4)]
        process.send_signal(signal.SIGTERM)
        assert (process.wait(10), process.stderr.read()) == (0, "")
    assert lines == [
        "POST /v1/chat/completions  503  Status(code=503)\n",
        "POST /v1/chat/completions  429  Status(code=429, headers={'Retry-After': '2'})\n",
        "POST /v1/chat/completions  200  Ok()\n",
        "GET /health  200  Html()\n",
    ]


def test_upstream_ends_by_ctrl_c_and_has_a_default_for_everything() -> None:
    """--always answers calls and probes, --calls the calls alone; Ctrl-C ends with 0."""
    with serving("--always", "status:500", "--calls", "status:418") as (process, port):
        assert ask(port)[0] == 418
        assert ask(port, "GET", "/health")[0] == 500
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.stderr.read()) == (0, "")


def test_upstream_shows_a_dash_where_no_status_was_sent() -> None:
    """A request that is reset or left hanging has its line at once, with a dash for the status."""
    with serving("--fault", "reset", "--fault", "hang") as (process, port):
        with pytest.raises(ConnectionResetError):
            ask(port)
        with pytest.raises(socket.timeout):
            ask(port, timeout=0.1)
        lines = [process.stdout.readline().split(None, 1)[1] for _ in range(2)]
    assert lines == ["POST /v1/chat/completions  -  Reset()\n", "POST /v1/chat/completions  -  Hang()\n"]


def test_upstream_whose_port_is_taken(fake_upstream: FakeUpstream, capsys: pytest.CaptureFixture) -> None:
    """A port in use is a clear error with exit code 2."""
    assert main(["upstream", "--port", str(fake_upstream.port)]) == 2
    assert f"cannot listen on 127.0.0.1:{fake_upstream.port}: " in capsys.readouterr().err


class serving:  # noqa: N801 - reads as a verb
    """Run `upstream` on a free port until the block ends; yields the process and the port."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(**command("upstream", "--port", "0", *words), stdout=subprocess.PIPE)

    def __enter__(self) -> Any:
        """Wait for the line with the URL."""
        url = self._process.stdout.readline().strip()
        assert url.endswith("/v1")
        return self._process, int(url[: -len("/v1")].rpartition(":")[2])

    def __exit__(self, *error: object) -> None:
        """End it whatever happened."""
        self._process.kill()
        self._process.communicate()


def ask(
    port: int, method: str = "POST", path: str = "/v1/chat/completions", timeout: float = 5
) -> Tuple[int, bytes]:
    """Send one request; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, b"{}" if method == "POST" else None)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("shell", "code", "told"),
    [
        ("exec {} init >&-", 0, ""),
        ("exec {} init > /dev/full", 1, "syncfailover: error: the output cannot be written"),
        ("exec {} chat --demo -v hi 2>&- </dev/null", 0, ""),
        ("exec {} chat --demo -v hi 2>/dev/full </dev/null", 0, ""),
    ],
)
def test_an_output_that_cannot_be_written_is_no_traceback(shell: str, code: int, told: str) -> None:
    """A closed or full output is one line at most; that nobody reads the story does not spoil the answer."""
    line = shell.format(f"{sys.executable} -m syncfailover")
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr[: len(told)]) == (code, told)
    assert "Traceback" not in done.stderr
