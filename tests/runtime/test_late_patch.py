"""A program that is patched after the package was imported, as gevent would do it; `tests/servers` has gevent itself."""

import ssl
import threading
from functools import partial
from pathlib import Path
from typing import Any, Iterator

import pytest
from runtime.test_wire import certificate
from urllib3.util import ssl_ as known_to_urllib3

from syncfailover import AllEndpointsFailed, Endpoint
from syncfailover.runtime.once import Once
from syncfailover.testing import FakeUpstream


def test_locks_made_before_are_replaced(make_client: Any, monkeypatch: Any) -> None:
    """Of a client and of what a module has: each uses those that the patch brings, from its next call on."""
    client = make_client(probe_when="always")
    once = Once(lambda: "made", lambda _thing: False)
    before = [client.registry._lock, client._monitor._lock, client._caller.terms.metrics._lock, once._lock]
    monkeypatch.setattr(threading, "Lock", partial(threading.Lock))
    assert (client.chat("Hi").text, once.get()) == ("Hello from upstream-1.", "made")
    after = [client.registry._lock, client._monitor._lock, client._caller.terms.metrics._lock, once._lock]
    assert not {id(lock) for lock in before} & {id(lock) for lock in after}
    assert client._monitor.running


@pytest.fixture
def outdated(monkeypatch: Any) -> None:
    """A urllib3 that knows another class of contexts than there is now, of which it cannot make one."""
    monkeypatch.setattr(known_to_urllib3, "SSLContext", ssl.SSLContext.__mro__[1])


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Any]:
    """An upstream on `localhost` that speaks TLS, with the file of whom it is certified by."""
    context, authority = certificate(tmp_path, "localhost")
    with FakeUpstream(tls=context) as upstream:
        yield upstream, authority


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("verify", ["its authority", False])
def test_tls_works_where_urllib3_is_outdated(verify: Any, outdated: None, tls: Any, make_client: Any) -> None:
    """One context serves all connections of an endpoint."""
    upstream, authority = tls
    url = upstream.url.replace("127.0.0.1", "localhost")
    client = make_client([Endpoint("a", url, verify=verify and authority)])
    assert client.chat("Hi").text
    pool = client._caller.transports["a"]._pool
    assert isinstance(pool.conn_kw["ssl_context"], ssl.SSLContext)
    client._caller.transports["a"].close()
    assert client.chat("Hi").text
    assert upstream.connections == 2


@pytest.mark.parametrize("trouble", ["another name", "another authority", "the public authorities"])
def test_certificates_are_still_checked(
    trouble: str, outdated: None, tls: Any, make_client: Any, tmp_path: Path
) -> None:
    """A wrong name and a wrong authority are found out before anything is sent."""
    upstream, authority = tls
    verify: Any = authority
    if trouble != "another name":
        verify = trouble == "the public authorities" or certificate(tmp_path, "elsewhere")[1]
    url = upstream.url if trouble == "another name" else upstream.url.replace("127.0.0.1", "localhost")
    client = make_client([Endpoint("a", url, verify=verify)], max_retries=0)
    with pytest.raises(AllEndpointsFailed, match="TLS: ") as caught:
        client.chat("Hi")
    assert caught.value.attempts[0].outcome == "never_sent"
    assert upstream.requests == []
