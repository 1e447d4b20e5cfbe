"""The demo: three endpoints on this machine, real calls from several threads; one endpoint dies and comes back.

Nothing here is scripted but the killing and the reviving: callers, monitor and breakers put what happens to them into
one inbox, and the main thread reads it, counts it (`tally`) and tells it.
"""

import queue
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from textwrap import wrap
from typing import Dict, Iterator, NamedTuple, Optional, Sequence, Set, TextIO, Tuple, Union

from .client import FailoverClient
from .embedded import MODEL, NAMES, embedded_upstreams, endpoints_of
from .errors import FailoverError
from .events import Event
from .live_table import Board, Canvas, LiveView, PlainView, Row, View
from .tally import Called, Tally, closing_table, listed, objections, verdict
from .testing import FakeUpstream
from .text_table import plain, width_of

_QUESTION = "Explain failover in two sentences."
_ANSWER = "When one endpoint fails, the next one answers. The caller notices nothing but a few milliseconds."

#: Seconds between two looks at everything.
_FRAME_S = 0.2
#: Seconds beyond the plan for which the revived may still take their first call: a busy machine is no failure.
_GRACE_S = 5.0
#: Far above what an upstream takes: the killed one refuses at once, and a busy machine must not look like a death.
_PROBE_TIMEOUT_S = 1.0


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


News = Union[Called, Event]


def run(plan: Plan, out: TextIO, *, live: bool) -> int:
    """Play the demo; return 0 if it came out as promised, 1 if not, with the reason printed."""
    out.write(
        "syncfailover demo: three endpoints on this machine, real calls over real sockets, no key needed\n\n"
    )
    with ExitStack() as stack:
        upstreams = stack.enter_context(embedded_upstreams(_ANSWER))
        client = stack.enter_context(_client(plan, upstreams))
        view: View = LiveView(stack.enter_context(Canvas(out))) if live else PlainView(out)
        show = Show(plan, upstreams, client, view)
        show.play()
    _close(show.tally, out)
    return 1 if objections(show.tally) else 0


def _close(tally: Tally, out: TextIO) -> None:
    width = width_of(out)
    rows = [plain(line) for line in closing_table(tally, width)]
    sentence = verdict(tally)
    out.write("\n".join(["", *rows, "", *([sentence] if width is None else wrap(sentence, width)), ""]))


def _client(plan: Plan, upstreams: Dict[str, FakeUpstream]) -> FailoverClient:
    return FailoverClient(
        endpoints_of(upstreams),
        model=MODEL,
        timeout=5.0,
        probe_interval=plan.probe_interval,
        probe_timeout=_PROBE_TIMEOUT_S,
        recovery_timeout=plan.recovery_timeout,
        chance=random.Random(plan.seed).random,  # noqa: S311 - jitter, not a secret
    )


@contextmanager
def traffic(client: FailoverClient, plan: Plan, inbox: "queue.SimpleQueue[News]") -> Iterator[None]:
    """Have threads call at a steady rate meanwhile, and put what came of each call into the inbox."""
    stop: queue.SimpleQueue[None] = queue.SimpleQueue()
    period_s = plan.threads / plan.rate

    def keep_calling(due: float) -> None:
        while not _heard(stop, due):
            inbox.put(_call(client))
            due = max(due + period_s, time.monotonic())

    with ThreadPoolExecutor(plan.threads, thread_name_prefix="demo-caller") as pool:
        now = time.monotonic()
        callers = [pool.submit(keep_calling, now + n / plan.rate) for n in range(plan.threads)]
        try:
            yield
        finally:
            for _ in callers:
                stop.put(None)
    for caller in callers:
        caller.result()  # raises what should never happen in one


def _heard(signal: "queue.SimpleQueue[None]", until: float) -> bool:
    """Wait for a signal, until that time; tell whether it came."""
    try:
        signal.get(timeout=max(0.0, until - time.monotonic()))
    except queue.Empty:
        return False
    return True


def _call(client: FailoverClient) -> Called:
    try:
        reply = client.chat(_QUESTION)
    except FailoverError as error:
        return Called(time.monotonic(), getattr(error, "attempts", ()), str(error))
    return Called(time.monotonic(), reply.attempts, None)


class Show:
    """The play itself: who dies when, and what is told of it."""

    def __init__(
        self, plan: Plan, upstreams: Dict[str, FakeUpstream], client: FailoverClient, view: View
    ) -> None:
        self.tally = Tally(NAMES, plan.killed)
        self._plan = plan
        self._killed = [upstreams[name] for name in plan.killed]
        self._client = client
        self._view = view
        self._inbox: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._told: Set[str] = set()
        self._trials: Set[Tuple[str, Optional[str]]] = set()
        self._began = 0.0
        self._shown_at = 0.0
        for event in _TOLD:
            client.on(event, self._inbox.put)

    def play(self) -> None:
        """Go through the three acts."""
        plan, who = self._plan, listed(self._plan.killed)
        self._client.wait_until_ready()
        self._began = time.monotonic()
        self._tell(f"{plan.threads} threads call client.chat(); {listed(NAMES)} share the calls by weight")
        with traffic(self._client, plan, self._inbox):
            self._watch(plan.killed_at)
            self._kill()
            self._tell(f"KILLED {who}: connections reset, new ones refused")
            self._watch(plan.revived_at)
            self._tell(f"REVIVED {who}: two good health checks, and a call may try again")
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
        self._trials.clear()
        for upstream in self._killed:
            upstream.revive()

    def _watch(self, until_s: float, *, unless_back: bool = False) -> None:
        """Take in what happens until that many seconds of the play are over, or until the killed are back."""
        until = self._began + until_s
        while (left := until - time.monotonic()) > 0:
            if unless_back and not self.tally.absent():
                return
            if time.monotonic() >= self._shown_at + _FRAME_S:
                self._show()
            with suppress(queue.Empty):
                self._take(self._inbox.get(timeout=min(left, _FRAME_S)))

    def _drain(self) -> None:
        while not self._inbox.empty():
            self._take(self._inbox.get())

    def _take(self, news: News) -> None:
        if isinstance(news, Event):
            if is_worth_telling(news) and not self._is_one_more_trial(news):
                self._tell(_TOLD[news.name].format_map(news._asdict()))
        else:
            self.tally.add(news)
            self._tell_firsts(news)

    def _is_one_more_trial(self, event: Event) -> bool:
        """Tell of the first trial of a dead endpoint: with all of them dead, every call is one."""
        if "half_open" not in (event.old, event.new) or event.new == "closed":
            return False
        trial = event.name, event.endpoint
        known = trial in self._trials
        self._trials.add(trial)
        return known

    def _tell_firsts(self, call: Called) -> None:
        """Tell what a call was the first to meet."""
        if call.error is not None:
            self._tell_once("failed", f"a call FAILED: {call.error}")
        elif call.saved:
            first, last = call.ledger[0], call.ledger[-1]
            self._tell_once(
                "saved",
                f"a call to {first.endpoint} failed ({first.detail}); {last.endpoint} answered it instead",
            )
        for name in self._plan.killed:
            if name in self.tally.back_at:
                self._tell_once(name, f"{name} takes traffic again; its share grows back over 10 s")

    def _tell_once(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._tell(text)

    def _tell(self, text: str) -> None:
        self._view.told(f"{time.strftime('%H:%M:%S')}  {text}")

    def _show(self) -> None:
        self._shown_at = now = time.monotonic()
        tally, act = self.tally, len(self.tally.turns)
        rows = [
            Row(
                state,
                tally.served([state.name]),
                tally.rate(state.name, now),
                tally.failed_attempts[state.name],
            )
            for state in self._client.status().endpoints
        ]
        left_s = max(0.0, self._began + self._plan.seconds - now)
        self._view.show(Board(acts(self._plan.killed), act, left_s, tally.headline(), rows))


def acts(killed: Sequence[str]) -> Tuple[str, ...]:
    """Name the three acts."""
    who = listed(killed)
    return "all serve", f"{who} dead", f"{who} back"


#: How an event is told.
_TOLD = {
    "breaker_opened": "{endpoint}: breaker opens, calls skip it: {reason}",
    "breaker_half_opened": "{endpoint}: breaker half-open, one live call may try it",
    "breaker_closed": "{endpoint}: breaker closes, the trial call succeeded",
    "health_changed": "{endpoint}: health checks say {new} ({reason})",
    "all_down": "no endpoint is up",
    "recovered": "{reason} again",
}


def is_worth_telling(event: Event) -> bool:
    """Leave out what belongs to the start: the first check of each endpoint."""
    return not (event.name == "health_changed" and event.old == "unknown" and event.new != "unhealthy")
