"""Health shared by the processes of a fleet, over Redis."""

from __future__ import annotations

from typing import Any

from .store import Store


class RedisStore(Store):
    """A Redis that all processes of a fleet use."""

    def __init__(self, where: Any, prefix: str = "syncfailover") -> None:
        raise NotImplementedError
