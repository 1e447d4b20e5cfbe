"""Who takes part in the drill. Each runs in a process of its own: eight threads that call back to back for a time.

`python drilled.py NAME ORIGIN...` says that it is ready, reads when to begin and when to end, and answers with all that
it saw.
"""
# ruff: noqa: PLC0415 - each process imports only its own contender

import collections
import json
import os
import socket
import sys
import threading
import time

from contenders import MESSAGES, OPTIONS, PATH, PAYLOAD
from upstream import MODEL, TEXT

#: Seconds that each may take for one attempt.
ATTEMPT_S = 2.0
#: Seconds that ours may take for a whole call; the others have no such bound.
CALL_S = 30.0
#: Seconds that its owner waits for the last calls to end.
PATIENCE_S = 60.0

# Each maker takes the origins and what notes attempts, and returns (call, the reply's text).


def plain(origins, attempts):
    return _ours(origins, attempts)


def hedged(origins, attempts):
    return _ours(origins, attempts, hedge_after="p95")


def _ours(origins, attempts, **options):
    from syncfailover import Endpoint, FailoverClient, Timeouts

    endpoints = [
        Endpoint(name, origin + "/v1", f"sk-drill-{name}", max_latency_ms=1000)
        for name, origin in zip("abc", origins)
    ]
    timeouts = Timeouts(total=CALL_S, read=ATTEMPT_S)
    client = FailoverClient(endpoints, model=MODEL, timeout=timeouts, **options)
    if not client.wait_until_ready(5.0):
        raise RuntimeError("the monitor found nobody alive")
    client.on("attempt", attempts.note)
    return lambda: client.chat(MESSAGES, **OPTIONS), lambda reply: reply.text


def litellm_router(origins, _attempts):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its price list would be fetched from the net
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    deployments = [
        {
            "model_name": MODEL,
            "litellm_params": {
                "model": f"openai/{MODEL}",
                "api_base": origin + "/v1",
                "api_key": "sk-drill",
            },
        }
        for origin in origins
    ]
    router = litellm.Router(model_list=deployments, num_retries=3, timeout=ATTEMPT_S)

    def call():
        return router.completion(model=MODEL, messages=MESSAGES, **OPTIONS)

    return call, lambda reply: reply.choices[0].message.content


def elastic_transport(origins, _attempts):
    from elastic_transport import NodeConfig, Transport

    nodes = [NodeConfig("http", "127.0.0.1", int(origin.rsplit(":", 1)[1])) for origin in origins]
    transport = Transport(nodes, max_retries=3, retry_on_timeout=True)
    headers = {"content-type": "application/json", "accept": "application/json"}

    def call():
        return transport.perform_request(
            "POST", PATH, headers=headers, body=PAYLOAD, request_timeout=ATTEMPT_S
        )

    def text(reply):
        if reply.meta.status >= 400:  # it leaves that to its caller
            raise RuntimeError(f"HTTP {reply.meta.status}")
        return reply.body["choices"][0]["message"]["content"]

    return call, text


def openai_sdk(origins, _attempts):
    from openai import OpenAI

    client = OpenAI(base_url=origins[0] + "/v1", api_key="sk-drill", max_retries=3, timeout=ATTEMPT_S)

    def call():
        return client.chat.completions.create(model=MODEL, messages=MESSAGES, **OPTIONS)

    return call, lambda reply: reply.choices[0].message.content


PLAIN = "**syncfailover**"
HEDGED = '**syncfailover**, `hedge_after="p95"`'
CONTENDERS = {
    PLAIN: plain,
    HEDGED: hedged,
    "elastic-transport": elastic_transport,
    "litellm Router": litellm_router,
    "openai SDK (A alone)": openai_sdk,
}


class _Attempts:
    """The attempts at endpoint A as its contender's own ledger has them, each with its time."""

    def __init__(self):
        self.at = []

    def note(self, event):
        if event.endpoint == "a":
            self.at.append((time.monotonic() - event.data.latency_ms / 1000.0, event.data.outcome))


class _Dials:
    """The connections that calls tried to open to A: a dead port's owner cannot count them."""

    def __init__(self, origin):
        self.at = []
        port, connect = int(origin.rsplit(":", 1)[1]), socket.socket.connect

        def counted(sock, address):
            probes = threading.current_thread().name.startswith("syncfailover-probe")
            if sock.family == socket.AF_INET and address[1] == port and not probes:
                self.at.append(time.monotonic())
            return connect(sock, address)

        socket.socket.connect = counted


class _Load:
    """Threads that call back to back, and what became of every call."""

    def __init__(self, call, text, begin, end):
        self._call, self._text, self._begin, self._end = call, text, begin, end
        self.calls = []  # (began, ended, None or the failure's name)
        self.failures = collections.Counter()

    def run(self, threads):
        working = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in working:
            thread.start()
        for thread in working:
            thread.join(PATIENCE_S + self._end - time.monotonic())
        return sum(thread.is_alive() for thread in working)

    def _work(self):
        time.sleep(max(0.0, self._begin - time.monotonic()))
        while time.monotonic() < self._end:
            began, failure = time.monotonic(), None
            try:
                reply = self._text(self._call())
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller has no answer
                failure = type(error).__name__
                self.failures[f"{failure}: {error}"[:200]] += 1
            else:
                if reply != TEXT:
                    failure = "wrong text"
                    self.failures[failure] += 1
            self.calls.append((began, time.monotonic(), failure))


def serve(name, origins):
    """Take part once."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    attempts, dials = _Attempts(), _Dials(origins[0])
    try:
        call, text = CONTENDERS[name](origins, attempts)
    except ImportError:
        if name in (PLAIN, HEDGED):
            raise
        out.write(json.dumps({"missing": "not installed"}) + "\n")
        return
    text(call())  # imports and connections are made before the clock runs
    out.write(json.dumps({}) + "\n")
    question = json.loads(sys.stdin.readline())
    load = _Load(call, text, question["begin"], question["end"])
    stuck = load.run(question["threads"])
    answer = {
        "calls": load.calls,
        "stuck": stuck,
        "failures": load.failures.most_common(5),
        "attempts": attempts.at,
        "dials": dials.at,
    }
    out.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
    sys.stderr.flush()
    os._exit(0)  # some libraries' threads would keep it
