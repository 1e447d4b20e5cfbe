"""What these tests talk to an upstream with: a requests session, and a call that opens its own connection."""

from __future__ import annotations

import http.client
import json
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

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

    def events(self) -> List[Tuple[Optional[str], str]]:
        """Parse the body as a stream: name and data of each event, as lines with a space after the colon have them."""
        found = []
        for block in self.body.decode().split("\n\n")[:-1]:
            lines = [line.partition(": ")[::2] for line in block.split("\n")]
            name = next((value for field, value in lines if field == "event"), None)
            found.append((name, "\n".join(value for field, value in lines if field == "data")))
        return found

    def chunks(self) -> List[Any]:
        """Parse the data of each event but ``[DONE]``, which has to be the last."""
        data = [text for _name, text in self.events()]
        assert "[DONE]" not in data[:-1]
        return [json.loads(text) for text in data if text != "[DONE]"]


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
