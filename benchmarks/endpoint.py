"""One endpoint of the drill in a process of its own: a FakeUpstream that breaks and mends on command.

`python endpoint.py` says its port, then reads a line of JSON per command and answers with one.
"""

import json
import os
import sys
import time

from upstream import TEXT

from syncfailover.testing import FakeUpstream, Hang, Ok, Status

#: What a good answer takes, in seconds: it paces the eight threads, so that they are compared and not the machine.
SERVICE_S = 0.02

#: Fault -> how it begins. Errors come at once, for an endpoint that refuses has no work to do.
FAULTS = {
    "kill": FakeUpstream.kill,
    "503": lambda upstream: upstream.always(Status(503)),
    "429": lambda upstream: upstream.always(Status(429, headers={"Retry-After": "1"})),
    "hang": lambda upstream: upstream.always(Hang()),
    "blackhole": FakeUpstream.blackhole,
}


def mend(upstream):
    upstream.probes.heal()
    upstream.calls.always(Ok(delay_s=SERVICE_S))
    upstream.revive()


def serve():
    """Carry out commands until standard input ends."""
    with FakeUpstream(text=TEXT) as upstream:
        mend(upstream)
        _say({"port": upstream.port})
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "log":
                _say({"calls": [(call.at, call.status) for call in upstream.calls.requests]})
                continue
            began = time.monotonic()
            {**FAULTS, "mend": mend}[command["do"]](upstream)
            _say({"began": began, "done": time.monotonic()})
        os._exit(0)  # whoever still hangs is let go


def _say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
