"""The `check` command: which endpoints to probe, what the probes found, and how that is told."""

import json
import os
import re
import sys
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import providers
from .adapter import EndpointRegistry
from .endpoint import Endpoint
from .errors import ConfigurationError
from .policy.health import ProbeResult
from .runtime.monitor import HealthMonitor
from .text_table import Cell, Column, Line, glyphs_for, plain, table, width_of

#: Where each provider's keys are looked for, separated by commas.
KEY_VARIABLES = {
    "holysheep": "HOLYSHEEP_API_KEYS",
    "openai": "OPENAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
}


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


def endpoints_at(
    urls: Sequence[str], provider: Optional[str], path: Optional[str], key_variable: Optional[str]
) -> List[Endpoint]:
    """Make an endpoint of each `url` or `name=url`, the provider's if one is named; keys only from `key_variable`."""
    key = None
    if key_variable is not None:
        key = os.environ.get(key_variable, "").strip()
        if not key:
            raise ConfigurationError(f"--key-env: the environment variable {key_variable} is not set")
    endpoints: List[Endpoint] = []
    for word in urls:
        name, url = _name_and_url(word, [endpoint.name for endpoint in endpoints])
        options = {"name": name, "base_url": url, **_path_option(path)}
        if provider is None:
            endpoints.append(Endpoint(api_key=key, **options))
        else:
            endpoints.extend(providers.from_keys(provider, [key], **options))
    return endpoints


def endpoints_of_environment(
    provider: Optional[str], path: Optional[str], key_variable: Optional[str]
) -> List[Endpoint]:
    """Make an endpoint of each key in the environment, of one provider or of all; there has to be one."""
    if provider is not None:
        variables = {provider: key_variable or KEY_VARIABLES[provider]}
    elif key_variable is None:
        variables = KEY_VARIABLES
    else:
        raise ConfigurationError("--key-env: whose key? name a URL, or a --provider")
    endpoints: List[Endpoint] = []
    for name, variable in variables.items():
        keys = [key.strip() for key in os.environ.get(variable, "").split(",") if key.strip()]
        if keys:
            endpoints.extend(providers.from_keys(name, keys, **_path_option(path)))
    if not endpoints:
        raise ConfigurationError(f"nothing to check: name a URL, or set {' or '.join(variables.values())}")
    return endpoints


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
