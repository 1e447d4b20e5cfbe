"""Ten thousand prompts on many machines, with Celery: start workers, then run this file.

    export HOLYSHEEP_API_KEYS=key-1,key-2 OPENROUTER_API_KEY=key-3 REDIS_URL=redis://127.0.0.1:6379/0
    celery -A celery_prompts worker --concurrency 8          # on as many machines as you like
    python celery_prompts.py prompts.txt > answers.jsonl     # once; again after a crash: what is answered is not asked

All workers share what they know of the endpoints (`state=`): one probes each endpoint, an outage that one of them finds
is known to all within half a second, and the retry budget is one for all.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Dict

from celery import Celery, Task
from celery.exceptions import Ignore
from celery.result import AsyncResult

from syncfailover import AllEndpointsFailed, DeadlineExceeded, FailoverClient, NoEndpointAvailable

REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

app = Celery("celery_prompts", broker=REDIS, backend=REDIS)
app.conf.update(
    task_acks_late=True,  # a worker that is killed has not answered: somebody else asks
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,  # or a slow worker keeps prompts that another one could ask
    result_expires=7 * 24 * 3600,  # seconds for which a run can be taken up again
    result_extended=False,
)
# Made at import and forked with the worker's processes: each of them has its own threads and connections.
client = FailoverClient.from_env(state=REDIS, model="gpt-4.1")


@app.task(bind=True, max_retries=None, time_limit=120)
def ask(self: Task, prompt: str) -> Dict[str, Any]:
    """Ask one prompt; while nobody can answer, come back later instead of failing."""
    if app.AsyncResult(self.request.id).successful():  # it stood in the line twice
        raise Ignore
    try:
        reply = client.chat(prompt, timeout=60)
    except (NoEndpointAvailable, AllEndpointsFailed, DeadlineExceeded) as error:
        raise self.retry(exc=error, countdown=getattr(error, "retry_after", None) or 5) from None
    return {"prompt": prompt, "text": reply.text, "endpoint": reply.endpoint, "cost_usd": reply.cost_usd}


def started(prompt: str, nth: int) -> AsyncResult:
    """Start a prompt's task, unless its answer is there already: its name says what it asks."""
    name = hashlib.sha256(f"{nth}\0{prompt}".encode()).hexdigest()
    result = app.AsyncResult(name)
    return result if result.successful() else ask.apply_async((prompt,), task_id=name)


def main(path: str) -> None:
    """Ask all prompts of a file, a line each, and print the answers in their order."""
    prompts = Path(path).read_text(encoding="utf-8").splitlines()
    for result in [started(prompt, nth) for nth, prompt in enumerate(prompts)]:
        answer = result.get(propagate=False)
        print(json.dumps(answer if isinstance(answer, dict) else {"error": str(answer)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
