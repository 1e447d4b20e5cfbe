"""The `check` command: which endpoints to probe, what the probes found, and how that is told."""

import argparse
import json
import os
import re
import sys
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .. import providers, settings
from ..adapter import EndpointRegistry
from ..endpoint import Endpoint
from ..errors import ConfigurationError
from ..policy.health import ProbeResult
from ..runtime.monitor import HealthMonitor
from ..settings_environ import CONFIG
from ..text_table import Cell, Column, Line, glyphs_for, plain, table, width_of
from .arguments import add_config, found_settings, number_from


def add_to(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "check",
        help="probe all endpoints once; for cron and Nagios",
        description="Probe all endpoints once, in parallel, and say in the first line how it came out. Without a URL, "
        "the endpoints are those of --config, or of the environment. Keys are never taken from the command line, since "
        "everybody can read it.",
        epilog="Exit codes: 0 all endpoints are up (OK: ...), 1 any is down (DOWN: ...), 2 wrong usage. Nagios reads "
        "them as OK, WARNING and CRITICAL. For CRITICAL when any is down: syncfailover check ... || exit 2",
    )
    parser.set_defaults(command=_check)
    add = parser.add_argument
    add("url", nargs="*", metavar="[NAME=]URL", help="a base URL, such as https://api.example.com/v1")
    add_config(parser)
    add(
        "--provider",
        choices=sorted(settings.KEY_VARIABLES),
        help="probe the URLs as this provider's; or only its own keys",
    )
    add("--path", help="health path: from the host's root with a leading slash, else below the base URL")
    add("--timeout", type=number_from(0.01), default=1.0, help="seconds for one probe (default: %(default)g)")
    add("--key-env", metavar="VAR", help="the environment variable that holds the key to probe with")
    add("--json", action="store_true", help="print JSON instead of a table")


def _check(arguments: argparse.Namespace) -> int:
    endpoints = _endpoints(arguments)
    checks = check_all(endpoints, timeout_s=arguments.timeout)
    sys.stdout.write((as_json(checks) if arguments.json else as_table(checks)) + "\n")
    return 0 if all(check.up for check in checks) else 1


class Check(NamedTuple):
    """An endpoint, and what its probe found."""

    endpoint: Endpoint
    result: ProbeResult

    @property
    def up(self) -> bool:
        """Whether it would serve a call: a host that refuses the key will not."""
        return self.result.alive and not self.result.key_refused


def check_all(endpoints: Sequence[Endpoint], *, timeout_s: float) -> List[Check]:
    """Probe all endpoints once, in parallel; none takes longer than `timeout_s`."""
    registry = EndpointRegistry(endpoints, probe_timeout=timeout_s)
    results = HealthMonitor(registry, probe_when="never").probe_all()
    return [Check(endpoint, result) for endpoint, result in zip(registry.endpoints, results)]


# What is probed


def _endpoints(arguments: argparse.Namespace) -> List[Endpoint]:
    provider, variable, path = arguments.provider, arguments.key_env, arguments.path
    if arguments.config is not None and (arguments.url or provider or variable):
        raise ConfigurationError("--config: names the endpoints; leave out URLs, --provider and --key-env")
    if arguments.url:
        return endpoints_at(arguments.url, provider, path, variable)
    if provider is not None:
        found = settings.from_env(_environment_of(provider, variable))
    elif variable is None:
        found = found_settings(arguments.config, "name a URL to check that")
    else:
        raise ConfigurationError("--key-env: whose key? name a URL, or a --provider")
    return [endpoint.replace(**_path_option(path)) for endpoint in found.endpoints]


def endpoints_at(
    urls: Sequence[str], provider: Optional[str], path: Optional[str], key_variable: Optional[str]
) -> List[Endpoint]:
    """Make an endpoint of each `url` or `name=url`, the provider's if one is named; keys only from `key_variable`."""
    key = None if key_variable is None else _key_in(key_variable)
    endpoints: List[Endpoint] = []
    for word in urls:
        name, url = _name_and_url(word, [endpoint.name for endpoint in endpoints])
        options = {"name": name, "base_url": url, **_path_option(path)}
        if provider is None:
            endpoints.append(Endpoint(api_key=key, **options))
        else:
            endpoints.extend(providers.from_keys(provider, [key], **options))
    return endpoints


def _environment_of(provider: str, key_variable: Optional[str]) -> Dict[str, str]:
    """Return the environment with this provider's keys alone, or with what `key_variable` holds as its only ones."""
    own = settings.KEY_VARIABLES[provider]
    hidden = {name for names in settings.KEY_VARIABLES.values() for name in names} | {CONFIG}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    if key_variable is not None:
        return {**environment, own[0]: _key_in(key_variable)}
    keys = {name: os.environ[name] for name in own if os.environ.get(name, "").strip(", ")}
    if not keys:
        raise ConfigurationError(f"nothing to check: name a URL, or set {' or '.join(own)}")
    return {**environment, **keys}


def _key_in(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigurationError(f"--key-env: the environment variable {variable} is not set")
    return key


def _path_option(path: Optional[str]) -> Dict[str, Any]:
    """Leave the path out where none is given: each provider has its own."""
    return {} if path is None else {"health_check_path": path}


def _name_and_url(word: str, taken: Collection[str]) -> Tuple[str, str]:
    """Split `name=url`; a URL without a name goes by host and port, or by itself where that is taken."""
    name, equals, url = word.partition("=")
    if equals and "://" not in name:
        return name, url
    host = re.split("[/?#]", word.partition("://")[2])[0].rpartition("@")[2]
    return (host if host and host not in taken else word), word


# How it is told


def summary(checks: Sequence[Check]) -> str:
    """Say it in one line; monitoring systems show the first line of the output."""
    down = [check for check in checks if not check.up]
    if not down:
        return f"OK: {len(checks)} of {len(checks)} endpoints up"
    which = ", ".join(f"{check.endpoint.name}: {check.result.detail}" for check in down)
    return f"DOWN: {len(down)} of {len(checks)} endpoints down ({which})"


def as_table(checks: Sequence[Check]) -> str:
    """Write the summary and a table, as wide as stdout takes."""
    columns = (
        Column("name", 4),
        Column("status"),
        Column("HTTP", rank=1),
        Column("latency", align=">", rank=2),
        Column("detail", 12, rank=3, elastic=True),
    )
    ellipsis = glyphs_for(sys.stdout).ellipsis
    lines = table(columns, [_row(check) for check in checks], width_of(sys.stdout), ellipsis)
    return "\n".join([summary(checks), "", *map(plain, lines)])


def _row(check: Check) -> Line:
    result = check.result
    status = "-" if result.status is None else str(result.status)
    latency = "-" if result.latency_ms is None else f"{result.latency_ms:.0f} ms"
    texts = (result.endpoint, "up" if check.up else "down", status, latency, result.detail)
    return [Cell(text) for text in texts]


def as_json(checks: Sequence[Check]) -> str:
    """Write everything that the probes found."""
    told = {
        "up": all(check.up for check in checks),
        "summary": summary(checks),
        "endpoints": [
            {"url": check.endpoint.probe_url(), "up": check.up, **check.result._asdict()} for check in checks
        ],
    }
    return json.dumps(told, indent=2)
