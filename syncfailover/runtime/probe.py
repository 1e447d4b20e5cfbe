"""How one probe is made: a GET of the health path, with a deadline for all of it."""

from __future__ import annotations

from functools import partial
from time import monotonic

from ..endpoint import Endpoint
from ..policy.health import ProbeResult, judge
from .attempt_clock import AttemptClock
from .exchange import exchange, key_unavailable, whole
from .target import EndpointRequest
from .transport import Transports

#: Bytes of a probe's answer at most: a long model list fits, an endless body does not.
_LARGEST_ANSWER = 4 * 1024 * 1024
_read = partial(whole, largest=_LARGEST_ANSWER)


class HttpProbe:
    """Asks an endpoint's health path, with its key and over the connections that its calls use."""

    def __init__(self, transports: Transports) -> None:
        self._transports = transports

    def __call__(self, endpoint: Endpoint, timeout_s: float) -> ProbeResult:
        """Probe once; `timeout_s` bounds connecting, sending and reading together. Raises nothing of the wire."""
        transport = self._transports[endpoint.name]
        target = transport.probe_target()
        headers = dict(target.headers)
        began = monotonic()
        try:
            secrets = transport.authorize(headers, target)
        except Exception as error:  # noqa: BLE001 - the caller's callable may raise anything
            return ProbeResult(endpoint.name, alive=False, detail=key_unavailable(error).detail)
        request = EndpointRequest.to(target, "GET", headers)
        clock = AttemptClock(timeout_s, timeout_s)
        received = exchange(transport, request, clock, secrets, _read)
        if received.fault is not None:
            return ProbeResult(endpoint.name, alive=False, detail=received.shown(received.detail))
        return judge(endpoint.name, received.status, (monotonic() - began) * 1000.0)
