"""Asks from the two processes of a pool, which it starts in the way that the command line names; a line for each answer."""

import json
import multiprocessing
import os
import sys
from typing import Any, Dict

import asking


def ask(question: str) -> Dict[str, Any]:
    """Answer a question, and say what this process knows by then."""
    answer = asking.ask(question, stream=question.endswith("s"))
    return {"question": question, **answer, **asking.state()}


if __name__ == "__main__":
    questions = [f"{os.getpid()}-{number}{'s' * (number % 2)}" for number in range(200)]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        for answered in pool.imap_unordered(ask, questions):
            sys.stdout.write(json.dumps(answered) + "\n")
            sys.stdout.flush()
        pool.close()
        pool.join()
    sys.stdout.write(json.dumps(ask("parent")) + "\n")
