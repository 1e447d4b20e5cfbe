"""The version, alone in a file so that building the package imports nothing."""

from __future__ import annotations

__version__ = "0.1.0"
