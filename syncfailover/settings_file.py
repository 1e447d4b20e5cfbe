"""Secrets that a settings file holds as text: they stay there, and another process reads them there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from .endpoint import Endpoint
from .errors import ConfigurationError
from .pickling import Source, Sourced
from .secrecy import is_credential, is_secret_url, secret_of_url

#: Reads a file: its endpoints by name, and its options.
Reader = Callable[[str], Tuple[Dict[str, Endpoint], Dict[str, Any]]]


class SettingsFile:
    """A settings file: one for all that it holds, so that one pickle reads it once.

    Args:
        path: where it is; made absolute, for the other process may be in another directory.
        reader: what reads it.

    """

    def __init__(self, path: str, reader: Reader) -> None:
        self.path = str(Path(path).absolute())
        self._reader = reader
        self._found: Optional[Tuple[Dict[str, Endpoint], Dict[str, Any]]] = None

    def __reduce__(self) -> Tuple[Any, ...]:
        """Leave behind what was read."""
        return SettingsFile, (self.path, self._reader)

    def look_up(self, field: str, endpoint: Optional[str], name: Optional[str]) -> Any:
        """Return what the file holds now, None where that is nothing; see `Entry` for the arguments."""
        if self._found is None:
            self._found = self._reader(self.path)
        endpoints, options = self._found
        if endpoint is None:
            return options.get(field)
        value = getattr(endpoints.get(endpoint), field, None)
        return value if name is None or value is None else value.get(name)

    def mark_endpoint(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint with secrets that know that they stand in this file, unless they know of a variable."""
        key = endpoint.api_key
        changes: Dict[str, Any] = {}
        if type(key) is str:
            changes["api_key"] = Sourced(key, Entry(self, "api_key", endpoint.name))
        for field in ("headers", "params", "proxies"):
            table = getattr(endpoint, field) or {}
            marked = {
                name: Sourced(value, Entry(self, field, endpoint.name, name))
                for name, value in table.items()
                if type(value) is str
                and (secret_of_url(value) if field == "proxies" else is_credential(name, value, str(key)))
            }
            if marked:
                changes[field] = {**table, **marked}
        return endpoint.replace(**changes) if changes else endpoint

    def mark_option(self, name: str, value: Any) -> Any:
        """Return an option that knows that it stands in this file, if it is a URL with a password."""
        return Sourced(value, Entry(self, name)) if type(value) is str and is_secret_url(value) else value


class Entry(Source):
    """A secret in a settings file.

    Args:
        file: which file.
        field: of an endpoint; or the name of an option.
        endpoint: its name; None for an option.
        name: which header, parameter or proxy; None where the field is a single text.

    """

    def __init__(
        self, file: SettingsFile, field: str, endpoint: Optional[str] = None, name: Optional[str] = None
    ) -> None:
        self.file = file
        self.field = field
        self.endpoint = endpoint
        self.name = name

    def read(self) -> str:
        """Read it from the file as it is in this process.

        Raises:
            ConfigurationError: the file cannot be read, or does not hold it; the message names the file.

        """
        found = self.file.look_up(self.field, self.endpoint, self.name)
        if isinstance(found, str):
            return found
        field = self.field if self.name is None else f"{self.field}[{self.name!r}]"
        of = "" if self.endpoint is None else f" of an endpoint {self.endpoint!r}"
        raise ConfigurationError(
            f"{self.file.path}: there is no {field}{of} here; expected what the file held where the pickle was made",
            field=field,
        )
