"""The demo: three endpoints on this machine, real calls from several threads; one endpoint dies and comes back.

Nothing here is scripted but the killing and the reviving: callers, monitor and breakers put what happens to them into
one inbox, and the main thread reads it, counts it, tells it, and at the end judges what it has counted.
"""

import queue
import random
import time
from bisect import bisect_right
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Protocol, Sequence, TextIO, Tuple, Type, Union

from .client import FailoverClient
from .endpoint import Endpoint
from .errors import FailoverError
from .events import AttemptRecord, Event
from .live_table import Canvas, Cell, Column, Line, bar, glyphs_for, plain, table
from .policy.snapshot import EndpointState, Snapshot
from .testing import FakeUpstream

MODEL = "gpt-4.1"
#: USD per million tokens, input and output.
_PRICE = (2.0, 8.0)
_QUESTION = "Explain failover in two sentences."
_ANSWER = "When one endpoint fails, the next one answers. The caller notices nothing but a few milliseconds."

#: Seconds between two looks at everything.
_FRAME_S = 0.2
#: Seconds beyond the plan for which the revived may still take their first call: a busy machine is no failure.
_GRACE_S = 5.0


class Role(NamedTuple):
    """One endpoint of the play."""

    name: str
    weight: int
    delay_s: float


CAST = (Role("alpha", 3, 0.030), Role("beta", 2, 0.040), Role("gamma", 1, 0.050))
NAMES = tuple(role.name for role in CAST)


class Plan(NamedTuple):
    """What is to happen, and when; times are in seconds from the beginning."""

    seconds: float = 14.0
    rate: float = 40.0
    threads: int = 8
    killed: Tuple[str, ...] = ("alpha",)
    seed: Optional[int] = None

    @property
    def killed_at(self) -> float:
        """When the killed die."""
        return self.seconds * 3 / 14

    @property
    def revived_at(self) -> float:
        """When they come back."""
        return self.seconds * 8 / 14

    @property
    def probe_interval(self) -> float:
        """Short enough that fall 3 and rise 2 both happen in time."""
        return min(0.5, self.seconds / 28)

    @property
    def recovery_timeout(self) -> float:
        """Long enough that the probes come first."""
        return min(2.0, self.seconds / 7)


class Called(NamedTuple):
    """One call, as its caller saw it."""

    #: On the monotonic clock, when it ended.
    at: float
    ledger: Sequence[AttemptRecord]
    #: None for an answer.
    error: Optional[str]


News = Union[Called, Event]


def run(plan: Plan, out: TextIO, *, live: bool) -> int:
    """Play the demo; return 0 if it came out as promised, 1 if not, with the reason printed."""
    inbox: "queue.SimpleQueue[News]" = queue.SimpleQueue()
    with ExitStack() as stack:
        upstreams = {role.name: stack.enter_context(_upstream(role)) for role in CAST}
        client = stack.enter_context(_client(plan, upstreams))
        for event in _TOLD:
            client.on(event, inbox.put)
        view: View = LiveView(out, plan) if live else PlainView(out, plan)
        stack.enter_context(view)
        show = Show(plan, upstreams, client, inbox, view)
        show.play()
    tally = show.tally
    out.write("\n" + "\n".join(plain(line) for line in closing_table(tally)) + "\n\n")
    reasons = objections(plan, tally)
    out.write(verdict(plan, tally, reasons) + "\n")
    return 1 if reasons else 0


def _upstream(role: Role) -> FakeUpstream:
    return FakeUpstream(role.name, text=_ANSWER, delay_s=role.delay_s)


def _client(plan: Plan, upstreams: Dict[str, FakeUpstream]) -> FailoverClient:
    endpoints = [
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
    return FailoverClient(
        endpoints,
        model=MODEL,
        timeout=5.0,
        probe_interval=plan.probe_interval,
        probe_timeout=plan.probe_interval / 2,
        recovery_timeout=plan.recovery_timeout,
        chance=random.Random(plan.seed).random,  # noqa: S311 - jitter, not a secret
    )


class Traffic:
    """Threads that call at a steady rate and put what came of each call into the inbox."""

    def __init__(self, client: FailoverClient, plan: Plan, inbox: "queue.SimpleQueue[News]") -> None:
        self._client = client
        self._inbox = inbox
        self._threads = plan.threads
        self._period_s = plan.threads / plan.rate
        self._stop: "queue.SimpleQueue[None]" = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(plan.threads, thread_name_prefix="demo-caller")
        self._callers: List["Future[None]"] = []

    def __enter__(self) -> "Traffic":
        """Begin, the threads evenly apart."""
        apart_s = self._period_s / self._threads
        self._callers = [self._pool.submit(self._keep_calling, n * apart_s) for n in range(self._threads)]
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Let each thread finish its call; raise what should never happen in one."""
        for _ in self._callers:
            self._stop.put(None)
        self._pool.shutdown()
        if error is None:
            for caller in self._callers:
                caller.result()

    def _keep_calling(self, first_in_s: float) -> None:
        due = time.monotonic() + first_in_s
        while not self._stopped(due):
            self._inbox.put(self._call())
            due = max(due + self._period_s, time.monotonic())

    def _stopped(self, due: float) -> bool:
        try:
            self._stop.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            return False
        return True

    def _call(self) -> Called:
        try:
            reply = self._client.chat(_QUESTION)
        except FailoverError as error:
            return Called(time.monotonic(), getattr(error, "attempts", ()), str(error))
        return Called(time.monotonic(), reply.attempts, None)


class Tally:
    """What happened, counted per endpoint and per act; an act begins when its turn is noted."""

    def __init__(self) -> None:
        #: When the killed died, and when they were revived, on the monotonic clock.
        self.turns: List[float] = []
        self.calls = self.failed = self.failovers = 0
        self.cost_usd = 0.0
        self.first_error: Optional[str] = None
        #: By (endpoint, act).
        self.served: Dict[Tuple[str, int], int] = Counter()
        self.failed_attempts: Dict[str, int] = Counter()
        #: When each endpoint first answered after the revival.
        self.back_at: Dict[str, float] = {}
        self._latency_ms: Dict[str, float] = Counter()
        self._recent: Dict[str, Deque[float]] = {name: deque() for name in NAMES}

    def add(self, call: Called) -> None:
        """Count one call."""
        self.calls += 1
        if call.error is not None:
            self.failed += 1
            self.first_error = self.first_error or call.error
        for attempt in call.ledger:
            if attempt.outcome == "ok":
                self._add_served(attempt, call.at)
            else:
                self.failed_attempts[attempt.endpoint] += 1
        if len({attempt.endpoint for attempt in call.ledger}) > 1:
            self.failovers += 1

    def _add_served(self, attempt: AttemptRecord, at: float) -> None:
        name, act = attempt.endpoint, bisect_right(self.turns, at)
        self.served[name, act] += 1
        self._latency_ms[name] += attempt.latency_ms
        self._recent[name].append(at)
        self.cost_usd += attempt.cost_usd or 0.0
        if act == 2:
            self.back_at.setdefault(name, at)

    def rate(self, name: str, now: float) -> int:
        """Return how many calls an endpoint served within the last second."""
        recent = self._recent[name]
        while recent and recent[0] < now - 1.0:
            recent.popleft()
        return len(recent)

    def total(self, names: Sequence[str] = NAMES, acts: Sequence[int] = (0, 1, 2)) -> int:
        """Return how many calls these endpoints served in these acts."""
        return sum(self.served[name, act] for name in names for act in acts)

    def latency_ms(self, names: Sequence[str] = NAMES) -> Optional[float]:
        """Return the average latency of what these endpoints served."""
        served = self.total(names)
        return sum(self._latency_ms[name] for name in names) / served if served else None


class Board(NamedTuple):
    """Everything that a view can show at one moment."""

    act: int
    seconds_left: float
    snapshot: Snapshot
    tally: Tally
    now: float


class View(Protocol):
    """Shows the play, as a context manager."""

    def told(self, text: str) -> None:
        """Take in a line of narration."""

    def show(self, board: Board) -> None:
        """Show how everything is; called about five times per second."""

    def __enter__(self) -> Any:
        """Begin."""

    def __exit__(self, *error: object) -> None:
        """End."""


class Show:
    """The play itself: who dies when, and what is told of it."""

    def __init__(
        self,
        plan: Plan,
        upstreams: Dict[str, FakeUpstream],
        client: FailoverClient,
        inbox: "queue.SimpleQueue[News]",
        view: View,
    ) -> None:
        self.tally = Tally()
        self._plan = plan
        self._killed = [upstreams[name] for name in plan.killed]
        self._client = client
        self._inbox = inbox
        self._view = view
        self._began = 0.0
        self._shown_at = 0.0

    def play(self) -> None:
        """Go through the three acts."""
        plan, who = self._plan, listed(self._plan.killed)
        self._client.wait_until_ready()
        self._began = time.monotonic()
        self._tell(f"{plan.threads} threads call client.chat(); {listed(NAMES)} share the calls by weight")
        with Traffic(self._client, plan, self._inbox):
            self._watch(plan.killed_at)
            self._kill()
            self._tell(f"{who} {were(plan.killed)} killed: connections reset, new ones refused")
            self._watch(plan.revived_at)
            self._tell(f"{who} {were(plan.killed)} revived; two good probes, and calls may try again")
            self._revive()
            self._watch(plan.seconds)
            self._watch(plan.seconds + _GRACE_S, unless_back=True)
        self._drain()
        self._show()

    def _kill(self) -> None:
        for upstream in self._killed:
            upstream.kill()
        self.tally.turns.append(time.monotonic())

    def _revive(self) -> None:
        self.tally.turns.append(time.monotonic())
        for upstream in self._killed:
            upstream.revive()

    def _watch(self, until_s: float, *, unless_back: bool = False) -> None:
        """Take in what happens until that many seconds of the play are over, or until the killed are back."""
        until = self._began + until_s
        while (left := until - time.monotonic()) > 0:
            if unless_back and self.tally.back_at.keys() >= set(self._plan.killed):
                return
            if time.monotonic() >= self._shown_at + _FRAME_S:
                self._show()
            try:
                self._take(self._inbox.get(timeout=min(left, _FRAME_S)))
            except queue.Empty:
                pass

    def _drain(self) -> None:
        while not self._inbox.empty():
            self._take(self._inbox.get())

    def _take(self, news: News) -> None:
        if isinstance(news, Event):
            if is_worth_telling(news):
                self._tell(_TOLD[news.name].format_map(news._asdict()))
            return
        failovers, failed, back = self.tally.failovers, self.tally.failed, len(self.tally.back_at)
        self.tally.add(news)
        if self.tally.failed == 1 and not failed:
            self._tell(f"a call FAILED: {news.error}")
        if self.tally.failovers == 1 and not failovers and news.error is None:
            first, last = news.ledger[0], news.ledger[-1]
            self._tell(f"a call to {first.endpoint} failed ({first.detail}); {last.endpoint} answered it instead")
        if len(self.tally.back_at) > back and news.ledger[-1].endpoint in self._plan.killed:
            self._tell(f"{news.ledger[-1].endpoint} takes traffic again; its share grows back over 10 s")

    def _tell(self, text: str) -> None:
        self._view.told(f"{time.strftime('%H:%M:%S')}  {text}")

    def _show(self) -> None:
        self._shown_at = now = time.monotonic()
        left = max(0.0, self._began + self._plan.seconds - now)
        self._view.show(Board(len(self.tally.turns), left, self._client.status(), self.tally, now))
