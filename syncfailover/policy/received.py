"""What a door brings back from one attempt."""

from __future__ import annotations

import json
from typing import Any, Mapping, Sequence

# Faults: how a door says that no complete reply came.
NEVER_SENT = "never_sent"  # DNS, refused, TLS, connect timeout: the server has not seen the request
SILENT = "silent"  # no reply within the attempt's time
RESET = "reset"  # the connection broke before the first byte of a reply
TRUNCATED = "truncated"  # the reply began and did not end
UNREPEATABLE = "unrepeatable"  # any of these or a refusal, but the body cannot be sent twice
REDIRECTED = "redirected"  # to another origin, where nobody may see the request
LATE = "late"  # a stream was open, and brought no content in its time
BROKEN_OFF = "broken_off"  # a stream ended before its first content
INTERRUPTED = "interrupted"  # a stream ended after content, and before it was whole
OVERDUE = "overdue"  # a stream went on when the whole call's time was over

#: Characters of a server's text that are shown.
_LONGEST_TEXT = 400


class Received:
    """What a door brings back from one attempt: a reply, or a fault with its description."""

    __slots__ = ("body", "detail", "fault", "headers", "payload", "response", "secrets", "status", "stream")

    def __init__(
        self,
        status: int = 0,
        headers: Mapping[str, str] = {},
        body: bytes | None = None,
        payload: Any = None,
        *,
        response: Any = None,
        fault: str | None = None,
        detail: str = "",
        secrets: Sequence[str] = (),
        stream: Any = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        #: The body as JSON; None where it is none.
        self.payload = payload
        #: The door's own object for the reply.
        self.response = response
        self.fault = fault
        self.detail = detail
        #: What was sent along that nobody may read: keys, and headers that may hold one.
        self.secrets = secrets
        #: The door's own object for a stream whose first content has come, and whose end has not; None for a reply
        #: that is whole.
        self.stream = stream

    def shown(self, text: str) -> str:
        """Make a server's text fit to show: on one line, not too long, what it echoed of our secrets blotted out."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        text = "".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST_TEXT])
        return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."

    def blotted(self, body: bytes) -> bytes:
        """Blot out of a body what it echoes of our secrets, as they are and as JSON writes them."""
        for secret in self.secrets:
            for form in {secret, json.dumps(secret)[1:-1]}:
                body = body.replace(form.encode(), b"***")
        return body
