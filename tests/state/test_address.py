"""What `state=` may be, and that a wrong one is refused where it is given, without a password in the message."""

import os
from pathlib import Path
from typing import Any

import pytest

from syncfailover.errors import ConfigurationError
from syncfailover.state.address import shown, store_of


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: Any) -> None:
    """Be in an empty directory, and have it for a home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///health.db", "{home}/health.db"),
        ("SQLite:///health.db", "{home}/health.db"),
        ("sqlite:///run/health.db", "{home}/run/health.db"),
        ("sqlite:///./run/../health.db", "{home}/health.db"),
        ("sqlite:///~/health.db", "{home}/health.db"),
        ("sqlite:///{home}/health.db", "{home}/health.db"),
        ("sqlite:///two%20words%3F.db", "{home}/two words?.db"),
        ("sqlite:///ä🙂.db", "{home}/ä🙂.db"),
        ("sqlite:///a@b#c.db", "{home}/a@b#c.db"),
    ],
)
def test_a_url_is_a_path(url: str, path: str, tmp_path: Path) -> None:
    """Three slashes and a relative one, four and an absolute one, `~` and escapes as everywhere."""
    store = store_of(url.format(home=tmp_path))
    assert (store.kind, store.path) == ("sqlite", path.format(home=tmp_path))


def test_nothing_is_opened(tmp_path: Path) -> None:
    """The file is made when it is first used."""
    store_of("sqlite:///health.db")
    assert os.listdir(tmp_path) == ["run"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("", "a text"),
        ("health.db", "sqlite:///relative/path"),
        ("/var/lib/health.db", "sqlite:///relative/path"),
        ("sqlite://", "sqlite:///relative/path"),
        ("sqlite:health.db", "sqlite:///relative/path"),
        ("sqlite:///", "sqlite:///relative/path"),
        ("sqlite:///a\0b", "sqlite:///relative/path"),
        ("sqlite:///a%00b", "sqlite:///relative/path"),
        ("sqlite:///health.db?mode=ro", "without a query"),
        ("sqlite:///:memory:", "shared with nobody"),
        ("sqlite:///nowhere/health.db", "directory that exists"),
        ("sqlite:////nowhere/health.db", "/nowhere does not"),
        ("sqlite:///run", "not of a directory"),
        ("sqlite:///run/", "not of a directory"),
        ("postgresql://user:sk-secret@host/db", "redis://host:6379/0"),
        ("memcached://host", "redis://host:6379/0"),
        (7, "'int'"),
        (b"sqlite:///health.db", "'bytes'"),
        (Path("health.db"), "PosixPath"),
        ({"password": "sk-secret"}, "'dict'"),
        (object(), "'object'"),
    ],
)
def test_anything_else_is_refused_at_once(state: Any, why: str) -> None:
    """The message names the field and says what is allowed; what may be a secret is not in it."""
    with pytest.raises(ConfigurationError) as caught:
        store_of(state)
    assert str(caught.value).startswith("state: ")
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("redis://user:sk-secret@host:6379/0?password=sk-secret", "redis://host:6379/0"),
        ("rediss://:sk@secret@host", "rediss://host"),
        ("sqlite:////var/lib/health.db", "sqlite:////var/lib/health.db"),
        ("sk-secret", "a text"),
        (b"sk-secret", "bytes"),
    ],
)
def test_what_is_shown_of_it(state: Any, text: str) -> None:
    """A place, without user, password and query."""
    assert shown(state) == text
