"""The settings file that `syncfailover init` prints."""

import re
from pathlib import Path
from typing import Any

from syncfailover import settings
from syncfailover.starter import STARTER_TOML

VARIABLES = {"HOLYSHEEP_API_KEYS": "key-1,key-2", "OPENROUTER_API_KEY": "key-3"}


def read(text: str, folder: Path) -> Any:
    """Read the text as a settings file."""
    path = folder / "starter.toml"
    path.write_text(text, encoding="utf-8")
    return settings.from_file(path, VARIABLES)


def uncommented() -> str:
    """The file with every commented key and table in force, but for the number that a table replaces."""
    in_force = re.sub(r"^# (?=\[|\w+ = )", "", STARTER_TOML, flags=re.MULTILINE)
    return re.sub(r"^timeout = .*\n", "", in_force, flags=re.MULTILINE)


def test_it_works_once_its_variables_are_set(tmp_path: Path) -> None:
    """As it is printed it makes the relay's endpoints and the emergency exit, from the variables that it names."""
    found = read(STARTER_TOML, tmp_path)
    assert [(e.name, e.priority, e.weight, e.key()) for e in found.endpoints] == [
        ("holysheep-1", 0, 2, "key-1"),
        ("holysheep-2", 0, 1, "key-2"),
        ("openrouter", 2, 1, "key-3"),
    ]
    assert found.options == {"model": "gpt-4.1", "timeout": 30.0}
    names = {*re.findall(r"\$\{(\w+)\}", STARTER_TOML)} - {"NAME"}
    assert names == set(VARIABLES)


def test_what_it_leaves_out_works_too(tmp_path: Path) -> None:
    """Each line that is commented out is right when it is put in force."""
    text = uncommented()
    found = read(text, tmp_path)
    assert [endpoint.name for endpoint in found.endpoints][-1] == "vllm"
    assert {"balancer", "max_retries", "queue_timeout", "hedge_after", "budget_usd", "timeout"} <= set(
        found.options
    )


def test_it_is_plain_text_for_any_terminal() -> None:
    """It is ASCII, its lines are no longer than 120 characters, and it holds no key."""
    assert STARTER_TOML.isascii()
    assert max(map(len, STARTER_TOML.splitlines())) <= 120
    assert "sk-" not in STARTER_TOML
