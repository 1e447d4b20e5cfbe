"""HTTPS with the right name and with a wrong one."""

import datetime as dt
import ipaddress
import ssl

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from syncfailover.testing import FakeUpstream, Reset


def make_certificate(folder, name, san):
    """Write a self-signed certificate with its key, for an hour, and return the path."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(san), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """One certificate for this host, one for another name."""
    folder = tmp_path_factory.mktemp("tls")
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return {
        "here": make_certificate(folder, "localhost", here),
        "elsewhere": make_certificate(folder, "elsewhere", [x509.DNSName("elsewhere.example")]),
    }


def serving(path):
    """Make a server's context of a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_https_works_with_the_right_name(certificates, session):
    """An upstream with a context speaks HTTPS over a kept connection, can reset it, and dies as any other."""
    with FakeUpstream(tls=serving(certificates["here"])) as upstream:
        assert upstream.url == f"https://127.0.0.1:{upstream.port}/v1"
        session.verify = str(certificates["here"])
        assert session.post(upstream.url + "/chat/completions", json={}).ok
        assert session.get(upstream.origin + "/health").json() == {"status": "ok"}
        assert upstream.connections == 1
        upstream.script(Reset())
        with pytest.raises(requests.ConnectionError):
            session.post(upstream.url + "/chat/completions", json={})
        upstream.kill()
        with pytest.raises(requests.ConnectionError):
            session.get(upstream.origin + "/health")


def test_a_wrong_name_is_a_tls_error(certificates, session):
    """A certificate for another name fails in the client, and the upstream sees a connection but no request."""
    with FakeUpstream(tls=serving(certificates["elsewhere"])) as upstream:
        session.verify = str(certificates["elsewhere"])
        with pytest.raises(requests.exceptions.SSLError):
            session.get(upstream.origin + "/health")
        assert upstream.wait_for(lambda: upstream.connections >= 1)
        assert upstream.requests == []


def test_plain_text_to_a_tls_port_gets_no_answer(certificates, session):
    """A client that forgot the s in https is disconnected."""
    with FakeUpstream(tls=serving(certificates["here"])) as upstream, pytest.raises(requests.ConnectionError):
        session.get(f"http://127.0.0.1:{upstream.port}/health")
