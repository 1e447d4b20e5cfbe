"""What an endpoint said, as a response of the library that the caller has: httpx, or httpx2."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Sequence, Tuple
from urllib.parse import quote

from ..completion.chunk import chunk_of
from ..errors import FailoverError
from ..events import AttemptRecord
from ..policy.error_body import error_in
from ..policy.outcome import Outcome
from ..policy.received import Received

#: Headers of a reply that are no longer true, since its body was decoded; and the cookies, which are the endpoint's.
_NOT_HANDED_ON = frozenset(
    {"content-encoding", "content-length", "set-cookie", "transfer-encoding", "x-should-retry"}
)
#: The header that names the endpoint, and what of a name a header can hold.
_BY = "x-syncfailover-endpoint"
_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_DO_NOT_RETRY = ("x-should-retry", "false")
_AS_JSON = ("content-type", "application/json")
_AS_EVENTS = ("content-type", "text/event-stream")

Headers = List[Tuple[str, str]]


class Answer:
    """What an endpoint said, as a response of the caller's library."""

    def __init__(self, lib: Any, received: Any, ledger: Sequence[AttemptRecord]) -> None:
        self._lib = lib
        self._ledger = ledger
        self._received: Received = received
        raw = received.response.raw
        self._reason = raw.reason
        self._headers: Headers = [
            (name, value) for name, value in raw.headers.items() if name.lower() not in _NOT_HANDED_ON
        ]
        self._headers.append((_BY, quote(ledger[-1].endpoint, safe=_SAFE)))

    def made(self, stream: Any, status: Optional[int] = None) -> Any:
        """Make the response, whose body is a stream of the library's kind."""
        extensions = {"http_version": b"HTTP/1.1", "syncfailover": self._ledger}
        if status is None and self._reason:
            extensions["reason_phrase"] = self._reason.encode("latin-1", "replace")
        status = self._received.status if status is None else status
        return self._lib.Response(status, headers=self._headers, stream=stream, extensions=extensions)

    def whole(self) -> Any:
        """Make a good reply that is all there."""
        return self.made(self._lib.ByteStream(self._received.body or b""))

    def as_events(self) -> Any:
        """Make a stream of a chat that came whole, since whoever asked for a stream reads nothing else."""
        self._say_type(_AS_EVENTS)
        chunk = json.dumps(chunk_of(self._received.payload)).encode()
        return self.made(self._lib.ByteStream(b"data: " + chunk + b"\n\ndata: [DONE]\n\n"))

    def refused(self, outcome: Outcome, error: FailoverError) -> Any:
        """Make an error of what came, with the status that it means, and without what it echoes of our secrets."""
        received = self._received
        self._headers.append(_DO_NOT_RETRY)
        if received.status >= 300:
            return self.made(self._lib.ByteStream(received.blotted(received.body or b"")))
        status = outcome.status if outcome.status and outcome.status >= 400 else 502
        self._say_type(_AS_JSON)
        body = json.dumps({"error": _error_object(received.payload, outcome, error)}).encode()
        return self.made(self._lib.ByteStream(received.blotted(body)), status)

    def _say_type(self, header: Tuple[str, str]) -> None:
        self._headers = [(name, value) for name, value in self._headers if name.lower() != header[0]]
        self._headers.append(header)


def unserved(lib: Any, model: str) -> Any:
    """Answer as OpenAI does to a model that it does not know."""
    message = f"The model {model!r} is served by none of the endpoints."
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    body = lib.ByteStream(json.dumps({"error": error}).encode())
    return lib.Response(404, headers=[_AS_JSON, _DO_NOT_RETRY], stream=body, extensions={"syncfailover": ()})


def _error_object(payload: Any, outcome: Outcome, error: FailoverError) -> Dict[str, Any]:
    """Return the provider's error object, or the like of it."""
    found = error_in(payload)
    if found is not None:
        said = payload[0]["error"] if isinstance(payload, list) else payload.get("error") or payload
        if isinstance(said, dict):
            return {"message": found.message, "type": None, "param": None, "code": found.code, **said}
    return {"message": str(error), "type": outcome.rule.name, "param": None, "code": outcome.code}
