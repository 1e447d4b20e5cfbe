"""`client.embeddings`."""

from __future__ import annotations

from typing import Any, Optional, Sequence, Union

from ..completion.reply import ApiReply
from .asking import Extra, Part, Timeout, one_or_more, replied, whole_payload


class Embeddings(Part):
    """`client.embeddings`."""

    _written = "client.embeddings"
    _uncovered = frozenset({"acreate"})

    def create(
        self,
        *,
        input: Union[str, Sequence[Any]],  # noqa: A002 - the field's name in the API
        model: Optional[str] = None,
        timeout: Timeout = None,
        extra_headers: Extra = None,
        extra_query: Extra = None,
        extra_body: Extra = None,
        **params: Any,
    ) -> ApiReply:
        """Return embeddings of a text or of a list of texts; see `Chat.__call__` for the other arguments."""
        caller = self._caller
        payload = whole_payload({"input": one_or_more("input", input), **params}, extra_body)
        extras = caller.extras_with(extra_headers, extra_query)
        done = caller.post("embeddings", model, timeout, payload, None, extras)
        reply: ApiReply = replied(ApiReply, done)
        return reply
