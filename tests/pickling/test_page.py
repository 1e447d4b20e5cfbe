"""What docs/pickling.md says is run, and compared with the code."""

import re
from pathlib import Path
from typing import Any, Callable, List

import pytest

from syncfailover import providers, secrecy
from syncfailover.testing import FakeUpstream

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "pickling.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_every_example_of_the_page_runs(
    index: int, monkeypatch: Any, capsys: Any, fake_upstreams: Callable[..., List[FakeUpstream]]
) -> None:
    """Each Python block runs as it stands, as a program, against an upstream here."""
    [upstream] = fake_upstreams(1, text="Failover.")
    monkeypatch.setenv("HOLYSHEEP_API_KEYS", "key-1,key-2")
    monkeypatch.setenv("HOLYSHEEP_BASE_URL", upstream.url)
    openai = providers.PRESETS["openai"]._replace(base_url=upstream.url)
    monkeypatch.setitem(providers.PRESETS, "openai", openai)
    made = {"__name__": "__main__"}
    exec(compile(BLOCKS[index], f"pickling.md, block {index}", "exec"), made)  # noqa: S102 - our own text
    client: Any = made["client"]
    assert client.chat("Hi").text == "Failover."
    client.close()
    assert capsys.readouterr().out == ("Failover.\n" * 2 if "pool.map" in BLOCKS[index] else "")


def test_the_headers_that_the_page_names_are_judged_so() -> None:
    """Its examples of credentials are credentials to the code, and the others are not."""
    text = " ".join(PAGE.split())
    [sentence] = re.findall(r"named like a credential \((.*?), \.\.\.\)", text)
    [harmless] = re.findall(r"default headers and query\. (.*?) travel\.", text)
    names = re.findall(r"`(.*?)`", sentence)
    assert len(names) >= 4
    assert all(secrecy.is_credential(name, "x") for name in names)
    assert not any(secrecy.is_credential(name, "our app") for name in re.findall(r"`(.*?)`", harmless))
    assert len(re.findall(r"`(.*?)`", harmless)) == 3
