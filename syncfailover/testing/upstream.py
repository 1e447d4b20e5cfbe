"""An LLM endpoint that runs in the test's own process, over real sockets, and fails on command."""

from __future__ import annotations

import functools
import ssl
import time
from types import TracebackType
from typing import Callable, Collection, List, Optional, Sequence, Type, Union

from .answer import Answer, State
from .faults import Fault
from .log import Channel, Log, SeenRequest
from .replies import Replies
from .server import Server
from .wire import Message

PROBE_PATHS = ("/health", "/v1/health", "/v1/models", "/models", "/api/version")
MODELS = ("gpt-4.1", "gpt-4o", "claude-sonnet-4.5", "gemini-2.5-flash", "deepseek-v3.2")


class FakeUpstream:
    """Play an OpenAI-compatible endpoint, healthy until told otherwise.

    ::

        with FakeUpstream() as upstream:
            upstream.script(Status(503), Reset())       # the next two calls fail, then all is well
            requests.post(upstream.url + "/chat/completions", json={"model": "gpt-4.1", "messages": []})
            assert upstream.requests[0].fault == Status(503)

    GETs of ``probe_paths`` are probes, everything else is a call; each kind has a script of its own in
    :attr:`probes` and :attr:`calls`. Nothing runs before :meth:`start` or ``with``.

    :param text: what every completion says; ``{name}`` stands for the name, ``{prompt}`` for the last message: an echo
        shows whether each caller gets the answer to its own question.
    :param port: 0 lets the system choose; the choice survives :meth:`kill`, :meth:`revive` and a restart.
    :param delay_s: seconds to add before every answer. May be changed at any time.
    :param api_key: when given, every route but health asks for it.
    :param models: what the model list shows. Completions echo whatever model they were asked for.
    :param tls: a server-side context, to speak HTTPS.
    :param close_after_requests: close each connection without warning after that many answers.
    """

    def __init__(
        self,
        name: str = "upstream",
        *,
        text: str = "Hello from {name}.",
        host: str = "127.0.0.1",
        port: int = 0,
        delay_s: float = 0.0,
        api_key: Optional[str] = None,
        models: Sequence[str] = MODELS,
        tls: Optional[ssl.SSLContext] = None,
        close_after_requests: Optional[int] = None,
        probe_paths: Collection[str] = PROBE_PATHS,
    ) -> None:
        self.name = name
        self.delay_s = delay_s
        self._host = f"[{host}]" if ":" in host else host
        self._scheme = "http" if tls is None else "https"
        self._probe_paths = frozenset(probe_paths)
        self._replies = Replies(text.replace("{name}", name), models, api_key)
        self._log = Log()
        #: The traffic that is not a probe, and its faults.
        self.calls = Channel(self._log, is_probe=False)
        #: The health checks, and their faults.
        self.probes = Channel(self._log, is_probe=True)
        self._in_flight = 0
        self._max_in_flight = 0
        self._disconnects = 0
        self._server = Server(
            host,
            port,
            admit=self._admit,
            done=self._done,
            changed=self._log.changed,
            tls=tls,
            close_after=close_after_requests,
        )

    def __repr__(self) -> str:
        """Show a status line."""
        return f"<FakeUpstream {self.name} {self.origin} {self._server.state.value}, {len(self.requests)} requests>"

    # Where it is ----------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port; 0 when none was given and it was never started."""
        return self._server.port

    @property
    def origin(self) -> str:
        """Scheme, host and port: ``http://127.0.0.1:PORT``."""
        return f"{self._scheme}://{self._host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL of the API, as an endpoint wants it: ``http://127.0.0.1:PORT/v1``."""
        return f"{self.origin}/v1"

    # Life and death -------------------------------------------------------------------------------------------

    def start(self) -> FakeUpstream:
        """Listen; does nothing when started already. ``OSError`` when the port is taken."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Reset every connection and give the port back; does nothing when stopped already."""
        self._server.become(State.STOPPED)

    def __enter__(self) -> FakeUpstream:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether it accepts connections. A fault in a script does not change that."""
        return self._server.state is State.UP

    def kill(self, for_s: Optional[float] = None) -> None:
        """Die: every live connection is reset, and new ones are refused. All is done when this returns.

        :param for_s: seconds until it revives by itself; ``None`` until :meth:`revive`.
        """
        self._become(State.REFUSING, for_s)

    refuse = kill

    def blackhole(self, for_s: Optional[float] = None) -> None:
        """Drop off the network: connects time out, and live connections are never answered.

        Verified on Linux; ``OSError`` on a system that cannot do it.

        :param for_s: seconds until it revives by itself; ``None`` until :meth:`revive`.
        """
        self._become(State.BLACKHOLE, for_s)

    def revive(self) -> None:
        """End :meth:`kill` or :meth:`blackhole`, on the same port. Requests that the black hole held are answered."""
        self._become(State.UP, None)

    # Faults ---------------------------------------------------------------------------------------------------

    def script(self, *faults: Fault) -> None:
        """Append to the script of the calls: each next call takes one fault, in order."""
        self.calls.script(*faults)

    def always(self, fault: Fault) -> None:
        """Answer every call and every probe with this fault, once the scripts are over."""
        self.calls.always(fault)
        self.probes.always(fault)

    def heal(self) -> None:
        """Drop all scripts and defaults. A dead upstream stays dead: see :meth:`revive`."""
        self.calls.heal()
        self.probes.heal()

    # What it saw ----------------------------------------------------------------------------------------------

    @property
    def requests(self) -> List[SeenRequest]:
        """Everything seen, in order of arrival: a copy, the latest 100,000."""
        return self._log.requests()

    def clear_log(self) -> None:
        """Forget the requests seen so far."""
        self._log.clear()

    def wait_for(self, what: Union[int, Callable[[], object]], timeout: float = 5.0) -> bool:
        """Wait until ``what`` requests were seen, or until ``what()`` holds, e.g. ``lambda: up.in_flight == 0``.

        :param timeout: seconds, after which the answer is ``False``.
        """
        return self._log.wait_for(what, timeout)

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._server.accepted

    @property
    def in_flight(self) -> int:
        """How many requests are being answered. One is done just before the last byte is written."""
        return self._in_flight

    @property
    def max_in_flight(self) -> int:
        """The most requests that were being answered at once."""
        return self._max_in_flight

    @property
    def disconnects(self) -> int:
        """How many answers the client did not stay for: it hung up before the last byte was written."""
        return self._disconnects

    # How it answers -------------------------------------------------------------------------------------------

    def _become(self, state: State, for_s: Optional[float]) -> None:
        if self._server.state is State.STOPPED:
            raise RuntimeError(f"{self.name} is not started")
        self._server.become(state, for_s)

    def _admit(self, message: Message, connection: int) -> Answer:
        at = time.monotonic()
        is_probe = message.method == "GET" and message.path.partition("?")[0] in self._probe_paths
        with self._log.changed:
            fault = (self.probes if is_probe else self.calls).draw()
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            place = self._log.reserve()
        # Outside of the lock, for a fault of somebody's own may take its time.
        answer = fault.answer(functools.partial(self._replies.reply, message))
        answer = answer._replace(delay_s=answer.delay_s + self.delay_s)
        method, path, _version, headers, body = message
        self._log.fill(
            place,
            SeenRequest(method, path, headers, body, at, connection, fault, is_probe, answer.status),
        )
        return answer

    def _done(self, abandoned: bool) -> None:
        with self._log.changed:
            self._in_flight -= 1
            self._disconnects += abandoned
            self._log.changed.notify_all()
