"""A Flask application."""

from typing import Any

import asking
from flask import Flask, request

app = application = Flask(__name__)


@app.get("/ask")
def ask() -> Any:
    """Answer a question."""
    return asking.ask(request.args["q"], "stream" in request.args)


@app.get("/state")
def state() -> Any:
    """Say what this process knows."""
    return asking.state()
