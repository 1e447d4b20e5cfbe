"""What the tests of pickles have other processes do: a module, for spawned processes find functions by their name."""

import os
import threading
from typing import Any, Dict, Iterable, Iterator, List, Tuple

from syncfailover import Endpoint, FailoverClient, FailoverSession, RoundRobin


def ask(client: FailoverClient, prompt: str) -> str:
    """Ask for one answer."""
    return str(client.chat(prompt).text)


def ask_in(task: Tuple[FailoverClient, str]) -> Tuple[int, int, str]:
    """Ask for one answer; tell who asked, of which registry, and what came."""
    client, prompt = task
    return os.getpid(), id(client.registry), ask(client, prompt)


def post(session: FailoverSession, prompt: str) -> str:
    """Ask for one answer over a session."""
    payload = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    return str(session.post("/chat/completions", json=payload).json()["choices"][0]["message"]["content"])


def how_it_is(client: FailoverClient) -> Dict[str, Any]:
    """Tell what a client that has just come over is like, before its first call."""
    return {
        "threads": threading.active_count(),
        "endpoints": [endpoint.name for endpoint in client.registry.endpoints],
        "total_requests": client.metrics()["total_requests"],
        "registry": repr(client.registry),
    }


def completing(client: FailoverClient) -> Any:
    """Return what Spark's `mapInPandas` takes, without pandas: a function from batches to batches, closed over a client."""

    def complete(batches: Iterable[List[str]]) -> Iterator[List[str]]:
        for batch in batches:
            yield [client.chat(prompt).text for prompt in batch]

    return complete


def run_by_value(pickled: bytes, batches: List[List[str]]) -> List[List[str]]:
    """Do what a worker of Spark does: load a function that was pickled by value, and call it on an iterator."""
    import cloudpickle  # noqa: PLC0415 - only who loads by value needs it

    return list(cloudpickle.loads(pickled)(iter(batches)))


def forget(variable: str) -> None:
    """Have no such variable, as a worker on another machine."""
    os.environ.pop(variable, None)


# Keys


def key() -> str:
    """Return a key, as a function of a module does."""
    return os.environ.get("PICKLED_KEY", "key-of-a-function")


class Vault:
    """Where keys are kept; it remembers the last one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.last = ""

    def __call__(self) -> str:
        """Return the key."""
        self.last = "sk-secret-of-a-vault"
        return self.last

    @classmethod
    def common(cls) -> str:
        """Return the key of all."""
        return "key-of-a-class"


class CarefulVault(Vault):
    """One that says itself what of it travels."""

    def __getstate__(self) -> Dict[str, Any]:
        """Leave the key behind."""
        return {"name": self.name, "last": ""}


# What callers derive


class Named(FailoverClient):
    """A client of a caller's own."""

    def __init__(self, name: str) -> None:
        super().__init__([Endpoint("a", "http://127.0.0.1:9/v1")], model="m")
        self.name = name


class Sticky(RoundRobin):
    """A balancer of a caller, with something of its own."""

    def __init__(self, favourite: str) -> None:
        super().__init__()
        self.favourite = favourite
