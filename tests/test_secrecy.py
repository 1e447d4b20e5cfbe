"""What is taken for a secret."""

import pytest

from syncfailover import secrecy


@pytest.mark.parametrize(
    "name",
    "Authorization Proxy-Authorization api-key X-API-Key x-goog-api-key Ocp-Apim-Subscription-Key Cookie X-Auth-Token "
    "access_token client_secret password passwd X-Amz-Signature sig sas code PAT auth X-Session-Id jwt".split(),
)
def test_names_of_credentials(name: str) -> None:
    """These are taken for credentials, whatever they hold."""
    assert secrecy.is_credential(name, "x")


@pytest.mark.parametrize(
    "name",
    "HTTP-Referer X-Title api-version anthropic-version OpenAI-Organization User-Agent Accept X-Tenant region "
    "Accept-Encoding Connection X-Author decode passage sigma patch".split(),
)
def test_names_of_no_credentials(name: str) -> None:
    """These travel, unless what they hold looks like a credential or has the key in it."""
    assert not secrecy.is_credential(name, "our app")
    for value in ("Bearer x", "sk-or-x", "eyJhbGciOi", "Basic dXNlcjpwYXNz"):
        assert secrecy.is_credential(name, value)
    assert secrecy.is_credential(name, "tenant-k123", "k123")


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("http://proxy:3128", ""),
        ("proxy:3128", ""),
        ("sqlite:///var/lib/a@b", ""),
        ("redis://host:6379/0?protocol=3", ""),
        ("redis://:pw@host", "pw"),
        ("redis://user:pw@host", "pw"),
        ("http://token@proxy", "token"),
        ("http://token:@proxy", "token"),
        ("user:pw@proxy:3128", "pw"),
        ("redis://host?password=pw", "pw"),
        ("rediss://host?ssl_keyfile=/etc/k.pem", ""),
        ("unix:///run/redis.sock?password=pw", "pw"),
        ("redis://:p#w@host", "redis://:p#w@host"),
        ("redis://:p/w@host", "redis://:p/w@host"),
        ("http://[bad", "http://[bad"),
    ],
)
def test_secrets_of_urls(url: str, secret: str) -> None:
    """A password, a lone user name, a parameter named like one, and everything where it cannot be told."""
    assert secrecy.secret_of_url(url) == secret
