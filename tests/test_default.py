"""The default client: `syncfailover.chat("text")` from the environment, one client for a process."""

import os
import subprocess
import sys
import threading
from typing import Any, Callable, Iterator, List

import pytest

import syncfailover
from syncfailover import ConfigurationError, FailoverClient, default, settings, settings_environ
from syncfailover.testing import FakeUpstream, Reset

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def environment(monkeypatch: Any) -> Iterator[Any]:
    """An environment without any setting; what the test made of it is closed at its end."""
    providers = {name for names in settings.KEY_VARIABLES.values() for name in names}
    for name in {*os.environ}:
        if (
            name in providers
            or name in settings_environ.URL_VARIABLES.values()
            or name.startswith("SYNCFAILOVER_")
        ):
            monkeypatch.delenv(name)
    close_default()
    yield monkeypatch
    close_default()


def close_default() -> None:
    """Close the default client, if there is one; the next call makes another."""
    if default._default._thing is not None:
        default._default._thing.close()


@pytest.fixture
def relay(environment: Any, upstreams: List[FakeUpstream]) -> FakeUpstream:
    """An upstream that the environment names as HolySheep, with one key and a model."""
    environment.setenv("HOLYSHEEP_API_KEYS", "key-1")
    environment.setenv("HOLYSHEEP_BASE_URL", upstreams[0].url)
    environment.setenv("SYNCFAILOVER_MODEL", "gpt-4.1")
    environment.setenv("SYNCFAILOVER_PROBE_WHEN", "never")
    return upstreams[0]


def test_chat_needs_no_client(relay: FakeUpstream) -> None:
    """A text is enough: endpoint, key and model come from the environment."""
    reply = syncfailover.chat("Hello", temperature=0.5, timeout=5.0)
    assert (reply.text, reply.endpoint) == ("Hello from upstream-1.", "holysheep-1")
    (request,) = relay.calls.requests
    assert request.header("authorization") == "Bearer key-1"
    assert request.json() == {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.5,
    }
    assert syncfailover.chat(messages=[{"role": "user", "content": "Hi"}], model="gpt-4o").text
    assert relay.calls.requests[1].json()["model"] == "gpt-4o"


def test_the_environment_fails_over(
    relay: FakeUpstream, upstreams: List[FakeUpstream], environment: Any
) -> None:
    """When the relay is dead, the vendor answers, and then the emergency exit."""
    for name, upstream in (("OPENAI", upstreams[1]), ("OPENROUTER", upstreams[2])):
        environment.setenv(f"{name}_API_KEY", f"key-of-{name}")
        environment.setenv(f"{name}_BASE_URL", upstream.url)
    assert syncfailover.chat("Hello").endpoint == "holysheep-1"
    relay.kill()
    assert syncfailover.chat("Hello").endpoint == "openai-1"
    upstreams[1].always(Reset())
    assert syncfailover.chat("Hello").endpoint == "openrouter-1"
    assert upstreams[2].calls.requests[0].json()["model"] == "openai/gpt-4.1"


def test_all_threads_share_one_client(relay: FakeUpstream) -> None:
    """However many threads ask at the same moment, they get the same client."""
    barrier, got = threading.Barrier(32), []

    def ask() -> None:
        barrier.wait(10.0)
        got.append(syncfailover.default_client())
        assert syncfailover.chat("Hello").text

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert len(got) == 32
    assert set(got) == {syncfailover.default_client()}
    assert syncfailover.default_client().metrics()["successful_requests"] == len(relay.calls.requests) == 32


def test_a_closed_client_is_replaced(relay: FakeUpstream, environment: Any) -> None:
    """After `close()` the next call makes a client of what the environment says now."""
    first = syncfailover.default_client()
    first.close()
    environment.setenv("HOLYSHEEP_API_KEYS", "key-2")
    assert syncfailover.chat("Hello").text
    assert syncfailover.default_client() is not first
    assert relay.calls.requests[0].header("authorization") == "Bearer key-2"


def test_a_failure_is_not_kept(environment: Any, upstreams: List[FakeUpstream]) -> None:
    """Without any setting the error says what to set, and once it is set, the next call works."""
    with pytest.raises(ConfigurationError, match=r"set a key .HOLYSHEEP_API_KEYS.*SYNCFAILOVER_CONFIG.*init"):
        syncfailover.chat("Hello", model="gpt-4.1")
    environment.setenv("HOLYSHEEP_API_KEYS", "key-1")
    environment.setenv("HOLYSHEEP_BASE_URL", upstreams[0].url)
    assert syncfailover.chat("Hello", model="gpt-4.1").text


def test_a_call_without_a_model_says_where_to_name_one(relay: FakeUpstream, environment: Any) -> None:
    """No model is assumed: the error names the argument, the variable and the file's key."""
    environment.delenv("SYNCFAILOVER_MODEL")
    with pytest.raises(ConfigurationError, match=r"model=... in the call, SYNCFAILOVER_MODEL") as caught:
        syncfailover.chat("Hello")
    assert caught.value.field == "model"
    with pytest.raises(ConfigurationError, match=r"^model: '' is not allowed"):
        syncfailover.chat("Hello", model="")
    with pytest.raises(ConfigurationError, match=r"^messages: "):
        syncfailover.chat(model="gpt-4.1")
    assert relay.calls.requests == []


def test_a_file_makes_the_default_client(
    tmp_path: Any, environment: Any, upstreams: List[FakeUpstream]
) -> None:
    """SYNCFAILOVER_CONFIG names a file, and a variable wins over what it says."""
    path = tmp_path / "llm.toml"
    block = f'[[endpoints]]\nname = "own"\nbase_url = "{upstreams[0].url}"\napi_key = "${{OWN}}"\n'
    path.write_text('model = "from-file"\nprobe_when = "never"\n' + block, encoding="utf-8")
    environment.setenv("SYNCFAILOVER_CONFIG", str(path))
    environment.setenv("SYNCFAILOVER_MODEL", "from-variable")
    environment.setenv("OWN", "key")
    assert syncfailover.chat("Hello").endpoint == "own"
    assert upstreams[0].calls.requests[0].json()["model"] == "from-variable"
    with FailoverClient.from_env(model="from-code") as client:
        assert client.chat("Hello").endpoint == "own"
    assert upstreams[0].calls.requests[1].json()["model"] == "from-code"


def in_child(work: Callable[[], bool]) -> bool:
    """Fork, do the work in the child, and tell whether it went well within ten seconds."""
    pid = os.fork()
    if pid == 0:
        killer = threading.Timer(10.0, os._exit, (3,))
        killer.daemon = True
        killer.start()
        try:
            os._exit(0 if work() else 2)
        except BaseException as error:  # noqa: BLE001 - a child must not run the rest of the test session
            sys.stderr.write(f"child: {error!r}\n")
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def test_a_child_calls_on_its_own(relay: FakeUpstream) -> None:
    """A forked child calls over connections of its own, whether the parent had a default client before or not."""
    assert in_child(lambda: bool(syncfailover.chat("child").text))
    assert default._default._thing is None or default._default._thing._caller.closed
    syncfailover.chat("parent")
    before = relay.connections
    counted = "successful_requests"
    assert in_child(
        lambda: (
            bool(syncfailover.chat("child").text) and syncfailover.default_client().metrics()[counted] == 1
        )
    )
    assert relay.connections > before
    syncfailover.chat("parent")
    assert syncfailover.default_client().metrics()[counted] == 2
    assert len(relay.calls.requests) == 4


def test_importing_the_package_reads_no_settings() -> None:
    """A client made in code loads neither the default client nor the settings, whatever the environment says."""
    code = (
        "import sys, syncfailover;"
        "syncfailover.FailoverClient([syncfailover.Endpoint('a', 'http://127.0.0.1:9')]);"
        "print([name for name in sys.modules if name.startswith('syncfailover.') and"
        " any(part in name for part in ('settings', 'default', 'once', 'starter'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SYNCFAILOVER_CONFIG": "/no/such/file", "SYNCFAILOVER_TYPO": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
