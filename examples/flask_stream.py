"""A Flask view that sends an answer on while it comes, and survives the death of an endpoint even then.

    python examples/flask_stream.py
    curl -N 'http://127.0.0.1:8000/ask?q=What+is+failover'

Keys, endpoints and the client are in `llm.py`, next to this file.
"""

import json
import os
from typing import Any, Iterator

from flask import Flask, Response, jsonify, request
from llm import client

from syncfailover import ChatStream, FailoverError, Timeouts

app = Flask(__name__)


@app.get("/ask")
def ask() -> Response:
    """Answer a question with server-sent events."""
    # Opened here and not by the generator: while it is this view that waits, an outage is a 503.
    stream = client.chat(
        request.args["q"], stream=True, on_break="restart", timeout=Timeouts(total=300, stall=15)
    )
    return Response(events(stream), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


def events(stream: ChatStream) -> Iterator[str]:
    """Make events of an answer; a browser that goes away closes this generator, and so the stream."""
    with stream:
        try:
            for chunk in stream:
                if chunk.restarted:
                    yield event({"restart": True})
                if chunk.text:
                    yield event({"text": chunk.text})
        except FailoverError as error:  # a StreamInterrupted, mostly; the status 200 has been sent by now
            app.logger.error("%s", error)  # noqa: TRY400 - the message has all attempts; a traceback adds nothing
            yield event({"error": "The answer broke off, please try again later."}, "error")
            return
    yield event({}, "end")


def event(data: Any, name: str = "message") -> str:
    """Write a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


@app.errorhandler(FailoverError)
def no_answer(error: FailoverError) -> Response:
    """Say so when nobody could answer; the log has the attempts."""
    app.logger.error("%s", error)
    response = jsonify(error="The assistant is not available, please try again later.")
    response.status_code = 503
    return response


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
