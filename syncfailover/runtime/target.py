"""What is sent to an endpoint and what comes back, as requests' own objects, with the dearer parts left out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Dict, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

import requests

_NO_TIME = timedelta(0)


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


class Fixed(NamedTuple):
    """What every request to an endpoint carries, where its key is sent in the same way."""

    own: Dict[str, str]
    #: Those, and what any HTTP client says of itself.
    headers: Dict[str, str]
    secrets: Tuple[str, ...]


class Target:
    """A path at an endpoint: its URL, and the headers that are the same every time."""

    __slots__ = ("headers", "own", "path", "path_url", "secrets", "shown_url", "url")

    def __init__(self, path: str, url: str, query: str, fixed: Fixed) -> None:
        parts = urlsplit(url)
        #: As the caller has it; it may decide how the key is sent.
        self.path = path
        self.url = url + (("&" if "?" in url else "?") + query if query else "")
        #: Without the endpoint's own parameters, which may hold a key.
        self.shown_url = url
        self.path_url = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        #: The headers that belong to this endpoint, its key's among them; for nobody else.
        self.own = fixed.own
        #: Those, and what any HTTP client says of itself.
        self.headers = fixed.headers
        #: What must not be shown of them.
        self.secrets = fixed.secrets


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
