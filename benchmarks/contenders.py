"""Who is measured: how each is made, and what a call of it is."""
# ruff: noqa: PLC0415 - each process imports only its own contender

import json
import os

from upstream import MODEL

MESSAGES = [
    {"role": "system", "content": "You are a careful assistant. Answer in plain English, without lists."},
    {
        "role": "user",
        "content": "Explain in two or three sentences what failover means for somebody who calls an API.",
    },
]
OPTIONS = {"temperature": 0.2, "max_tokens": 256}
PAYLOAD = {"model": MODEL, "messages": MESSAGES, **OPTIONS}

PATH = "/v1/chat/completions"
_JSON = {"Content-Type": "application/json"}


def _text_of(payload):
    return payload["choices"][0]["message"]["content"]


# Each maker takes the origins and returns (call, text): what is timed, and how its result is checked afterwards.


def bare_requests(origins):
    import requests

    session, url = requests.Session(), origins[0] + PATH
    return lambda: session.post(url, json=PAYLOAD), lambda reply: _text_of(reply.json())


def requests_and_json(origins):
    import requests

    session, url = requests.Session(), origins[0] + PATH
    return lambda: session.post(url, json=PAYLOAD).json(), _text_of


def urllib3_pool(origins):
    import urllib3

    pool, url = urllib3.PoolManager(), origins[0] + PATH

    def call():
        return pool.request("POST", url, body=json.dumps(PAYLOAD).encode(), headers=_JSON)

    return call, lambda reply: _text_of(json.loads(reply.data))


def prepared_request(origins):
    import requests

    adapter = requests.adapters.HTTPAdapter()
    prepared = requests.Request("POST", origins[0] + PATH, json=PAYLOAD).prepare()

    def call():
        response = adapter.send(prepared)
        _ = response.content  # the session would have read it
        return response

    return call, lambda reply: _text_of(reply.json())


def requests_and_tenacity(origins):
    import requests
    import tenacity

    session, url = requests.Session(), origins[0] + PATH
    retried = tenacity.retry(
        stop=tenacity.stop_after_attempt(4),
        wait=tenacity.wait_exponential(multiplier=0.5, max=8),
        retry=tenacity.retry_if_exception_type(requests.RequestException),
    )

    @retried
    def call():
        response = session.post(url, json=PAYLOAD)
        response.raise_for_status()
        return response

    return call, lambda reply: _text_of(reply.json())


def elastic_transport(origins):
    from elastic_transport import NodeConfig, Transport

    nodes = [NodeConfig("http", "127.0.0.1", int(origin.rsplit(":", 1)[1])) for origin in origins]
    transport = Transport(nodes, max_retries=3)
    headers = {"content-type": "application/json", "accept": "application/json"}

    def call():
        return transport.perform_request("POST", PATH, headers=headers, body=PAYLOAD)

    return call, lambda reply: _text_of(reply.body)


def openai_sdk(origins):
    from openai import OpenAI

    client = OpenAI(base_url=origins[0] + "/v1", api_key="sk-benchmark", max_retries=3)

    def call():
        return client.chat.completions.create(model=MODEL, messages=MESSAGES, **OPTIONS)

    return call, lambda reply: reply.choices[0].message.content


def failover_openai(origins):
    import openai  # noqa: F401 - where it is not installed, there is nothing to measure

    from syncfailover.contrib.openai import failover_openai as make

    client = make(client_of(endpoints_of(origins)))

    def call():
        return client.chat.completions.create(model=MODEL, messages=MESSAGES, **OPTIONS)

    return call, lambda reply: reply.choices[0].message.content


def litellm_router(origins):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its price list would be fetched from the net
    import litellm

    litellm.telemetry = False
    deployments = [
        {
            "model_name": MODEL,
            "litellm_params": {
                "model": f"openai/{MODEL}",
                "api_base": origin + "/v1",
                "api_key": "sk-benchmark",
            },
        }
        for origin in origins
    ]
    router = litellm.Router(model_list=deployments, num_retries=3)

    def call():
        return router.completion(model=MODEL, messages=MESSAGES, **OPTIONS)

    return call, lambda reply: reply.choices[0].message.content


def endpoints_of(origins, **fields):
    """Make three endpoints of ours with weights 3, 2, 1."""
    from syncfailover import Endpoint

    fields = {"max_latency_ms": 1000, "prices": {MODEL: (2, 8)}, **fields}
    return [
        Endpoint(f"relay-{n}", origin + "/v1", f"sk-benchmark-{n}", weight=3 - n, **fields)
        for n, origin in enumerate(origins)
    ]


def client_of(endpoints, **options):
    """Make a client of ours that has found its endpoints alive."""
    from syncfailover import FailoverClient

    client = FailoverClient(endpoints, model=MODEL, **options)
    if not client.wait_until_ready(5.0):
        raise RuntimeError("the monitor found nobody alive")
    return client


def client_chat(origins):
    client = client_of(endpoints_of(origins))

    def text(reply):
        if not reply.cost_usd or len(reply.attempts) != 1:
            raise AssertionError(f"no cost, or more than one attempt: {reply.cost_usd}, {reply.attempts}")
        return reply.text

    return lambda: client.chat(MESSAGES, **OPTIONS), text


def session_post(origins):
    from syncfailover import FailoverSession

    session = FailoverSession(endpoints_of(origins))
    return lambda: session.post("/chat/completions", json=PAYLOAD), lambda reply: _text_of(reply.json())


BASELINE = "requests.Session().post(url, json=payload)"
CHAT = "**syncfailover** client.chat"
SESSION = "**syncfailover** FailoverSession.post"
PREPARED = "prepared request, HTTPAdapter.send"
ELASTIC = "elastic-transport"
TENACITY = "requests + tenacity"
OPENAI = "openai SDK"
FAILOVER_OPENAI = "**syncfailover** contrib.openai"
LITELLM = "litellm Router"
#: Without these there is nothing to compare; the others take part where they are installed.
REQUIRED = (BASELINE, CHAT, SESSION)
#: Name -> how it is made.
CONTENDERS = {
    BASELINE: bare_requests,
    "the same, and .json()": requests_and_json,
    "urllib3 PoolManager.request": urllib3_pool,
    PREPARED: prepared_request,
    ELASTIC: elastic_transport,
    CHAT: client_chat,
    SESSION: session_post,
    TENACITY: requests_and_tenacity,
    OPENAI: openai_sdk,
    FAILOVER_OPENAI: failover_openai,
    LITELLM: litellm_router,
}
