"""What may be a secret, told by its name or its shape: what may leave the process unasked is decided here alone.

It errs on the safe side: who loses nothing by being taken for a secret is taken for one.
"""

from __future__ import annotations

import re
from typing import Optional
from urllib.parse import parse_qsl, urlsplit

#: Names of headers and parameters that carry a credential: parts of words, and words.
_CREDENTIAL = re.compile(
    r"key|token|secret|cookie|passw|passphrase|credential|signature|authori[sz]|authentic|bearer|jwt|session"
    r"|(?<![a-z])(?:auth|code|pass|pat|pwd|sas|sid|sig)(?![a-z])",
    re.IGNORECASE,
)
#: Names of what only says where a credential is.
_PLACE = re.compile(r"(?:file|path)$", re.IGNORECASE)
#: How a value begins that is a credential, whatever its name.
_TELLTALE = re.compile(r"\s*(?:(?i:bearer)\s|(?i:basic)\s+[A-Za-z0-9+/]{8,}=*\s*$|sk-|eyJ)")
#: Words beside a secret that are none.
_SCHEMES = frozenset({"apikey", "basic", "bearer", "digest", "token"})
#: Characters; what is shorter protects nothing.
_SHORTEST = 6
#: `${NAME}` in settings.
_VARIABLE = re.compile(r"\$\{[^{}]*\}")


def is_credential(name: str, value: str, key: Optional[str] = None) -> bool:
    """Tell whether a header or a parameter may be a credential.

    Args:
        name: of the header or parameter.
        value: what it holds.
        key: one that is known; what holds it is a secret, too.

    """
    named = _CREDENTIAL.search(name) and not _PLACE.search(name)
    return bool(named or _TELLTALE.match(value) or (key and key in value))


def secret_of_url(url: str) -> str:
    """Return what of a URL may be a secret, an empty text where nothing is.

    That is its password, a user name without one, a parameter that is named like a credential; or all of it, where an
    `@` is in a place that makes its parts doubtful.
    """
    try:
        parts = urlsplit(url if "://" in url else "//" + url)
    except ValueError:
        return url
    login, at, _place = parts.netloc.rpartition("@")
    if not at:
        if (
            parts.netloc and "@" in url
        ):  # a password with one of / ? # in it ends the place where it may stand
            return url
        named = (value for name, value in parse_qsl(parts.query) if is_credential(name, value))
        return next(named, "")
    user, _colon, password = login.partition(":")
    return password or user


def is_secret_url(text: str) -> bool:
    """Tell whether a text is a URL with a secret in it."""
    return "://" in text and bool(secret_of_url(text))


def is_secret_template(text: str, *, is_url: bool = False) -> bool:
    """Tell whether what stands around the variables of a settings' text may itself be a secret."""
    if is_url:
        return bool(secret_of_url(_VARIABLE.sub("$", text)).strip("$"))
    words = _VARIABLE.sub("", text).split()
    return any(len(word) >= _SHORTEST and word.lower() not in _SCHEMES for word in words)
