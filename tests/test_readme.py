"""What README.md and docs/ say is run and compared with the code, so that it cannot go stale."""

import inspect
import operator
import re
import shlex
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple, Type

import pytest

from syncfailover import (
    Endpoint,
    EndpointRegistry,
    FailoverClient,
    FailoverRetry,
    FailoverSession,
    Timeouts,
    cli,
    errors,
    providers,
    testing,
)
from syncfailover.events import EVENTS, AttemptRecord, Event
from syncfailover.policy import outcome
from syncfailover.runtime import process
from syncfailover.testing import FakeUpstream

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
HOW_IT_WORKS = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
TESTING = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
STREAMS = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")
MAP = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
OPENAI = (ROOT / "docs" / "openai.md").read_text(encoding="utf-8")
OPENAI_SDK = (ROOT / "docs" / "openai-sdk.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block of Python, and the line where it begins."""

    where: str
    source: str


def blocks(name: str, text: str) -> List[Block]:
    """Find the Python blocks of a page."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(f"{name}:{text[: match.start()].count(chr(10)) + 1}", match[1]) for match in found]


BLOCKS = [
    *blocks("README", README),
    *blocks("testing", TESTING),
    *blocks("streams", STREAMS),
    *blocks("how-it-works", HOW_IT_WORKS),
    *blocks("map", MAP),
    *blocks("openai", OPENAI),
    *blocks("openai-sdk", OPENAI_SDK),
]
TEN_LINES = BLOCKS[0]
#: The pages' made-up hosts, which are replaced by an upstream's address; mocked URLs stay as they are.
PLACEHOLDERS = ("https://vllm.example.com", "https://hosted.example.com")


@pytest.fixture
def elsewhere(fake_upstreams: Callable[..., List[FakeUpstream]], monkeypatch: Any) -> List[FakeUpstream]:
    """Let every provider's preset lead to an upstream of this machine."""
    upstreams = fake_upstreams(len(providers.PRESETS))
    for (name, preset), upstream in zip(list(providers.PRESETS.items()), upstreams):
        monkeypatch.setitem(providers.PRESETS, name, preset._replace(base_url=upstream.url))
    return upstreams


@pytest.fixture
def namespace() -> Iterator[Dict[str, Any]]:
    """Hold what the blocks make, and close what has to be closed."""
    made: Dict[str, Any] = {"__name__": "readme"}
    yield made
    for value in made.values():
        if not inspect.isclass(value) and callable(getattr(value, "close", None)):
            value.close()


def run(block: Block, namespace: Dict[str, Any], upstreams: List[FakeUpstream], request: Any) -> None:
    """Run a block; a test function in it is called with the fixtures that it asks for."""
    source = block.source
    for url, upstream in zip(PLACEHOLDERS, upstreams):
        source = source.replace(url, upstream.origin)
    before = set(namespace)
    exec(compile(source, block.where, "exec"), namespace)  # noqa: S102 - it is our own text
    for name in sorted(set(namespace) - before):
        if name.startswith("test_"):
            wanted = inspect.signature(namespace[name]).parameters
            namespace[name](**{fixture: request.getfixturevalue(fixture) for fixture in wanted})


def mocks(block: Block) -> bool:
    """Tell whether a block mocks the providers' real URLs and so needs the presets as they are."""
    return "import responses" in block.source


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_every_python_block_runs(
    block: Block, namespace: Dict[str, Any], request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python block of the README and of these pages runs as it stands, after the ten-line example."""
    monkeypatch.chdir(tmp_path)  # some write files
    upstreams: List[FakeUpstream] = [] if mocks(block) else request.getfixturevalue("elsewhere")
    if (
        block is not TEN_LINES
        and re.search(r"\bclient\b", block.source)
        and "FailoverClient" not in block.source
    ):
        run(TEN_LINES, namespace, upstreams, request)
    run(block, namespace, upstreams, request)


def test_the_ten_line_example_survives_its_provider(
    namespace: Dict[str, Any], elsewhere: List[FakeUpstream], request: Any
) -> None:
    """The ten-line example uses the first key, and its emergency exit once the relay is dead."""
    run(TEN_LINES, namespace, elsewhere, request)
    relay = elsewhere[list(providers.PRESETS).index("holysheep")]
    assert namespace["reply"].endpoint == "holysheep-1"
    assert relay.calls.requests[0].header("authorization") == "Bearer key-1"
    relay.kill()
    assert namespace["client"].chat("Still there?").endpoint == "openrouter"


def test_the_two_commands_are_one_line_each() -> None:
    """A reader, and .ci/run, can copy each of the two commands as one line."""
    assert re.search(r"```sh\npython3 -m venv .*&& \S+pip install \. && \S+syncfailover demo\n```", README)
    assert re.search(
        r'<!-- test command -->\n```sh\npython3 -m venv .*pip install -e "\.\[test\]" && .*pytest\n```\n',
        README,
    )


def table(text: str, heading: str) -> List[List[str]]:
    """Return the rows of the first table after a heading, without its head."""
    section = text.split(f"\n{heading}\n", 1)[1]
    lines = re.search(r"^\|.*?(?=\n[^|]|\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
    assert lines is not None
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines[0].splitlines()[2:]]
    return [[cell.strip() for cell in row] for row in rows]


def documented(heading: str, page: str = README) -> List[Tuple[str, Any]]:
    """Return name and default of each parameter in a configuration table."""
    names = {"time": time, "process": process, "required": inspect.Parameter.empty}
    return [
        (row[0].strip("`"), eval(row[1].strip("`"), names))  # noqa: S307 - it is our own text
        for row in table(page, heading)
    ]


def parameters(function: Callable[..., Any]) -> List[Tuple[str, Any]]:
    """Return name and default of each parameter of a function, but for `**options`."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in found if p.kind is not inspect.Parameter.VAR_KEYWORD]


@pytest.mark.parametrize("cls", [Endpoint, FailoverClient, EndpointRegistry, Timeouts, FailoverRetry])
def test_the_configuration_reference_is_complete(cls: Type[Any]) -> None:
    """Each configuration table names every parameter of its class, in order, with the default that it has."""
    assert documented(f"### {cls.__name__}") == parameters(cls)


def test_the_arguments_of_map_are_those_of_the_code() -> None:
    """docs/map.md lists each of them, in order, with its default."""
    assert documented("## Arguments", MAP) == parameters(FailoverClient.map)[1:]


def test_a_session_takes_what_the_readme_says() -> None:
    """A FailoverSession has the parameters of a client, but for the model."""
    session = dict(parameters(FailoverSession))
    client = {
        name: default for name, default in parameters(FailoverClient) if name not in ("model", "balancer")
    }
    assert {name: session[name] for name in client} == client
    assert "model" not in session


def test_the_commands_are_those_of_the_command_line() -> None:
    """The README lists every command, and the command line understands each of its examples."""
    section = README.split("\n## Command line\n", 1)[1].split("\n## ", 1)[0]
    parser = cli._parser()
    examples = re.findall(r"^syncfailover .*$", section, re.MULTILINE)
    understood = [parser.parse_args(shlex.split(example, comments=True)[1:]) for example in examples]
    assert len({arguments.command for arguments in understood}) == len(table(README, "## Command line")) == 6


def drawn(text: str) -> List[Tuple[str, str]]:
    """Return the classes of a drawn tree of errors, each with its parent."""
    parents: List[str] = []
    found = []
    for line in re.findall(r"^[│├└─ ]*[A-Z]\w+(?: +\(.*)?$", text, re.MULTILINE):
        match = re.match(r"^([│├└─ ]*)(\w+)(?: +\(([\w.]+)\))?", line)
        assert match is not None
        depth = len(match[1]) // 4
        parents[depth:] = [match[2]]
        found.append((match[2], parents[depth - 1] if depth else "", match[3] or ""))
    return found


def test_the_errors_tree_is_the_one_in_the_code() -> None:
    """The README draws every error, below its base class and beside the exception that old code would catch."""
    tree = drawn(README.split("\n## Errors\n", 1)[1].split("```", 2)[1])
    classes = {
        name: cls
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, errors.FailoverError)
    }
    assert sorted(name for name, _parent, _other in tree) == sorted(classes)
    for name, parent, other in tree:
        bases = [base.__name__ for base in classes[name].__bases__]
        assert bases == [word for word in (parent, other.rpartition(".")[2]) if word]


def test_the_outcome_table_is_the_one_in_the_code() -> None:
    """docs/how-it-works.md has a row for every rule of policy/outcome.py, and says of each what the rule does."""
    rules = {rule.name: rule for rule in vars(outcome).values() if isinstance(rule, outcome.Rule)}
    rows = {row[0].strip("`"): row[2:] for row in table(HOW_IT_WORKS, "## Where a failed attempt goes")}
    said = {
        name: [rule.breaker, rule.goes, "yes" * rule.quick, "yes" * rule.again, rule.rests or ""]
        for name, rule in rules.items()
    }
    assert rows == said


@pytest.mark.parametrize("kind", [AttemptRecord, Event])
def test_the_fields_of_ledger_and_events_are_those_of_the_code(kind: Any) -> None:
    """docs/how-it-works.md lists each of them, in order."""
    section = HOW_IT_WORKS.split(f"\n| `{kind.__name__}` | |\n", 1)[1].split("\n\n", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines()[1:]]
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(kind._fields)


def test_the_faults_of_the_testing_page_are_those_of_the_package() -> None:
    """docs/testing.md lists every fault, with its fields."""
    listed = {}
    for row in table(TESTING, "## FakeUpstream: an endpoint that fails on command"):
        name, _, fields = row[0].strip("`").rstrip(")").partition("(")
        listed[name] = [field for field in fields.split(", ") if field]
    real = {
        name: list(inspect.signature(cls).parameters)
        for name, cls in vars(testing).items()
        if inspect.isclass(cls) and issubclass(cls, testing.Fault) and cls is not testing.Fault
    }
    assert listed == real


def test_the_calls_of_the_openai_page_are_those_of_the_client() -> None:
    """docs/openai.md lists every call, with its keywords in order, whether it streams, and what it returns."""
    listed = {
        row[0].strip("`"): (re.findall(r"`(\w+)`", row[1]), row[2], re.findall(r"`(\w+)`", row[3]))
        for row in table(OPENAI, "## What is covered")
    }
    client = FailoverClient([Endpoint("a", "http://127.0.0.1:9")])
    real = {"with_options": FailoverClient.with_options}
    for place in ("chat.completions", "completions", "responses", "embeddings", "models"):
        part = type(operator.attrgetter(place)(client))
        found = {name: value for name, value in vars(part).items() if inspect.isfunction(value)}
        real.update({f"{place}.{name}": value for name, value in found.items() if not name.startswith("_")})
    assert set(listed) == set(real)
    for call, (keywords, streams, returns) in listed.items():
        taken = [name for name, _default in parameters(real[call]) if name != "self"]
        assert keywords == taken, call
        assert streams == ("yes" if "stream" in taken else "no"), call
        assert returns == re.findall(r"\b[A-Z]\w+(?=\W|$)", plain_return(real[call])), call


def plain_return(function: Callable[..., Any]) -> str:
    """Return the annotation of what a function returns, without the word Union."""
    return str(function.__annotations__["return"]).replace("Union", "")


def test_the_events_are_those_of_the_code() -> None:
    """The README names every event that `client.on` accepts."""
    sentence = re.search(r"^Events: (.*?)\.\s", README, re.MULTILINE | re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == EVENTS


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/configuration.md",
        "docs/how-it-works.md",
        "docs/judges.md",
        "docs/map.md",
        "docs/openai.md",
        "docs/openai-sdk.md",
        "docs/pickling.md",
        "docs/streams.md",
        "docs/testing.md",
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    """Every link of a page to a file of this repository leads to one."""
    here = ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", here.read_text(encoding="utf-8"))
    missing = [link for link in links if not (here.parent / link).exists()]
    assert missing == []
