"""A cron job: summarise what comes in on standard input.

    0 6 * * *  HOLYSHEEP_API_KEYS=... python examples/cron_job.py < /var/log/app/yesterday.log

Keys, endpoints and the client are in `llm.py`, next to this file.
"""

import sys

from llm import client

from syncfailover import FailoverError


def main() -> None:
    """Print the summary, or exit with 1 and say what was tried: cron sends that by mail."""
    with client:  # closes it at the end
        try:
            reply = client.chat(f"Summarise this log in three lines:\n\n{sys.stdin.read()}", timeout=120)
        except FailoverError as error:
            sys.exit(f"no summary: {error}")
    print(reply.text)


if __name__ == "__main__":
    main()
