"""Endpoints of this machine that stand in for real ones, so that everything can be tried without a key or a network."""

from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, List, Mapping, NamedTuple

from .endpoint import Endpoint
from .testing import FakeUpstream

MODEL = "gpt-4.1"
#: USD per million tokens, input and output.
_PRICE = (2.0, 8.0)


class Role(NamedTuple):
    """One endpoint of the play."""

    name: str
    weight: int
    delay_s: float


CAST = (Role("alpha", 3, 0.030), Role("beta", 2, 0.040), Role("gamma", 1, 0.050))
NAMES = tuple(role.name for role in CAST)


@contextmanager
def embedded_upstreams(text: str) -> Iterator[Dict[str, FakeUpstream]]:
    """Run one upstream per role, by name; `text` is what each of them answers, `{name}` in it its name."""
    with ExitStack() as stack:
        yield {
            role.name: stack.enter_context(FakeUpstream(role.name, text=text, delay_s=role.delay_s))
            for role in CAST
        }


def endpoints_of(upstreams: Mapping[str, FakeUpstream]) -> List[Endpoint]:
    """Make the endpoints that these upstreams are."""
    return [
        Endpoint(
            role.name,
            upstreams[role.name].url,
            auth="none",
            weight=role.weight,
            prices={MODEL: _PRICE},
            max_latency_ms=1000.0,  # a machine under load is not what this is about
            proxies={},  # whatever the environment says: it is this machine
        )
        for role in CAST
    ]
