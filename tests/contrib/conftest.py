"""What the tests of the doors share."""

import contextlib
from typing import Any, Iterator

import pytest
from fleet import endpoints_of

from syncfailover.contrib.openai import failover_openai


@pytest.fixture
def make_sdk(make_client: Any) -> Iterator[Any]:
    """A function that makes an `openai.OpenAI` over a client of the three upstreams, which is its `.failover`."""
    with contextlib.ExitStack() as made:

        def make(client: Any = None, openai_kwargs: Any = None, **options: Any) -> Any:
            client = make_client(**options) if client is None else client
            sdk = made.enter_context(failover_openai(client, **(openai_kwargs or {})))
            sdk.failover = client
            return sdk

        yield make


@pytest.fixture
def two(fake_upstreams: Any) -> Any:
    """Two upstreams, and a function that makes their endpoints."""
    upstreams = fake_upstreams(2)
    return upstreams, endpoints_of(upstreams)
