"""Options that the openai package's `with_options` takes and ours does not: what to do instead."""

from __future__ import annotations

from typing import Collection

from .errors import ConfigurationError
from .settings_keys import hint

#: Each endpoint has its own of these.
INSTEAD = {
    "api_key": "give each Endpoint its own api_key=, which may be a callable",
    "base_url": "make an Endpoint for each base_url",
    "http_client": "give each Endpoint its own verify= and proxies=",
    "organization": "give the Endpoint headers={'OpenAI-Organization': '...'}",
    "project": "give the Endpoint headers={'OpenAI-Project': '...'}",
    "set_default_headers": "name the headers in default_headers=, with None for those to take back",
    "set_default_query": "name the parameters in default_query=, with None for those to take back",
}


def refused(name: str, ours: Collection[str], clients: Collection[str]) -> ConfigurationError:
    """Make the error for an option that `with_options` does not take.

    Args:
        name: the option.
        ours: those that it takes.
        clients: those that only a new client takes.

    """
    if name in INSTEAD:
        told = f"with_options does not change it: {INSTEAD[name]}"
    elif name in clients:
        told = f"with_options does not change it: it is one of FailoverClient(..., {name}=...)"
    else:
        told = f"with_options does not know it; {hint(name, ours)}"
    return ConfigurationError(f"{name}: {told}", field=name)
