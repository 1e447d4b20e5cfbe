"""What these tests talk to an upstream with: a requests session, and a call that opens its own connection."""

from __future__ import annotations

import http.client
import json
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional

import pytest
import requests

from syncfailover.testing import FakeUpstream

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hello"}]}


class Reply(NamedTuple):
    """A response, read to its end."""

    status: int
    headers: Dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)


def call(
    upstream: FakeUpstream,
    path: str = "/v1/chat/completions",
    *,
    payload: Any = CHAT,
    method: Optional[str] = None,
    **headers: str,
) -> Reply:
    """Send one request on a connection of its own: POST when there is something to send, else GET."""
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    try:
        body = None if payload is None else json.dumps(payload)
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        response = connection.getresponse()
        return Reply(response.status, dict(response.headers), response.read())
    finally:
        connection.close()


@pytest.fixture
def ask(fake_upstream: FakeUpstream) -> Callable[..., Reply]:
    """Send one request to the test's own upstream, or to the one given."""

    def send(
        path: str = "/v1/chat/completions", *, to: FakeUpstream = fake_upstream, **options: Any
    ) -> Reply:
        return call(to, path, **options)

    return send


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """Open a requests session that knows of no proxy."""
    with requests.Session() as session:
        session.trust_env = False
        yield session
