"""A Flask view whose answers survive the death of an endpoint.

    python examples/flask_app.py
    curl 'http://127.0.0.1:8000/ask?q=What+is+failover'

Keys, endpoints and the client are in `llm.py`, next to this file.
"""

import os

from flask import Flask, Response, jsonify, request
from llm import client

from syncfailover import FailoverError

app = Flask(__name__)


@app.get("/ask")
def ask() -> Response:
    """Answer a question."""
    reply = client.chat(request.args["q"], timeout=20)
    return jsonify(answer=reply.text, endpoint=reply.endpoint)


@app.errorhandler(FailoverError)
def no_answer(error: FailoverError) -> Response:
    """Say so when nobody could answer; the log has the attempts."""
    app.logger.error("%s", error)
    response = jsonify(error="The assistant is not available, please try again later.")
    response.status_code = 503
    return response


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
