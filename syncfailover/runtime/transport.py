"""How bytes get to an endpoint: one `HTTPAdapter` per endpoint, with all that never changes worked out once."""

from __future__ import annotations

import os
import weakref
from datetime import timedelta
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    MutableMapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
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
from .wire import POOLS

#: Idle connections kept per endpoint: a thread that finds none opens one, and one too many is closed again.
_POOL_SIZE = 128

_NO_TIME = timedelta(0)
_SHORTEST_SECRET = 6
_NO_SECRETS = ("bearer", "application/json")

#: Before 2.29 requests wrote chunks to the socket itself, past the pool and its timeouts.
_CHUNKS_BY_HAND = tuple(map(int, requests_version.split(".")[:2])) < (2, 29)


class EndpointResponse(requests.Response):
    """A response whose dearer parts (headers, cookies) are made when somebody looks."""

    def __init__(self, request: requests.PreparedRequest, raw: Any) -> None:
        self._content = False
        self._content_consumed = False
        self._next = None
        self._headers: Any = None
        self._cookies: Any = None
        self.status_code = raw.status
        self.reason = raw.reason
        self.raw = raw
        self.url = request.url or ""
        self.request = request
        self.history = []
        self.elapsed = _NO_TIME

    @property
    def headers(self) -> Any:
        """The reply's headers, case-insensitive."""
        if self._headers is None:
            self._headers = requests.structures.CaseInsensitiveDict(getattr(self.raw, "headers", {}))
        return self._headers

    @headers.setter
    def headers(self, value: Any) -> None:
        self._headers = value

    @property
    def encoding(self) -> Optional[str]:
        """The encoding that the headers name, or the one set by the caller."""
        if "_encoding" not in self.__dict__:
            self._encoding = requests.utils.get_encoding_from_headers(self.headers)
        return self._encoding

    @encoding.setter
    def encoding(self, value: Optional[str]) -> None:
        self._encoding = value

    @property
    def cookies(self) -> Any:
        """The cookies that this reply sets."""
        if self._cookies is None:
            self._cookies = requests.cookies.RequestsCookieJar()
            requests.cookies.extract_cookies_to_jar(self._cookies, self.request, self.raw)
        return self._cookies

    @cookies.setter
    def cookies(self, value: Any) -> None:
        self._cookies = value

    def take(self, body: bytes) -> None:
        """Hold the complete body, read elsewhere."""
        self._content = body
        self._content_consumed = True


class Target:
    """A path at an endpoint: its URL, and the headers that are the same every time."""

    __slots__ = ("headers", "path_url", "shown_url", "url")

    def __init__(self, url: str, query: str, headers: Dict[str, str]) -> None:
        parts = urlsplit(url)
        self.url = url + (("&" if "?" in url else "?") + query if query else "")
        #: Without the endpoint's own parameters, which may hold a key.
        self.shown_url = url
        self.path_url = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.headers = headers


class EndpointRequest(requests.PreparedRequest):
    """A prepared request whose path and query were worked out before."""

    path_url: str = ""

    @classmethod
    def to(cls, target: Target, method: str | None, headers: Any, body: Any = None) -> EndpointRequest:
        """Make a request that is ready to be sent to a target."""
        request = cls()
        request.method, request.url, request.path_url = method, target.url, target.path_url
        request.headers, request.body = headers, body
        return request


class _Fixed(NamedTuple):
    """What every request to an endpoint carries."""

    own: Dict[str, str]
    #: Those, and what any HTTP client says of itself.
    headers: Dict[str, str]
    secrets: Tuple[str, ...]


class EndpointTransport(HTTPAdapter):
    """The way to one endpoint: its pool of connections, its TLS, its proxy, its key."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(pool_connections=1, pool_maxsize=_POOL_SIZE, max_retries=Retry(0, read=False))
        self.endpoint = endpoint
        #: The endpoint's own parameters, encoded; they are added where nobody logs them.
        self.query = urlencode(endpoint.params)
        self._pool: Any = None
        self._proxies: Optional[Dict[str, str]] = None
        self._targets: Dict[str, Target] = {}
        self._fixed: Optional[_Fixed] = None
        process.register(self)

    # Requests, worked out once per path

    def target(self, path: str) -> Target:
        """Return URL and fixed headers for a path relative to the base URL."""
        found = self._targets.get(path)
        if found is None:
            url = self.endpoint.base_url + "/" + quote(path.lstrip("/"), safe="/?&=%:@!$'()*+,;~-._")
            found = Target(url, self.query, self._fixed_parts().headers)
            if len(self._targets) < 256:  # paths come from callers and may be without number
                self._targets[path] = found
        return found

    def probe_target(self) -> Target:
        """Return URL and fixed headers of the health check."""
        return Target(self.endpoint.probe_url(), self.query, self._fixed_parts().headers)

    @property
    def own_headers(self) -> Dict[str, str]:
        """The headers that belong to this endpoint, its key's among them; for nobody else."""
        return self._fixed_parts().own

    def authorize(self, headers: MutableMapping[str, Any]) -> Sequence[str]:
        """Put a key that has to be asked for into headers; return everything among them that must not be shown."""
        secrets = self._fixed_parts().secrets
        if not callable(self.endpoint.api_key):
            return secrets
        key = self.endpoint.key()
        name, value = self.endpoint.auth_header(key)
        if not name or not key:
            return secrets
        headers[name] = value
        return (*secrets, *worth_hiding(key))

    def _fixed_parts(self) -> _Fixed:
        if self._fixed is None:
            endpoint = self.endpoint
            own = dict(endpoint.headers)
            secrets = worth_hiding(*endpoint.params.values())
            if isinstance(endpoint.api_key, str):
                name, value = endpoint.auth_header(endpoint.api_key)
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
            self._fixed = _Fixed(own, dict(common), tuple(secrets))
        return self._fixed

    # What HTTPAdapter.send asks for on every call, answered from memory

    def get_connection_with_tls_context(self, request: Any, *_args: Any, **_kwargs: Any) -> Any:
        """Return the one pool of this endpoint (requests 2.32 and later)."""
        return self._pool if self._pool is not None else self._open_pool(request)

    def get_connection(self, url: str, proxies: Any = None) -> Any:
        """Return the one pool of this endpoint (requests before 2.32)."""
        return self._pool if self._pool is not None else self._open_pool(None)

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
        weakref.finalize(self, self.poolmanager.clear)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make a proxy manager whose connections know deadlines."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        self._pool = None
        super().close()

    def after_fork(self) -> None:
        """Leave the parent's sockets to the parent."""
        self.__setstate__(self.__getstate__())
        self._pool = None

    def _open_pool(self, request: Any) -> Any:
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
        self._proxies = (
            self._proxies if urlsplit(url).scheme == "http" else None
        )  # a tunnel needs no full URL
        self._pool = pool
        return pool


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

    def close(self) -> None:
        """Close all idle connections."""
        for transport in self:
            transport.close()


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
