"""Settings: environment, TOML file or mapping -> endpoints and options of a client."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, Mapping, NamedTuple, Tuple, Union

from .endpoint import Endpoint
from .errors import ConfigurationError
from .policy.retry import FailoverRetry
from .runtime.timeouts import Timeouts
from .settings_blocks import block_endpoints
from .settings_environ import CONFIG, KEY_VARIABLES, PREFIX, environment_endpoints, environment_options
from .settings_file import SettingsFile
from .settings_keys import NUMBER, OPTIONS, RETRY_KEYS, check_kind, check_known, placed
from .settings_variables import expand, mentions_variable, sourced_option
from .validation import reject

__all__ = ["CONFIG", "KEY_VARIABLES", "Settings", "from_env", "from_file", "from_mapping"]


class Settings(NamedTuple):
    """What a client is made of: `FailoverClient(endpoints, **options)`."""

    endpoints: Tuple[Endpoint, ...]
    options: Dict[str, Any]
    #: Where each option was found: a file, or a variable; absent for those of a mapping.
    sources: Mapping[str, str] = {}
    #: The options whose value came from the environment by `${NAME}`, so that no error shows it.
    hidden: FrozenSet[str] = frozenset()

    def told(self, error: ConfigurationError) -> ConfigurationError:
        """Return the client's error about an option of these as one that says where it stands."""
        option = (error.field or "").split(".")[0]
        if option not in self.options:
            return error
        told = placed(error, option, hidden=option in self.hidden)
        source = self.sources.get(option)
        message = told.message if source is None else f"{source}: {told.message}"
        return ConfigurationError(message, field=told.field, value=told.value)


def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment: the file that SYNCFAILOVER_CONFIG names, else the providers' keys.

    Options come from SYNCFAILOVER_MODEL, SYNCFAILOVER_TIMEOUT and so on, and win over what the file says.

    Raises:
        ConfigurationError: nothing is set, or something that cannot work; the message names the variable.

    """
    options = environment_options(environ)
    path = environ.get(CONFIG, "").strip()
    if path:
        found = _file(_at_home(path), environ, f" ({CONFIG} names it)")
        return Settings(
            found.endpoints,
            {**found.options, **options},
            {**found.sources, **_variables(options)},
            found.hidden - set(options),
        )
    endpoints = environment_endpoints(environ)
    if not endpoints:
        variables = ", ".join(names[0] for names in KEY_VARIABLES.values())
        raise ConfigurationError(
            f"no endpoint is configured: set a key ({variables}), or {CONFIG} to the path of a settings file; "
            "`syncfailover init` prints one to begin with",
            field=CONFIG,
        )
    return Settings(tuple(endpoints), options, _variables(options))


def _variables(options: Mapping[str, Any]) -> Dict[str, str]:
    return {name: f"{PREFIX}{name.upper()}" for name in options}


def from_file(path: Union[str, os.PathLike[str]], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read a TOML file; docs/configuration.md lists its keys.

    Raises:
        ConfigurationError: a file that cannot be read or parsed, a key that is not known, a value that cannot work, a
            `${NAME}` that is not set; the message names the file and the field.

    """
    if not isinstance(path, (str, os.PathLike)):
        raise reject("path", path, "the path of a TOML file")
    return _file(os.fspath(path), environ)


def from_mapping(mapping: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read a mapping in the shape of the TOML file.

    Raises:
        ConfigurationError: as for `from_file`; the message names the field.

    """
    if not isinstance(mapping, Mapping):  # which may hold keys, whatever it is
        raise ConfigurationError(
            f"settings: a {type(mapping).__name__} is not allowed; expected a mapping", field="settings"
        )
    check_known(mapping, ("endpoints", *OPTIONS))
    endpoints = block_endpoints(mapping.get("endpoints", ()), environ)
    options = {name: _option(name, value, environ) for name, value in mapping.items() if name in OPTIONS}
    hidden = frozenset(name for name in options if mentions_variable(mapping[name]))
    return Settings(tuple(endpoints), options, hidden=hidden)


def _option(name: str, value: Any, environ: Mapping[str, str]) -> Any:
    if value is None:  # which TOML cannot say, and means what it means to the client
        return None
    check_kind(name, value, OPTIONS[name])
    if isinstance(value, Mapping):
        return _table(name, value, environ)
    return sourced_option(expand(value, environ, name), value, name)


def _table(name: str, table: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    keys, make = _TABLES[name]
    check_known(table, keys, name)
    for key, value in table.items():
        if value is not None:
            check_kind(f"{name}.{key}", value, keys[key])
    try:
        return make(**expand(table, environ, name))
    except ConfigurationError as error:
        problem = placed(error, name, hidden=mentions_variable(table))
    raise problem


def _at_home(path: str) -> str:
    """Put a home directory in the place of a tilde, where there is one."""
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # no such user, or one without a home: the file will not be found
        return path


#: Which options may be tables, with which keys, and what is made of them.
_TABLES: Dict[str, Tuple[Dict[str, str], Callable[..., Any]]] = {
    "timeout": (dict.fromkeys(Timeouts._fields, NUMBER), Timeouts),
    "max_retries": (RETRY_KEYS, FailoverRetry),
}


# The file


def _file(path: str, environ: Mapping[str, str], note: str = "") -> Settings:
    table = _parsed(path, note)
    try:
        found = from_mapping(table, environ)
    except ConfigurationError as error:
        problem = ConfigurationError(f"{path}: {error.message}", field=error.field, value=error.value)
    else:
        return _of_file(found, path)
    raise problem


def _of_file(found: Settings, path: str) -> Settings:
    """Return settings that know which file they, and the secrets in it, are from."""
    file = SettingsFile(path, _read_again)
    return found._replace(
        endpoints=tuple(map(file.mark_endpoint, found.endpoints)),
        options={name: file.mark_option(name, value) for name, value in found.options.items()},
        sources=dict.fromkeys(found.options, path),
    )


def _read_again(path: str) -> Tuple[Dict[str, Endpoint], Dict[str, Any]]:
    found = from_file(path)
    return {endpoint.name: endpoint for endpoint in found.endpoints}, found.options


def _parsed(path: str, note: str) -> Dict[str, Any]:
    """Read and parse a file; what it says may be secret, so no error carries it, not even as its context."""
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")  # some editors begin a file with a byte order mark
        table: Dict[str, Any] = toml.loads(text)
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte {error.start + 1})"
    except OSError as error:
        problem = f"cannot be read ({error.strerror or type(error).__name__})"
    except RecursionError:
        problem = "is nested too deeply"
    except ValueError as error:  # TOMLDecodeError, or a path with a NUL
        problem = f"is not TOML: {error}"
    else:
        return table
    raise ConfigurationError(f"{path}: {problem}{note}; expected a TOML file", field="path", value=path)
