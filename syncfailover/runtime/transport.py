"""How bytes get to an endpoint: one `HTTPAdapter` per endpoint, with all that never changes worked out once."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import weakref
from contextlib import suppress
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    MutableMapping,
    Optional,
    Sequence,
    Set,
)
from urllib.parse import quote, urlencode, urlsplit

import requests
from requests.__version__ import __version__ as requests_version
from requests.adapters import HTTPAdapter
from requests.auth import _basic_auth_str
from requests.utils import default_headers, get_environ_proxies, get_netrc_auth
from urllib3.util.retry import Retry

from .._version import __version__
from ..endpoint import Endpoint
from . import process
from .own_sockets import own_sockets
from .target import EndpointResponse, Fixed, Target
from .tls import give_context
from .wire import POOLS

_log = logging.getLogger(__name__)

#: Idle connections kept per endpoint: a thread that finds none opens one, and one too many is closed again.
_POOL_SIZE = 128

_SHORTEST_SECRET = 6
_NO_SECRETS = ("bearer", "application/json")
#: Characters of a path that are not quoted.
_LEFT_AS_IT_IS = "/?&=%:@!$'()*+,;~-._"

#: Before 2.29 requests wrote chunks to the socket itself, past the pool and its timeouts.
_CHUNKS_BY_HAND = tuple(map(int, requests_version.split(".")[:2])) < (2, 29)


class EndpointTransport(HTTPAdapter):
    """The way to one endpoint: its pool of connections, its TLS, its proxy, its key."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(pool_connections=1, pool_maxsize=_POOL_SIZE, max_retries=Retry(0, read=False))
        self.endpoint = endpoint
        #: The endpoint's own parameters, encoded; they are added where nobody logs them.
        self.query = urlencode(endpoint.params)
        self._pool: Any = None
        self._proxies: Optional[Dict[str, str]] = None
        self._targets: Dict[Any, Target] = {}
        self._fixed: Dict[str, Fixed] = {}
        self._left_out: Set[str] = set()
        self._inherited: List[Any] = []  # a parent's pool managers, with its idle connections
        process.register(self)

    # Requests, worked out once per path

    def target(self, path: str, model: Optional[str] = None) -> Target:
        """Return URL and fixed headers for a path relative to the base URL, asked for this endpoint's `model`."""
        return self._targets.get(path) or self._new_target(path, model)

    def _new_target(self, path: str, model: Optional[str]) -> Target:
        template = self.endpoint.call_path
        # Where each model has its own path, none is kept under the path alone.
        key = path if template is None else (path, model)
        found = self._targets.get(key)
        if found is None:
            place = quote(path.lstrip("/"), safe=_LEFT_AS_IT_IS)
            if template is not None and model:
                place = template.format(model=quote(model, safe=""), path=place)
            found = Target(path, f"{self.endpoint.base_url}/{place}", self.query, self._fixed_parts(path))
            if len(self._targets) < 256:  # paths and models come from callers and may be without number
                self._targets[key] = found
        return found

    def probe_target(self) -> Target:
        """Return URL and fixed headers of the health check."""
        path = self.endpoint.health_check_path
        return Target(path, self.endpoint.probe_url(), self.query, self._fixed_parts(path))

    def authorize(self, headers: MutableMapping[str, Any], target: Target) -> Sequence[str]:
        """Put a key that has to be asked for into headers; return everything among them that must not be shown."""
        if not callable(self.endpoint.api_key):
            return target.secrets
        key = self.endpoint.key()
        name, value = self.endpoint.auth_header(key, target.path)
        if not name or not key:
            return target.secrets
        headers[name] = value
        return (*target.secrets, *worth_hiding(key))

    def accepted(self, payload: Dict[str, Any]) -> Dict[str, Any]:
        """Return what of a payload this endpoint accepts; say once of each field that it is left out."""
        fields = self.endpoint.fields
        if fields is None or fields.issuperset(payload):
            return payload
        news = sorted(set(payload) - fields - self._left_out)
        if news and len(self._left_out) < 256:  # names come from callers
            self._left_out.update(news)
            shown = ", ".join(name if name.isprintable() else ascii(name) for name in news)
            _log.info("%s: not sent, for it does not accept them: %s", self.endpoint.name, shown)
        return {name: value for name, value in payload.items() if name in fields}

    def _fixed_parts(self, path: str) -> Fixed:
        scheme = self.endpoint.auth_scheme(path)
        if scheme not in self._fixed:
            endpoint = self.endpoint
            own = dict(endpoint.headers)
            secrets = worth_hiding(*endpoint.params.values())
            if isinstance(endpoint.api_key, str):
                name, value = endpoint.auth_header(endpoint.api_key, path)
                if name:
                    own[name] = value
                secrets.extend(worth_hiding(endpoint.api_key))
            elif endpoint.api_key is None and endpoint.auth == "bearer" and "Authorization" not in own:
                login = get_netrc_auth(endpoint.base_url)
                if login is not None:
                    own["Authorization"] = _basic_auth_str(*login)
                    secrets.extend(worth_hiding(login[1]))
            for value in own.values():  # an echo may leave "Bearer" out, or show one word of several
                secrets.extend(worth_hiding(value, *value.split()))
            common = default_headers()
            common["User-Agent"] = f"syncfailover/{__version__}"
            common.update(own)  # case-insensitively, so that none is sent twice
            self._fixed[scheme] = Fixed(own, dict(common), tuple(secrets))
        return self._fixed[scheme]

    # What HTTPAdapter.send asks for on every call, answered from memory

    def get_connection_with_tls_context(self, request: Any, *_args: Any, **_kwargs: Any) -> Any:
        """Return the one pool of this endpoint (requests 2.32 and later)."""
        return self._open_pool(request) if self._is_closed() else self._pool

    def get_connection(self, url: str, proxies: Any = None) -> Any:
        """Return the one pool of this endpoint (requests before 2.32)."""
        return self._open_pool(None) if self._is_closed() else self._pool

    def _is_closed(self) -> bool:
        """Tell whether there is no pool to take a connection from.

        The end of the program closes it without our doing, and so does the collector, before it calls the `__del__` of
        whoever holds the client: either may want to say goodbye.
        """
        return self._pool is None or self._pool.pool is None

    def cert_verify(self, *_args: Any) -> None:
        """Do nothing: the pool was made with its certificates."""

    def request_url(self, request: Any, proxies: Any) -> str:
        """Return what the request line asks for."""
        return super().request_url(request, self._proxies) if self._proxies else str(request.path_url)

    def build_response(self, req: Any, resp: Any) -> EndpointResponse:
        """Wrap urllib3's response."""
        return EndpointResponse(req, resp)

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a prepared request; a chunked one always through the pool, whose connections know deadlines."""
        chunked = request.body is not None and "Content-Length" not in request.headers
        if not (chunked and _CHUNKS_BY_HAND):
            return super().send(request, *args, **kwargs)
        raw = self.get_connection(request.url).urlopen(
            request.method,
            self.request_url(request, None),
            body=request.body,
            headers=request.headers,
            chunked=True,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            retries=self.max_retries,
            timeout=kwargs["timeout"],
        )
        return self.build_response(request, raw)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make a pool manager whose connections know deadlines and are closed when the program forgets to."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS
        weakref.finalize(self, self.poolmanager.clear).atexit = False  # `_close_all` does
        _all.add(self)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make a proxy manager whose connections know deadlines."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def drop_idle(self) -> None:
        """Close idle connections, and leave the pool to those who are just about to take one out of it."""
        waiting: Any = getattr(self._pool, "pool", None)
        idle: List[Any] = []
        with suppress(
            AttributeError, queue.Empty
        ):  # there is no pool, or it was closed meanwhile; all were idle
            while not idle or idle[-1] is not None:  # the last ones in are the first ones out
                idle.append(waiting.get(block=False))
        for connection in reversed(idle):
            if connection is not None:
                connection.close()
            with suppress(AttributeError, queue.Full):
                waiting.put(connection, block=False)

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        self.drop_idle()  # a manager only forgets its pool, and late in a program that does not close it
        self._pool = None
        self._close_inherited()
        super().close()

    def after_fork(self) -> None:
        """Leave the parent's sockets to the parent; our copies of them are closed when there is time."""
        self._inherited += left_to_parent(self)
        self._pool = None

    def _close_inherited(self) -> None:
        own_sockets.close_inherited()
        inherited, self._inherited = self._inherited, []
        for manager in inherited:
            manager.clear()

    def _open_pool(self, request: Any) -> Any:
        self._close_inherited()
        endpoint = self.endpoint
        url, verify = endpoint.base_url, _verify(endpoint)
        self._proxies = get_environ_proxies(url) if endpoint.proxies is None else endpoint.proxies
        if hasattr(HTTPAdapter, "get_connection_with_tls_context"):
            pool = super().get_connection_with_tls_context(
                request or _request(url), verify, proxies=self._proxies
            )
        else:
            pool = super().get_connection(url, self._proxies)
        super().cert_verify(pool, url, verify, None)
        give_context(pool, verify)
        if urlsplit(url).scheme != "http":  # a tunnel needs no full URL
            self._proxies = None
        self._pool = pool
        return pool


#: All of this process.
_all: weakref.WeakSet[EndpointTransport] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close idle connections when the program ends, though threads still use others."""
    process.entered()
    own_sockets.for_the_last_time = True
    for transport in process.living(_all):
        transport.close()


def left_to_parent(adapter: Any) -> List[Any]:
    """Give an `HTTPAdapter` of a forked child pools of its own; return the inherited managers, for `clear()`.

    Assigns only. Connections that a dropped pool closes by itself would be closed under locks that the parent may hold.
    """
    managers = [adapter.poolmanager, *adapter.proxy_manager.values()]
    for manager in managers:
        manager.pools.lock = process.renewed_lock()
        for pool in manager.pools._container.values():
            process.renew_locks(pool.pool)
    adapter.__setstate__(adapter.__getstate__())
    return managers


class Transports:
    """The transports of all endpoints of a registry."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._by_name = {endpoint.name: EndpointTransport(endpoint) for endpoint in endpoints}

    def __getitem__(self, name: str) -> EndpointTransport:
        """Return the transport of one endpoint."""
        return self._by_name[name]

    def __iter__(self) -> Iterator[EndpointTransport]:
        """Iterate over all transports."""
        return iter(self._by_name.values())

    def drop_idle(self) -> None:
        """Close all idle connections: whoever was at their other end has gone."""
        for transport in self:
            transport.drop_idle()

    def close(self) -> None:
        """Close all idle connections."""
        for transport in self:
            transport.close()

    def leave(self, _user: object) -> None:
        """Close them: they were this user's alone."""
        self.close()


def worth_hiding(*values: str) -> list[str]:
    """Return those that may be secrets: blotting out "a", or "Bearer", would leave no message readable."""
    return [value for value in values if len(value) >= _SHORTEST_SECRET and value.lower() not in _NO_SECRETS]


def _verify(endpoint: Endpoint) -> Any:
    """Return True, False or a CA bundle: the environment's where the endpoint leaves it open, as requests does."""
    if endpoint.verify is not True:
        return endpoint.verify
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


def _request(url: str) -> requests.PreparedRequest:
    """Make the least of a request that HTTPAdapter needs to choose a pool."""
    request = requests.PreparedRequest()
    request.url = url
    return request
