"""Connections with a deadline, TLS included, and faults told apart by how far the request got."""

import datetime as dt
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fleet import endpoints_of

from syncfailover import AllEndpointsFailed, Endpoint, FailoverClient, FailoverError, Timeouts
from syncfailover.testing import Blackhole, FakeUpstream, Hang, Reset, Trickle, Truncate, WrongLength


def certificate(folder: Path, name: str) -> Any:
    """Make a self-signed certificate for a host name; return a server's context and the path of the bundle."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime(2024, 1, 1)  # noqa: DTZ001 - old cryptography wants it naive
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    bundle, private = folder / f"{name}.pem", folder / f"{name}.key"
    bundle.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(bundle), str(private))
    return context, str(bundle)


def test_tls_works_and_a_wrong_name_is_never_sent_to(tmp_path: Path, upstreams: List[FakeUpstream]) -> None:
    """A certificate for another name ends before the request, so the key is not sent, and the call goes elsewhere."""
    right, right_bundle = certificate(tmp_path, "localhost")
    wrong, wrong_bundle = certificate(tmp_path, "elsewhere.test")
    with FakeUpstream("right", tls=right) as good, FakeUpstream("wrong", tls=wrong) as bad:
        endpoints = [
            Endpoint("bad", f"https://localhost:{bad.port}/v1", "k", verify=wrong_bundle),
            Endpoint("good", f"https://localhost:{good.port}/v1", "k", verify=right_bundle, priority=1),
        ]
        with FailoverClient(endpoints, model="m", probe_when="never") as client:
            reply = client.chat("Hi")
        assert reply.endpoint == "good"
        assert reply.attempts[0].outcome == "never_sent"
        assert reply.attempts[0].detail.startswith("TLS: ")
        assert bad.requests == []


@pytest.fixture
def never_accepts() -> Iterator[int]:
    """A port whose connections are never completed."""
    with FakeUpstream() as upstream:
        upstream.blackhole()
        yield upstream.port


def test_the_connect_timeout_bounds_all_addresses_together(never_accepts: int, monkeypatch: Any) -> None:
    """A host with several silent addresses does not take the connect timeout once for each."""
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", never_accepts))] * 4
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: addresses)
    endpoint = Endpoint("many", "http://many.test/v1")
    timeouts = Timeouts(total=5.0, connect=0.3)
    with FailoverClient([endpoint], model="m", probe_when="never", timeout=timeouts, max_retries=0) as client:
        began = time.monotonic()
        with pytest.raises(AllEndpointsFailed, match=r"connect timed out after 0\.3 s"):
            client.chat("Hi")
    assert time.monotonic() - began < 0.8


def test_a_name_that_does_not_resolve_is_never_sent(monkeypatch: Any) -> None:
    """DNS failure is told as such."""

    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with FailoverClient(
        [Endpoint("x", "http://x.test/v1")], model="m", probe_when="never", max_retries=0
    ) as client, pytest.raises(AllEndpointsFailed, match="x: DNS: Name or service not known") as caught:
        client.chat("Hi")
    assert not caught.value.attempts[0].maybe_billed


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Reset(), "reset"),
        (Truncate(), "truncated"),
        (Truncate(how="chunked"), "truncated"),
        (WrongLength(), "truncated"),
        (Trickle(interval_s=0.05), "silent"),
        (Blackhole(for_s=0.5), "reset"),
    ],
    ids=repr,
)
def test_faults_are_told_apart(
    fault: Any, outcome: str, upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """What may have been processed is marked so, and nothing that was never sent is."""
    upstreams[0].calls.always(fault)
    client = make_client(endpoints_of(upstreams[:1]), timeout=0.6, max_retries=0)
    with pytest.raises(Exception, match="a: ") as caught:
        client.chat("Hi")
    first = caught.value.attempts[0]
    assert (first.outcome, first.maybe_billed) == (outcome, True)


def test_a_close_in_place_of_a_reply_is_told(upstreams: List[FakeUpstream], make_client: Any) -> None:
    """In words, and not by what urllib3 1.26 tries, and hides, on its way."""
    upstreams[0].calls.always(Hang(seconds=0.0))
    client = make_client(endpoints_of(upstreams[:1]), max_retries=0)
    with pytest.raises(AllEndpointsFailed, match="a: connection closed without a reply"):
        client.chat("Hi")


def test_a_large_body_may_take_longer_than_connecting(make_client: Any) -> None:
    """Sending is bounded by the attempt, not by the connect timeout."""
    listener = socket.create_server(("127.0.0.1", 0))
    reply = b'{"choices": [{"message": {"content": "got it"}}]}'

    def slow_reader() -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, body = received.split(b"\r\n\r\n", 1)
        length = int(
            next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split()[
                1
            ]
        )
        left = length - len(body)
        threading.Event().wait(0.5)  # longer than the connect timeout below
        while left > 0:
            left -= len(connection.recv(1 << 20))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(reply), reply))
        connection.close()

    server = threading.Thread(target=slow_reader)
    server.start()
    endpoint = Endpoint("slow", f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    client = make_client([endpoint], timeout=Timeouts(total=10.0, connect=0.2))
    assert client.chat("x" * 20_000_000).text == "got it"
    server.join()
    listener.close()


def test_a_proxy_is_asked_and_a_tunnel_carries_no_key(
    upstreams: List[FakeUpstream], make_client: Any
) -> None:
    """A plain endpoint's proxy gets the whole URL; a TLS endpoint's proxy is asked to connect, without the key."""
    proxy = upstreams[0]
    plain = Endpoint("plain", "http://llm.test/v1", "sk-secret", proxies={"http": proxy.origin})
    with pytest.raises(FailoverError):
        make_client([plain], max_retries=0).chat("Hi")
    assert proxy.requests[0].path == "http://llm.test/v1/chat/completions"
    secret = Endpoint("tls", "https://llm.test/v1", "sk-secret", proxies={"https": proxy.origin})
    with pytest.raises(AllEndpointsFailed, match="proxy failed"):
        make_client([secret], max_retries=0).chat("Hi")
    asked = proxy.requests[1]
    assert (asked.method, asked.path, asked.header("authorization")) == ("CONNECT", "llm.test:443", None)
