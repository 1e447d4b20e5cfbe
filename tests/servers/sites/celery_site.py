"""A Celery application over Redis, whose tasks leave what came of them in a list named after the task."""

import json
import os
from typing import Any, Dict

import asking
import redis
from celery import Celery

app = Celery(broker=os.environ["REDIS_URL"])


def tell(task: Any, result: Dict[str, Any]) -> None:
    """Leave a result where it is waited for."""
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as results:
        results.rpush(task.request.id, json.dumps(result))


@app.task(bind=True)
def ask(self: Any, question: str, stream: bool) -> None:
    """Answer a question."""
    tell(self, asking.ask(question, stream))


@app.task(bind=True)
def state(self: Any) -> None:
    """Say what this process knows."""
    tell(self, asking.state())
