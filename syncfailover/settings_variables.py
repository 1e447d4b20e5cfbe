"""`${NAME}` in settings: read from the environment now, and again in the process where a pickle is loaded."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List, Mapping, Match, Optional

from .errors import ConfigurationError
from .pickling import Source, Sourced
from .secrecy import is_credential, is_secret_template, is_secret_url

_DOLLAR = re.compile(r"\$(?:\$|\{([^{}]*)(\}?))")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand(value: Any, environ: Mapping[str, str], field: str) -> Any:
    """Return `value` with every `${NAME}` in its strings read from the environment; `$$` is a dollar.

    Raises:
        ConfigurationError: a variable that is not set, or empty; the message names it and the field, nothing else.

    """
    if isinstance(value, str):
        return _DOLLAR.sub(lambda found: _read(found, environ, field), value)
    if isinstance(value, Mapping):
        return {key: expand(item, environ, f"{field}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):  # no named one, such as `Timeouts`
        return type(value)(expand(item, environ, f"{field}[{index}]") for index, item in enumerate(value))
    return value


def mentions_variable(value: Any) -> bool:
    """Tell whether `expand` would read the environment for `value`."""
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, Mapping):
        return any(mentions_variable(item) for item in value.values())
    return type(value) in (list, tuple) and any(mentions_variable(item) for item in value)


def split_keys(text: str) -> List[str]:
    """Return the keys in a text, where commas separate them."""
    return [key.strip() for key in text.split(",") if key.strip()]


def _read(found: Match[str], environ: Mapping[str, str], field: str) -> str:
    name, closed = found.groups()
    if name is None:
        return "$"
    if not closed or not _VARIABLE.fullmatch(name):
        raise ConfigurationError(
            f"{field}: a ${{ begins no variable; expected ${{NAME}}, or $$ for a dollar", field=field
        )
    value = environ.get(name, "").strip()
    if not value:
        raise ConfigurationError(
            f"{field}: the environment variable {name} is not set, or empty", field=field
        )
    return value


# Again, elsewhere


class Template(Source):
    """A text with `${NAME}` in it, or one of the keys that commas separate in it.

    Args:
        text: as the settings have it; it travels, so what stands around its variables is no secret.
        field: where it stands.
        nth: which of the keys in it, from 0; None for all of it.

    """

    def __init__(self, text: str, field: str, nth: Optional[int] = None) -> None:
        self.text = text
        self.field = field
        self.nth = nth

    def read(self) -> str:
        """Read it from this process' environment.

        Raises:
            ConfigurationError: a variable is not set, or holds fewer keys; the message names it.

        """
        found: str = expand(self.text, os.environ, self.field)
        if self.nth is None:
            return found
        keys = split_keys(found)
        if self.nth < len(keys):
            return keys[self.nth]
        raise ConfigurationError(
            f"{self.field}: {self.text} holds {len(keys)} of its keys here; expected at least {self.nth + 1}, as where"
            " the pickle was made",
            field=self.field,
        )


def sourced_key(key: Any, text: Any, nth: Optional[int] = None) -> Any:
    """Return a key that knows its variable, where `text` of the settings has one; any other as it is."""
    if not mentions_variable(text) or not isinstance(text, str) or is_secret_template(text):
        return key
    return Sourced(key, Template(text, "api_key", nth))


def sourced_table(found: Any, texts: Any, field: str) -> Any:
    """Return headers, parameters or proxies that know their variables.

    Args:
        found: what they hold.
        texts: as the settings have them.
        field: what they are called.

    """
    if not isinstance(found, dict) or not mentions_variable(texts):
        return found
    table: Dict[Any, Any] = {}
    for name, value in found.items():
        text, is_url = texts[name], field == "proxies"
        table[name] = value
        if isinstance(text, str) and mentions_variable(text):
            doubtful = is_url or is_credential(str(name), value)
            if not (doubtful and is_secret_template(text, is_url=is_url)):
                table[name] = Sourced(value, Template(text, f"{field}[{name!r}]"))
    return table


def sourced_option(value: Any, text: Any, field: str) -> Any:
    """Return an option that knows its variable, where it is a URL with a password; any other as it is."""
    if not isinstance(value, str) or not mentions_variable(text) or not is_secret_url(value):
        return value
    return value if is_secret_template(text, is_url=True) else Sourced(value, Template(text, field))
