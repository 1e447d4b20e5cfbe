"""What somebody else's library has prepared to send, made fit for each endpoint: its headers, its model, its fields.

The doors for existing code share it: they are given a request that was made for one place, and pass it on to another.
"""

from __future__ import annotations

import json
from typing import Any, Dict, MutableMapping, Optional, Tuple

from .endpoint import Endpoint
from .policy.received import REDIRECTED, Received
from .runtime.target import Target
from .runtime.transport import EndpointTransport

#: Where relative URLs live inside: a name that can never be looked up. (RFC 2606)
HOME = "http://syncfailover.invalid/"

#: Headers that belong to one origin and never travel to another.
_BOUND_TO_ORIGIN = ("authorization", "cookie", "proxy-authorization", "api-key", "x-api-key")
#: Where a JSON object begins, if not at once: nobody indents further.
_MARGIN = 64


def address(
    headers: MutableMapping[str, Any], endpoint: Endpoint, target: Target, origin: Tuple[str, str, int]
) -> None:
    """Take from headers what belongs to the origin that they were written for, and add what is the endpoint's own.

    Keys and cookies stay only for an endpoint at that very origin that has no key itself. The headers' names are in lower
    case, or their case does not matter.
    """
    keyless = endpoint.api_key is None and not endpoint.headers
    if not (keyless and endpoint.origin == origin):
        for name in _BOUND_TO_ORIGIN:
            headers.pop(name, None)
    for name, value in target.own.items():
        headers.pop(name.lower(), None)
        headers[name] = value


class JsonBody:
    """A request's body in memory; where it is a JSON object, with the model name and fields that each endpoint knows.

    Args:
        body: the bytes, or the text; None for nothing to look into.

    """

    def __init__(self, body: Any) -> None:
        #: The object; None where the body is none.
        self.payload = _json_object(body) if body else None
        model = None if self.payload is None else self.payload.get("model")
        #: The model that it names; None where it names none.
        self.model: Optional[str] = model if isinstance(model, str) else None

    def for_endpoint(self, model: Optional[str], transport: EndpointTransport) -> Optional[bytes]:
        """Return the body under the endpoint's name for the model, without fields that it refuses; None if unchanged."""
        payload = self.payload
        if payload is None or self.model is None:
            return None
        if model and model != self.model:
            payload = {**payload, "model": model}
        payload = transport.accepted(payload)
        return None if payload is self.payload else json.dumps(payload).encode()


def _json_object(body: Any) -> Optional[Dict[str, Any]]:
    if body[:_MARGIN].lstrip()[:1] not in (b"{", "{"):
        return None
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def kept_at_home(received: Received) -> Received:
    """Make a redirect a fault: it would be followed with the caller's headers and body, past every endpoint."""
    if received.fault is not None or received.status // 100 != 3 or not received.response.is_redirect:
        return received
    detail = f"HTTP {received.status}: redirects elsewhere, which is not followed; base_url should name the place itself"
    return Received(received.status, fault=REDIRECTED, detail=detail, secrets=received.secrets)
