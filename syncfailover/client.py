"""The client: `client.chat(...)`, and what an openai-SDK caller already wrote, over the failover loop."""

from __future__ import annotations

import os
from copy import copy
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Tuple,
    Type,
    Union,
    cast,
)

from urllib3.util.retry import Retry

from .adapter import EndpointRegistry
from .api import Chat, Completions, Embeddings, Models, Responses
from .caller import Caller
from .client_sources import FromElsewhere
from .completion.reply import ChatReply
from .endpoint import Endpoint
from .errors import ConfigurationError
from .extras import Extras
from .openai_options import Covered, refused
from .policy.health import HealthStatus
from .policy.snapshot import Snapshot
from .runtime.dispatch import Callback
from .runtime.hedging import HedgeAfter
from .runtime.monitor import HealthMonitor
from .runtime.terms import UNCHANGED, Terms
from .runtime.timeouts import Timeouts
from .runtime.transport import Transports
from .session import FailoverSession, registry_from
from .unpickling import reduced
from .validation import number

if TYPE_CHECKING:
    from decimal import Decimal


class FailoverClient(FromElsewhere, Covered):
    """Keeps `client.chat(...)` working when an endpoint does not.

        client = FailoverClient([Endpoint("a", url_a, key_a), Endpoint("b", url_b, key_b)], model="gpt-4.1")
        print(client.chat("Explain failover in two sentences.").text)

    One client serves all threads of a process; make it once. Its health monitor starts with the first call.

    Args:
        endpoints: a list of `Endpoint`, at least one, or an `EndpointRegistry` to share.
        model: used where a call names none.
        balancer: "weighted", "round_robin", "lowest_latency", "least_busy", "cheapest", or any object with
            `pick(candidates) -> candidate`.
        timeout: seconds for a whole call, all attempts and waits together, or `Timeouts`.
        max_retries: further attempts after the first, or a urllib3 `Retry`, or a `FailoverRetry`.
        queue_timeout: seconds that a call may wait in line while nobody can serve it, first come first served; 0 for
            not at all. How many may wait is the registry's `queue_size`.
        hedge_after: ask a second endpoint where the first has not answered after so many milliseconds, or ("p95")
            after longer than 19 of 20 recent calls took; the first good answer counts. At most one call in twenty is
            hedged. None for never.
        budget_usd: what all calls together may cost; once it is spent, the next one raises `BudgetExceeded` and sends
            nothing. Calls under way are not stopped, so it may be exceeded by what they cost. Only what has a price
            counts. None for no limit.
        probe_interval: seconds between health checks of one endpoint.
        probe_timeout: seconds for one health check.
        probe_when: "always"; "idle" leaves out an endpoint that served a call within the interval; "never".
        options: any other keyword of `EndpointRegistry` (`failure_threshold`, `recovery_timeout`, ...).

    Attributes:
        chat: `chat(prompt, *, model=None, timeout=None, affinity=None, **fields)` gives a `ChatReply`;
            `chat.completions.create(...)`, as in the openai package.
        completions: `completions.create(prompt=...)`.
        responses: `responses.create(input=...)`.
        embeddings: `embeddings.create(model=..., input=...)`.
        models: `models.list()`.
        registry: the `EndpointRegistry`.

    Raises:
        ConfigurationError: an argument that cannot work; the message names field, value and what is allowed.

    """

    _written = "client"
    _uncovered = frozenset(
        {
            "admin",
            "audio",
            "batches",
            "beta",
            "containers",
            "conversations",
            "copy",
            "evals",
            "files",
            "fine_tuning",
            "images",
            "moderations",
            "realtime",
            "skills",
            "uploads",
            "vector_stores",
            "videos",
            "webhooks",
        }
    )

    def __init__(
        self,
        endpoints: Union[Iterable[Endpoint], EndpointRegistry] = (),
        *,
        model: Optional[str] = None,
        balancer: Any = None,
        timeout: Union[float, Timeouts] = 30.0,
        max_retries: Union[int, Retry] = 3,
        queue_timeout: float = 0.0,
        hedge_after: HedgeAfter = None,
        budget_usd: Union[float, Decimal, None] = None,
        probe_interval: float = 2.0,
        probe_timeout: float = 1.0,
        probe_when: str = "always",
        **options: Any,
    ) -> None:
        if balancer is not None:
            options["balancer"] = balancer
        self.registry = registry_from(
            endpoints, probe_interval=probe_interval, probe_timeout=probe_timeout, **options
        )
        transports = Transports(self.registry.endpoints)
        terms = Terms(
            self.registry,
            timeout=timeout,
            max_retries=max_retries,
            queue_timeout=queue_timeout,
            hedge_after=hedge_after,
            budget_usd=budget_usd,
        )
        self._monitor = HealthMonitor.shared(self.registry, transports, probe_when, self)
        self._call_with(Caller(self.registry, transports, self._monitor, terms, model))

    def _call_with(self, caller: Caller) -> None:
        """Make the parts of the client, which all call in one way."""
        self._caller = caller
        self._session: Optional[FailoverSession] = None
        #: `client.chat("text")`, `client.chat([messages])`, `client.chat.completions.create(...)`
        self.chat = Chat(caller)
        #: `client.completions.create(prompt=...)`, the older call
        self.completions = Completions(caller)
        #: `client.responses.create(input=...)`
        self.responses = Responses(caller)
        #: `client.embeddings.create(model=..., input=...)`
        self.embeddings = Embeddings(caller)
        #: `client.models.list()`
        self.models = Models(caller)

    def __repr__(self) -> str:
        return f"<FailoverClient {self.registry.snapshot()}>"

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle as configuration, with what a subclass or a caller has put beside it; see `pickling`."""
        others = {name: value for name, value in vars(self).items() if name not in _OWN}
        return reduced(type(self), _unpickled, type(self), self._caller, others)

    def __copy__(self) -> FailoverClient:
        """Return one that shares everything."""
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def with_options(
        self,
        *,
        timeout: Union[float, Timeouts, None] = None,
        max_retries: Union[int, Retry, None] = None,
        queue_timeout: Optional[float] = None,
        hedge_after: HedgeAfter = UNCHANGED,
        model: Optional[str] = None,
        default_headers: Optional[Mapping[str, Optional[str]]] = None,
        default_query: Optional[Mapping[str, Any]] = None,
        **others: Any,
    ) -> FailoverClient:
        """Return a client with other terms over the same endpoints, connections, health checks, counters and budget.

        What is not given stays as it is. Closing it does not close this one; when this one is closed, so is it.

        Args:
            timeout: see `FailoverClient`; and so the next four.
            max_retries: how often.
            queue_timeout: how long a call may wait in line.
            hedge_after: when a second endpoint is asked; None for never.
            model: used where a call names none.
            default_headers: sent with every call, to whichever endpoint is asked; None in place of a value takes back
                one that was there.
            default_query: query parameters, likewise.
            others: none; names that only the openai package knows are told what to do instead.

        Raises:
            ConfigurationError: a value that cannot work, or an option that does not exist here.
            ClientClosed: after `close()`.

        """
        for name in others:
            raise _refused_option(name)
        parent = self._caller
        parent.check_open()
        terms = parent.terms.changed(
            timeout=timeout, max_retries=max_retries, queue_timeout=queue_timeout, hedge_after=hedge_after
        )
        fields = ("default_headers", "default_query")
        child = copy(self)
        child._call_with(
            Caller(
                self.registry,
                parent.transports,
                self._monitor,
                terms,
                parent.model if model is None else model,
                Extras.of(default_headers, default_query, parent.extras, fields),
                parent,
            )
        )
        return child

    @property
    def session(self) -> FailoverSession:
        """A `FailoverSession` over the same endpoints, connections, counters and monitor."""
        caller = self._caller
        caller.check_open()
        if self._session is None or self._session.closed:
            self._session = FailoverSession(
                self.registry,
                terms=caller.terms,
                transports=caller.transports,
                monitor=self._monitor,
            )
        return self._session

    def map(
        self,
        prompts: Iterable[Any],
        *,
        concurrency: int = 16,
        progress: bool = False,
        checkpoint: Union[str, os.PathLike[str], None] = None,
        model: Optional[str] = None,
        timeout: Union[float, Timeouts, None] = None,
        **params: Any,
    ) -> List[Union[ChatReply, Exception]]:
        """Ask many prompts, several at a time; return for each, in order, its reply or what `client.chat` raised for it.

        With a checkpoint, a map that was killed at any moment is started again with the same prompts and asks only what
        has no answer yet, also where the list is longer now or in another order: docs/map.md.

        Args:
            prompts: any iterable of what `client.chat` takes, texts or lists of messages. It is read in this thread, at
                most `2 * concurrency` prompts ahead of those that are done.
            concurrency: calls under way at a time.
            progress: show a bar; needs tqdm (the extra `progress`), and without it is one warning.
            checkpoint: the path of a file that keeps every answer as soon as it is there. Errors are not kept: what failed
                is asked again the next time.
            model: see `client.chat`; and so the next two.
            timeout: for each call, not for all of them.
            params: of each call, but for `stream`.

        Raises:
            ConfigurationError: an argument that cannot work, before anything is sent; or a checkpoint that cannot be
                written any more: then no more prompts are asked, and `.results` of the error has what was answered, with
                None for what was not asked.

        """
        from .api.mapping import chat_all  # noqa: PLC0415 - most programs ask one at a time

        return chat_all(
            self._caller,
            self.chat,
            prompts,
            concurrency=concurrency,
            progress=progress,
            checkpoint=checkpoint,
            model=model,
            timeout=timeout,
            params=params,
        )

    def status(self) -> Snapshot:
        """Return how every endpoint is: immutable, by name."""
        return self.registry.snapshot()

    def metrics(self) -> Dict[str, Any]:
        """Return the counters of all calls so far, as one consistent dictionary.

        - `total_requests`, `successful_requests`, `failed_requests`; a stream that the caller left is neither of the two.
        - `failover_count`: calls that left an endpoint which had failed.
        - `success_rate`, `failover_rate`: 0 to 1.
        - `average_latency_ms`, `p50_latency_ms`, `p95_latency_ms`, `p99_latency_ms`: of all calls, also of failed ones;
          percentiles within 1 %.
        - `total_cost_usd`; `unpriced_requests`: answered, at a price that is not known.
        - `hedged_requests`.
        - `uptime_hours`: since the client was made.
        - `endpoints`: for each the same but `hedged_requests`, counting attempts instead of calls. Its `uptime_hours` is
          the time in which its breaker was neither open nor on trial and its probes did not fail; `outcomes` counts
          attempts by the name of their outcome.

        A call that the budget refuses is not counted.
        """
        return self._caller.terms.metrics.read()

    def wait_until_ready(self, timeout: float = 5.0) -> bool:
        """Wait until a health check found an endpoint alive, at most `timeout` seconds; tell whether one did."""
        number("timeout", timeout)
        self._caller.check_open()
        self._monitor.probe_soon(timeout)
        alive = (HealthStatus.HEALTHY, HealthStatus.DEGRADED)
        return self.registry.wait_for(
            lambda now: any(state.status in alive for state in now.endpoints),
            timeout if self._monitor.running else 0.0,  # without a thread all that can be was done
        )

    def on(self, event: str, callback: Callback) -> Callable[[], None]:
        """Call `callback(event)` for each event of that name, in order, outside every lock.

        The names are in `syncfailover.events.EVENTS`. What a callback raises is logged. Returns a function that
        ends it.
        """
        return self.registry.on(event, callback)

    def close(self) -> None:
        """End the monitor's threads within a second and close idle connections; calling it again does nothing."""
        if self._caller.closed:
            return
        self._caller.closed = True
        is_whole = self._caller.parent is None  # else monitor and connections are those of another client
        if is_whole:
            self._monitor.leave(self)
        self._caller.terms.close()
        if self._session is not None:
            self._session.close()
        if is_whole:
            self._caller.transports.leave(self._caller)

    def __enter__(self) -> FailoverClient:
        """Use as a context manager that closes at the end."""
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Close."""
        self.close()


#: What a client is made of; all of it is made anew of its caller.
_OWN = frozenset(
    "_caller _monitor _session chat completions embeddings models registry responses".split()  # noqa: SIM905
)


def _unpickled(kind: Type[FailoverClient], caller: Caller, others: Dict[str, Any]) -> FailoverClient:
    """Make a client around what calls for it, and take part in the monitor in its place."""
    client = kind.__new__(kind)
    client.registry = cast("EndpointRegistry", caller.registry)
    monitor = HealthMonitor.shared(caller.registry, caller.transports, caller.monitor.probe_when, client)
    monitor.leave(caller)
    client._monitor = caller.monitor = monitor
    client._call_with(caller)
    vars(client).update(others)
    return client


def _refused_option(name: str) -> ConfigurationError:
    """Make the error for an option that `with_options` does not take."""
    made_with = (FailoverClient.__init__, EndpointRegistry.__init__)
    theirs = {option for function in made_with for option in function.__kwdefaults__ or {}}
    return refused(name, FailoverClient.with_options.__kwdefaults__ or {}, theirs)
