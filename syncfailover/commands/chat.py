"""The `chat` command: one question, one answer, and on request the story of how it was come by."""

import argparse
import json
import sys
from contextlib import contextmanager, suppress
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ..client import FailoverClient
from ..completion.reply import ChatReply
from ..embedded import MODEL, embedded_upstreams, endpoints_of
from ..errors import ConfigurationError, FailoverError
from ..events import AttemptRecord
from ..testing import Status
from ..text_table import Cell, Column, Line, glyphs_for, plain, table, width_of
from .arguments import add_config, found_settings, number_from
from .question import asked

_DEMO_QUESTION = "Explain failover in two sentences."
_DEMO_ANSWER = (
    "I am {name}, an endpoint embedded in this command: no key, no network, no model. "
    "Another endpoint was asked first and answered 503, so the call came to me; -v shows it."
)


def add_to(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "chat",
        help="ask a question and print the answer",
        description="Ask the configured endpoints and print the answer. The question is TEXT; without a TEXT, or for "
        "-, it is read from stdin. What is piped in beside a TEXT follows it, after a blank line: "
        '`git diff | syncfailover chat "Review this:"`; it has to begin within a second.',
        epilog="Exit codes: 0 answered, 1 no endpoint could answer (stderr says what was tried), 2 wrong usage or "
        "configuration. Keys are taken from the environment and the configuration file only.",
    )
    parser.set_defaults(command=_chat)
    add = parser.add_argument
    add("text", nargs="?", metavar="TEXT", help="the question; - reads it from stdin")
    add("--model", help="the model to ask (default: the configuration's)")
    add("--system", metavar="TEXT", help="instructions that go before the question")
    add("--timeout", type=number_from(0.01), help="seconds for the whole call, all attempts together")
    source = parser.add_mutually_exclusive_group()
    add_config(source)
    source.add_argument(
        "--demo",
        action="store_true",
        help="let endpoints embedded in this command answer, of which one fails; needs no key and no network",
    )
    add(
        "--json",
        action="store_true",
        help="print the whole reply, as the provider sent it, instead of its text",
    )
    add("-v", "--verbose", action="store_true", help="tell on stderr every attempt, the usage and the cost")


def _chat(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        question = asked(arguments.text) or (_DEMO_QUESTION if arguments.demo else "")
        if not question:
            raise ConfigurationError("there is no question: give a TEXT, or pipe one in")
        try:
            reply = client.chat(
                _messages(arguments.system, question), model=arguments.model, timeout=arguments.timeout
            )
        except FailoverError as error:
            attempts = getattr(error, "attempts", ())
            if arguments.verbose and attempts:
                _tell(ledger(attempts))
            raise
    answer = json.dumps(reply.raw, indent=2) if arguments.json else reply.text
    sys.stdout.write(answer if answer.endswith("\n") else f"{answer}\n")
    sys.stdout.flush()  # before the story, where both go to one place
    if arguments.verbose:
        _tell([*ledger(reply.attempts), summary(reply)])
    return 0


# Whom to ask, and what


@contextmanager
def _client(arguments: argparse.Namespace) -> Iterator[FailoverClient]:
    """Make a client for one call, for which nobody has to be probed."""
    if arguments.demo:
        with embedded_upstreams(_DEMO_ANSWER) as upstreams:
            upstreams["alpha"].script(Status(503))
            with FailoverClient(endpoints_of(upstreams), model=MODEL, probe_when="never") as client:
                yield client
        return
    found = found_settings(arguments.config, "syncfailover chat --demo needs none of it")
    options: Dict[str, Any] = {**found.options, "probe_when": "never"}
    if arguments.model is None and options.get("model") is None:
        raise ConfigurationError(
            "model: none is given; name one with --model, or set it in the configuration"
        )
    with FailoverClient(found.endpoints, **options) as client:
        yield client


def _messages(system: Optional[str], question: str) -> List[Dict[str, str]]:
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": question}]


# How it is told


def ledger(attempts: Sequence[AttemptRecord]) -> List[str]:
    """Write a line per attempt, as wide as the terminal takes."""
    columns = (
        Column("endpoint", 8),
        Column("outcome", 10, elastic=True),
        Column("wait", align=">", rank=4),
        Column("latency", align=">", rank=1),
        Column("cost", align=">", rank=2),
        Column("billed", rank=3),
    )
    ellipsis = glyphs_for(sys.stderr).ellipsis
    return [plain(line) for line in table(columns, list(map(_row, attempts)), width_of(sys.stderr), ellipsis)]


def _row(attempt: AttemptRecord) -> Line:
    answered = attempt.outcome == "ok"
    billed = "no" if not attempt.maybe_billed else "yes" if answered else "maybe"
    outcome = "answered" if answered else f"{attempt.outcome}: {attempt.detail}"
    texts = (
        attempt.endpoint,
        outcome,
        f"{attempt.wait_s:.1f} s",
        f"{attempt.latency_ms:.0f} ms",
        "-" if attempt.cost_usd is None else f"${attempt.cost_usd:.6f}",
        billed,
    )
    return [Cell(text) for text in texts]


def summary(reply: ChatReply) -> str:
    """Say in one line who answered, how long it took, and what it cost."""
    usage = reply.usage if isinstance(reply.usage, Mapping) else {}
    tokens = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    used = "usage unknown" if None in tokens else f"{tokens[0]} tokens in, {tokens[1]} out"
    cost = "cost unknown" if reply.cost_usd is None else f"${reply.cost_usd:.6f}"
    tries = f"{len(reply.attempts)} attempt{'' if len(reply.attempts) == 1 else 's'}"
    model = reply.raw.get("model", "model unknown")
    return f"{reply.endpoint} answered in {reply.latency_ms:.0f} ms, {tries}: {model}, {used}, {cost}"


def _tell(lines: Sequence[str]) -> None:
    with suppress(OSError):  # the answer is there, whoever reads the story
        sys.stderr.write("\n".join([*lines, ""]))
        sys.stderr.flush()
