"""A batch job: one prompt per line on standard input, one answer per line, as JSON, on standard output.

    HOLYSHEEP_API_KEYS=... python examples/batch_job.py < prompts.txt > answers.jsonl

Kill it when you like and start it again: what was answered is in run.sqlite and is not asked again, what failed is.
Keys, endpoints and the client are in `llm.py`, next to this file.
"""

import json
import os
import sys

from llm import client


def main() -> None:
    """Print the answers, and exit with 1 where some are missing."""
    prompts = [line.strip() for line in sys.stdin if line.strip()]
    checkpoint = os.environ.get("CHECKPOINT", "run.sqlite")
    with client:  # closes it at the end
        replies = client.map(prompts, progress=sys.stderr.isatty(), checkpoint=checkpoint, timeout=120)
    failures = 0
    for prompt, reply in zip(prompts, replies):
        if isinstance(reply, Exception):
            failures += 1
            print(json.dumps({"prompt": prompt, "error": str(reply)}))
        else:
            print(json.dumps({"prompt": prompt, "answer": reply.text, "cost_usd": reply.cost_usd}))
    if failures:
        sys.exit(f"{failures} of {len(prompts)} failed; start it again to ask for these")


if __name__ == "__main__":
    main()
