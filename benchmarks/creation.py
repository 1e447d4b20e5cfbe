"""What making a client costs: nothing is opened, sent or started before its first call."""

import time

import requests
from upstream import MODEL

BASELINE = "requests.Session()"
ENDPOINTS, CLIENT = "three `Endpoint`s", "`FailoverClient`, of three endpoints"
SHARING, SESSION = 'the same with `state="sqlite:///..."`', "`FailoverSession`, of three endpoints"
#: Objects per block; all are kept until its end.
COUNT = 100


def cases():
    """Return name -> a function that returns the milliseconds of wall clock and of CPU that making one takes."""
    from syncfailover import Endpoint, FailoverClient, FailoverSession  # noqa: PLC0415 - whoever only imports us need not

    def endpoints():
        return [Endpoint(name, f"https://{name}.example.com/v1", "key", weight=3) for name in "abc"]

    known = endpoints()
    state = "sqlite:////tmp/never-opened.db"
    makers = {
        BASELINE: requests.Session,
        ENDPOINTS: endpoints,
        CLIENT: lambda: FailoverClient(known, model=MODEL),
        SHARING: lambda: FailoverClient(known, model=MODEL, state=state),
        SESSION: lambda: FailoverSession(known),
    }
    return {name: lambda make=make: _measured(make) for name, make in makers.items()}


def _measured(make):
    kept = [None] * COUNT
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(COUNT):
        kept[number] = make()
    return (time.perf_counter() - wall) / COUNT * 1e3, (time.process_time() - cpu) / COUNT * 1e3
