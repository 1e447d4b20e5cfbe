"""Settings: environment, TOML file or mapping -> endpoints and options of a client."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, NamedTuple, Tuple, Union

from .endpoint import Endpoint


class Settings(NamedTuple):
    """What a client is made of: `FailoverClient(endpoints, **options)`."""

    endpoints: Tuple[Endpoint, ...]
    options: Dict[str, Any]


def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment."""
    raise NotImplementedError


def from_file(path: Union[str, os.PathLike[str]], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read a TOML file."""
    raise NotImplementedError


def from_mapping(mapping: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read a mapping in the shape of the TOML file."""
    raise NotImplementedError
