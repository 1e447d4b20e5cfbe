"""TLS in a program that gevent patched late.

gevent puts its own class of contexts in the place of Python's. urllib3, where it was imported before, goes on with
Python's, whose setters look themselves up and find gevent's: making a context ends in a RecursionError
(https://github.com/gevent/gevent/issues/1016). A context that is given to urllib3 is used as it is.
"""

from __future__ import annotations

import os
import ssl
from typing import Any, Union

from requests.utils import DEFAULT_CA_BUNDLE_PATH, extract_zipped_paths
from urllib3._version import __version__ as urllib3_version
from urllib3.util import ssl_ as known_to_urllib3

#: urllib3 1.26 compares host names itself: its first versions do not tell OpenSSL an address that is to be compared.
_COMPARES_NAMES = urllib3_version.startswith("1.")


def give_context(pool: Any, verify: Union[bool, str]) -> None:
    """Give a pool the context of its connections, where urllib3 cannot make one.

    Args:
        pool: it has made no connection yet.
        verify: whether to check the endpoint's certificate, or a file or directory of authorities.

    """
    theirs: Any = known_to_urllib3.SSLContext
    if pool.scheme == "https" and theirs is not ssl.SSLContext and _is_ancestor(theirs):
        pool.conn_kw["ssl_context"] = _context(verify)
        pool.ca_certs = pool.ca_cert_dir = None  # or each connection would load them once more


def _is_ancestor(theirs: Any) -> bool:
    """Tell whether it is Python's class, and not one that somebody gave to urllib3 on purpose."""
    return isinstance(theirs, type) and issubclass(ssl.SSLContext, theirs)


def _context(verify: Union[bool, str]) -> ssl.SSLContext:
    authorities = extract_zipped_paths(DEFAULT_CA_BUNDLE_PATH) if isinstance(verify, bool) else verify
    if os.path.isdir(authorities):  # noqa: PTH112 - a text, as requests has it
        context = ssl.create_default_context(capath=authorities)
    else:
        context = ssl.create_default_context(cafile=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # as urllib3 2 has it; Python before 3.10 takes less
    if verify is False or _COMPARES_NAMES:
        context.check_hostname = False
    if verify is False:
        context.verify_mode = ssl.CERT_NONE
    return context
