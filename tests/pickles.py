"""What the tests of pickles pickle, and how."""

import pickle
from typing import Any, Dict

import pytest

from syncfailover import ConfigurationError, Endpoint

SECRET = "sk-secret-0123456789"
MODEL_OPENAI = "https://api.openai.com/v1"


def loaded(thing: Any, protocol: Any = None) -> Any:
    """What becomes of a thing that is pickled and unpickled; no secret of these tests is in the bytes."""
    pickled = pickle.dumps(thing, protocol)
    assert SECRET.encode() not in pickled
    return pickle.loads(pickled)  # noqa: S301 - our own


def refused(thing: Any) -> ConfigurationError:
    """The error that pickling raises; neither it nor what travels with it holds the secret of these tests."""
    with pytest.raises(TypeError) as caught:
        pickle.dumps(thing)
    error = caught.value
    assert isinstance(error, ConfigurationError)
    assert SECRET not in f"{error!r} {error} {vars(error)} {error.__context__!r}"
    return error


def why_unusable(pickled: bytes) -> str:
    """Why something that was loaded cannot be used; nothing that tells it shows the secret of these tests."""
    thing = pickle.loads(pickled)  # noqa: S301 - our own
    with pytest.raises(ConfigurationError) as caught:
        _ = thing.anything
    error = caught.value
    for told in (error, repr(error), vars(error), error.__context__, repr(thing), pickle.dumps(error)):
        assert SECRET not in str(told)
    assert str(error) in repr(thing)
    return str(error)


def made(**fields: Any) -> Endpoint:
    """An endpoint that is never asked."""
    return Endpoint(**{"name": "a", "base_url": "http://127.0.0.1:9/v1", **fields})


def block(url: str, name: str = "a", **fields: Any) -> Dict[str, Any]:
    """A block of settings for an upstream."""
    return {"name": name, "base_url": url, "max_latency_ms": 5000.0, **fields}
