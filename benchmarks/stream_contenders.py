"""Who reads a stream, and how: as somebody would write it who uses that library."""
# ruff: noqa: PLC0415 - each process imports only its own contender

import json
import os
import re

from contenders import MESSAGES, OPTIONS, PAYLOAD
from upstream import MODEL

#: Seconds: no stream here ends by the clock.
_LONG_S = 600.0
_PATH = "/chat/completions"
_STREAMED = {**PAYLOAD, "stream": True}
_CONTENT = re.compile(rb'"content":"([^"]*)"')

# Each maker takes the upstream's base URL and returns (pieces, text): what iterates over the stream that is wanted of
# the upstream, and what a list of pieces says, which is asked after the measurement.


def bare_requests(base):
    import requests

    session = requests.Session()

    def pieces(wanted):
        with session.post(base + _PATH, json={**_STREAMED, "user": wanted}, stream=True) as response:
            raw = response.raw
            if hasattr(raw, "read1"):  # urllib3 has it since 2.2
                yield from iter(raw.read1, b"")
            else:
                yield from raw.stream()

    return pieces, lambda got: b"".join(_CONTENT.findall(b"".join(got))).decode()


def by_hand(base):
    import requests

    session = requests.Session()

    def pieces(wanted):
        with session.post(base + _PATH, json={**_STREAMED, "user": wanted}, stream=True) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith(b"data: ") and line != b"data: [DONE]":
                    yield json.loads(line[6:])["choices"][0]["delta"].get("content")

    return pieces, _text


def openai_sdk(base):
    from openai import OpenAI

    return _as_in_the_sdk(OpenAI(base_url=base, api_key="sk-benchmark", max_retries=3))


def failover_openai(base):
    from syncfailover.contrib.openai import failover_openai as make

    return _as_in_the_sdk(make(_client(base)))


def _as_in_the_sdk(client):
    def pieces(wanted):
        stream = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, user=wanted, **OPTIONS
        )
        for chunk in stream:
            yield chunk.choices[0].delta.content

    return pieces, _text


def litellm_completion(base):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its price list would be fetched from the net
    import litellm

    litellm.telemetry = False

    def pieces(wanted):
        for chunk in litellm.completion(
            model=f"openai/{MODEL}",
            messages=MESSAGES,
            stream=True,
            api_base=base,
            api_key="sk-benchmark",
            user=wanted,
            **OPTIONS,
        ):
            yield chunk.choices[0].delta.content

    return pieces, _text


def chat_choices(base):
    client = _client(base)

    def pieces(wanted):
        for chunk in client.chat(MESSAGES, stream=True, user=wanted, **OPTIONS):
            yield chunk.choices[0].delta.content

    return pieces, _text


def chat_text(base):
    client = _client(base)

    def pieces(wanted):
        for chunk in client.chat(MESSAGES, stream=True, user=wanted, **OPTIONS):
            yield chunk.text

    return pieces, _text


def chat_collected(base):
    client = _client(base)

    def pieces(wanted):
        yield client.chat(MESSAGES, stream=True, user=wanted, **OPTIONS).collect().text

    return pieces, _text


def stream_of(base, wanted):
    """Open one stream of ours."""
    return _client(base).chat(MESSAGES, stream=True, user=wanted, **OPTIONS)


def _client(base):
    from syncfailover import FailoverClient

    client = FailoverClient(_endpoints(base), model=MODEL, timeout=_LONG_S)
    if not client.wait_until_ready(5.0):
        raise RuntimeError("the monitor found nobody alive")
    return client


def _endpoints(base):
    from syncfailover import Endpoint

    return [
        Endpoint(f"relay-{n}", base, f"sk-benchmark-{n}", max_latency_ms=1000, prices={MODEL: (2, 8)})
        for n in range(3)
    ]


def _text(got):
    return "".join(filter(None, got))


BARE = "requests, `raw.read1()`, nothing decoded"
BY_HAND = "requests, `iter_lines()` and `json.loads`"
OPENAI = "openai SDK"
FAILOVER_OPENAI = "**syncfailover** contrib.openai"
LITELLM = "litellm.completion"
CHOICES = "**syncfailover** `chunk.choices[0].delta.content`"
TEXT = "**syncfailover** `chunk.text`"
COLLECT = "**syncfailover** `collect()`"
#: Without these there is nothing to compare; the others take part where they are installed.
REQUIRED = (BARE, BY_HAND, OPENAI, CHOICES, TEXT, COLLECT)
#: Name -> how it is made.
READERS = {
    BARE: bare_requests,
    BY_HAND: by_hand,
    TEXT: chat_text,
    CHOICES: chat_choices,
    COLLECT: chat_collected,
    OPENAI: openai_sdk,
    FAILOVER_OPENAI: failover_openai,
    LITELLM: litellm_completion,
}
#: Those to whom each piece is known by itself.
PIECEWISE = tuple(name for name in READERS if name != COLLECT)
