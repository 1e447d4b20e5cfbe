"""`client.models`."""

from __future__ import annotations

from ..completion.reply import ModelList
from .asking import Extra, Part, Timeout, replied


class Models(Part):
    """`client.models`."""

    _written = "client.models"
    _uncovered = frozenset({"delete", "retrieve"})

    def list(
        self, *, timeout: Timeout = None, extra_headers: Extra = None, extra_query: Extra = None
    ) -> ModelList:
        """Return the model list of whichever endpoint answers; iterate over it, or over its `.data`."""
        extras = self._caller.extras_with(extra_headers, extra_query)
        done = self._caller.get("models", timeout, extras)
        models: ModelList = replied(ModelList, done)
        return models
