"""A `requests.Session` whose relative URLs fail over; absolute ones are plain requests."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Tuple, Type, Union, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from .adapter import EndpointRegistry, FailoverAdapter
from .endpoint import Endpoint
from .errors import ClientClosed, ConfigurationError
from .openai_options import refused_by_client
from .pickling import pack_session
from .policy.snapshot import Snapshot
from .prepared import HOME
from .runtime import process
from .runtime.hedging import HedgeAfter
from .runtime.monitor import HealthMonitor
from .runtime.terms import OPTIONS, Terms
from .runtime.timeouts import Timeouts
from .runtime.transport import Transports, left_to_parent
from .state.address import shown
from .unpickling import reduced
from .validation import reject

if TYPE_CHECKING:
    from decimal import Decimal

#: The defaults of EndpointRegistry: any other value was asked for, and a shared registry refuses it.
_INTERVAL_S, _TIMEOUT_S = 2.0, 1.0


class FailoverSession(requests.Session):
    """A drop-in session: `session.post("/chat/completions", json=...)` goes to whichever endpoint can answer.

    Everything that a `requests.Session` can do stays; hooks, `raise_for_status()`, `stream=True` and `timeout=` mean
    what they mean there, but a `timeout` number bounds the whole call. The session's own keys and cookies are not
    sent to endpoints.

    Args:
        endpoints: a list of `Endpoint`, at least one, or an `EndpointRegistry` to share.
        timeout: seconds for a whole call where the request names none, or `Timeouts`.
        max_retries: further attempts after the first, or a urllib3 `Retry`.
        queue_timeout: seconds that a call may wait in line while nobody can serve it.
        hedge_after: "p95" or milliseconds; see `FailoverClient`.
        budget_usd: what all calls may cost.
        probe_interval: seconds between health checks of one endpoint.
        probe_timeout: seconds for one health check.
        probe_when: "always", "idle" or "never".
        transports: connections to share with a client.
        terms: those of a client, to share with its counters, in place of the five above.
        monitor: a monitor to share with a client; None makes one, which this session closes.
        options: as for `EndpointRegistry`, if `endpoints` is a list.

    Raises:
        ConfigurationError: an argument that cannot work.

    """

    def __init__(
        self,
        endpoints: Union[Iterable[Endpoint], EndpointRegistry] = (),
        *,
        timeout: Union[float, Timeouts] = 30.0,
        max_retries: Union[int, Retry] = 3,
        queue_timeout: float = 0.0,
        hedge_after: HedgeAfter = None,
        budget_usd: Union[float, Decimal, None] = None,
        probe_interval: float = _INTERVAL_S,
        probe_timeout: float = _TIMEOUT_S,
        probe_when: str = "always",
        transports: Optional[Transports] = None,
        terms: Optional[Terms] = None,
        monitor: Optional[HealthMonitor] = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.registry = registry_from(
            endpoints, probe_interval=probe_interval, probe_timeout=probe_timeout, **options
        )
        self._closed = False
        self._inherited: List[Any] = []  # a parent's pool managers, with connections for other URLs
        self._owns_terms = terms is None
        if terms is None:
            terms = Terms(
                self.registry,
                timeout=timeout,
                max_retries=max_retries,
                queue_timeout=queue_timeout,
                hedge_after=hedge_after,
                budget_usd=budget_usd,
            )
        self._door = FailoverAdapter(
            self.registry,
            HOME,
            probe_when=probe_when,
            terms=terms,
            transports=transports,
            monitor=monitor,
        )
        self.mount(HOME, self._door)
        process.register(self)

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle as configuration; see `pickling`."""
        return reduced(type(self), _unpickled, type(self), self.__getstate__())

    def __getstate__(self) -> Dict[str, Any]:
        """Pickle as configuration: what a `requests.Session` does, but for what may be a secret, and its adapters."""
        state: Dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call,unused-ignore]
        return pack_session(state, include_keys=self.registry.include_keys)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        """Have a registry, connections and a monitor of this process."""
        super().__setstate__(state)  # type: ignore[misc,unused-ignore]
        self._door = cast("FailoverAdapter", self.adapters[HOME])
        self.registry = cast("EndpointRegistry", self._door.registry)
        self._closed = self._owns_terms = False
        self._inherited = []
        process.register(self)

    def __deepcopy__(self, memo: Dict[int, Any]) -> FailoverSession:
        """Return another one; within a process keys need no leave to travel."""
        return _unpickled(type(self), deepcopy(super().__getstate__(), memo))  # type: ignore[no-untyped-call,unused-ignore]

    def __copy__(self) -> FailoverSession:
        """Return another one, as `deepcopy` does."""
        return deepcopy(self)

    def after_fork(self) -> None:
        """Give the cookies a lock of this process, and requests to other URLs connections."""
        setattr(self.cookies, "_cookies_lock", process.renewed_lock())  # noqa: B010 - not in requests' types
        for adapter in self.adapters.values():
            if isinstance(adapter, HTTPAdapter):
                self._inherited += left_to_parent(adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request; one with a relative URL is addressed to the failover loop.

        Raises:
            ConfigurationError: a URL that begins with `//`, which names a host but no scheme.

        """
        process.entered()  # before the cookies are looked at
        inherited, self._inherited = self._inherited, []
        for manager in inherited:
            manager.clear()
        url = request.url.decode() if isinstance(request.url, bytes) else str(request.url)
        if url.startswith("//"):
            raise reject("url", url, "a path like '/chat/completions', or an absolute URL with its scheme")
        if not urlsplit(url).scheme:
            request = copy(request)
            request.url = HOME + url.lstrip("/")
            if request.auth is None and self.auth is None:
                request.auth = _unchanged  # or requests would look the name up in .netrc, every time
        return super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request.

        Raises:
            ClientClosed: after `close()`.
            FailoverError: its subclass says what was tried; see `requests.Session.send` for the rest.

        """
        if self._closed:
            raise ClientClosed("this FailoverSession is closed")
        return super().send(request, **kwargs)

    def merge_environment_settings(
        self,
        url: Any,
        proxies: Any,
        stream: Any,
        verify: Any,
        cert: Any,
    ) -> Any:
        """Leave the environment's proxies and certificates to each endpoint, which looked them up once."""
        if not str(url).startswith(HOME):
            return super().merge_environment_settings(url, proxies, stream, verify, cert)
        stream = self.stream if stream is None else stream
        return {"proxies": {}, "stream": stream, "verify": True, "cert": None}

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def status(self) -> Snapshot:
        """Return how every endpoint is."""
        return self.registry.snapshot()

    def metrics(self) -> Any:
        """Return the counters of this session's calls; see `FailoverClient.metrics`."""
        return self._door.terms.metrics.read()

    def close(self) -> None:
        """End the monitor's threads and close idle connections; calling it again does nothing."""
        self._closed = True
        if self._owns_terms:
            self._door.terms.close()
        super().close()


def _unpickled(kind: Type[FailoverSession], state: Dict[str, Any]) -> FailoverSession:
    session = kind.__new__(kind)
    session.__setstate__(state)
    return session


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Authenticate by doing nothing: each endpoint brings its own key."""
    return request


def _unknown(option: str, known: Iterable[str]) -> ConfigurationError:
    """Make the error for an option that nobody takes, and suggest the nearest that somebody does."""
    packages = refused_by_client(option)
    if packages is not None:
        return packages
    from .settings_keys import hint  # noqa: PLC0415 - only a mistake needs it

    meant = hint(option, sorted({*known, *OPTIONS, "model", "probe_when"}))
    return ConfigurationError(f"{option}: is not known; {meant}", field=option, value=option)


def registry_from(
    endpoints: Union[Iterable[Endpoint], EndpointRegistry],
    *,
    probe_interval: float,
    probe_timeout: float,
    **options: Any,
) -> EndpointRegistry:
    """Return the registry to use: the caller's own, or a new one made of endpoints and options.

    Raises:
        ConfigurationError: an option that does not exist, or one together with a registry, which has its own.

    """
    known = EndpointRegistry.__init__.__kwdefaults__ or {}
    for name in options:
        if name not in known:
            raise _unknown(name, known)
    if not isinstance(endpoints, EndpointRegistry):
        return EndpointRegistry(
            endpoints, probe_interval=probe_interval, probe_timeout=probe_timeout, **options
        )
    if (probe_interval, probe_timeout) != (_INTERVAL_S, _TIMEOUT_S):
        options.update(probe_interval=probe_interval, probe_timeout=probe_timeout)
    for name, value in options.items():
        if value != getattr(endpoints, name, None):
            raise reject(
                name,
                shown(value) if name == "state" else value,
                "no such option here: the EndpointRegistry that was passed has its own",
            )
    return endpoints
