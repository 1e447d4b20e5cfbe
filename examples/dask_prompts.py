"""Ten thousand prompts on many machines, with Dask: start a scheduler and workers, then run this file.

    export HOLYSHEEP_API_KEYS=key-1,key-2 OPENROUTER_API_KEY=key-3 REDIS_URL=redis://127.0.0.1:6379/0
    dask scheduler; dask worker tcp://scheduler:8786 --nthreads 16     # with the same environment on each machine
    python dask_prompts.py tcp://scheduler:8786 prompts.txt > answers.jsonl

The client is sent along with the function. It travels as its configuration: each worker reads the keys from its own
environment, and all its tasks share what is known and the connections. Without an address a cluster is started on this machine.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Dict, Optional

from dask.distributed import Client, LocalCluster

from syncfailover import FailoverClient, FailoverError


def ask(client: FailoverClient, prompt: str) -> Dict[str, Any]:
    """Ask one prompt; an error is an answer, too, so that one bad prompt does not end the run."""
    try:
        reply = client.chat(prompt, timeout=60)
    except FailoverError as error:
        return {"prompt": prompt, "error": str(error)}
    return {"prompt": prompt, "text": reply.text, "endpoint": reply.endpoint, "cost_usd": reply.cost_usd}


def main(path: str, address: Optional[str] = None) -> None:
    """Ask all prompts of a file, a line each, and print the answers in their order."""
    client = FailoverClient.from_env(state=os.environ.get("REDIS_URL"), model="gpt-4.1", queue_timeout=30)
    prompts = Path(path).read_text(encoding="utf-8").splitlines()
    with LocalCluster(n_workers=2, dashboard_address=None) if address is None else Client(address) as place:
        dask = place if address is not None else place.get_client()
        for answer in dask.gather(dask.map(partial(ask, client), prompts, pure=False, retries=2)):
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*reversed(sys.argv[1:]))
