"""A Celery application over Redis."""

import os
from typing import Any, Dict

import asking
from celery import Celery

app = Celery(broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@app.task
def ask(question: str, stream: bool) -> Dict[str, Any]:
    """Answer a question."""
    return asking.ask(question, stream)


@app.task
def state() -> Dict[str, Any]:
    """Say what this process knows."""
    return asking.state()
