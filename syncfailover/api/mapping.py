"""`client.map`: many prompts, each asked as `client.chat` asks it, by a few threads; and again only what has no answer yet."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from contextlib import contextmanager
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sized,
)

from ..caller import Caller
from ..completion.reply import ChatReply
from ..completion.stored import restored, stored
from ..errors import ConfigurationError
from ..extras import Extras
from ..payload import Shown, body_of, canonical, rest_of
from ..runtime.mapper import MOMENT_S, Mapper
from ..validation import integer, reject
from .asking import Timeout, checked
from .chat import Chat, messages_of
from .progress import shown

if TYPE_CHECKING:
    from ..runtime.checkpoint_writer import CheckpointWriter

logger = logging.getLogger(__name__)

#: What a call takes that is no field of its payload; `stream`, `model` and `timeout` are looked at apart.
_OPTIONS = ("affinity", "extra_body", "extra_headers", "extra_query", "on_break", "wire_stream")
#: Bytes of the number that tells equal prompts apart.
_NUMBER_BYTES = 8


class Job(NamedTuple):
    """One prompt."""

    prompt: Any
    #: By which its answer is kept; None for none.
    key: Optional[bytes] = None


def chat_all(
    caller: Caller,
    chat: Chat,
    prompts: Iterable[Any],
    *,
    concurrency: int,
    progress: bool,
    checkpoint: Any,
    model: Optional[str],
    timeout: Timeout,
    params: Dict[str, Any],
) -> List[Any]:
    """Ask all of the prompts; see `FailoverClient.map`."""
    integer("concurrency", concurrency, minimum=1)
    if not isinstance(progress, bool):
        raise reject("progress", Shown(progress), "True or False")
    things = _iterable(prompts)
    asked_alike = _checked(caller, model, timeout, params)

    def ask(prompt: Any) -> Any:
        return chat(prompt, model=model, timeout=timeout, **params)

    total = len(prompts) if isinstance(prompts, Sized) else None
    if checkpoint is None:
        with shown(total, wanted=progress) as tell:
            return Mapper(ask, concurrency, tell).run(things)
    with _kept(checkpoint) as answers, shown(total, wanted=progress) as tell:
        keys = Keys(asked_alike)
        work = _Resumed(ask, answers)
        results = Mapper(work, concurrency, tell).run(_until_trouble(map(keys.job, things), answers))
        if answers.trouble is not None:
            raise _broken(answers.trouble, results)
        return results


def _iterable(prompts: Any) -> Iterator[Any]:
    allowed = "an iterable of texts, or of lists of messages"
    if isinstance(prompts, (str, bytes, Mapping)):
        raise reject("prompts", Shown(prompts), f"{allowed}; client.chat takes one")
    try:
        return iter(prompts)
    except TypeError:
        raise reject("prompts", Shown(prompts), allowed) from None


def _checked(caller: Caller, model: Optional[str], timeout: Timeout, params: Dict[str, Any]) -> bytes:
    """Check what all calls have in common, and return what of it decides about the answers."""
    caller.check_open()
    chosen = caller.model_for(model)
    caller.terms.timeouts_for(timeout)
    if params.get("stream"):
        allowed = "to be left out: map returns whole replies; wire_stream=True has them sent as streams"
        raise reject("stream", Shown(params["stream"]), allowed)
    for name in ("messages", "prompt"):
        if name in params:
            raise reject(name, Shown(params[name]), "to be left out: the prompts are what is asked")
    options = {name: value for name, value in params.items() if name in _OPTIONS}
    fields = {name: value for name, value in params.items() if name not in options and name != "stream"}
    payload = checked(caller, fields, **options).payload
    extras = Extras.of(options.get("extra_headers"), options.get("extra_query"))
    body = json.loads(body_of(chosen, rest_of(payload)))
    return canonical([body, None if extras is None else extras.content()])


# The checkpoint


class Keys:
    """Gives each prompt the key by which its answer is kept: what it asks for, and how many have asked for that before.

    Args:
        asked_alike: what all the prompts have in common.

    """

    def __init__(self, asked_alike: bytes) -> None:
        self._begun = hashlib.sha256(asked_alike)
        self._seen: Counter[bytes] = Counter()

    def job(self, prompt: Any) -> Job:
        """Return a prompt with its key; none where it cannot be sent, which the call itself will say."""
        try:
            messages = messages_of(
                prompt
            )  # a copy: a list that grows while it waits would be asked under a wrong key
            text = canonical(messages)
        except Exception:  # noqa: BLE001 - whatever it is, the call will raise it, too
            return Job(prompt)
        hashed = self._begun.copy()
        hashed.update(text)
        digest = hashed.digest()
        number = self._seen[digest]
        self._seen[digest] += 1
        return Job(messages, digest + number.to_bytes(_NUMBER_BYTES, "big"))


class _Resumed:
    """Asks only where there is no answer yet, and keeps what it gets before it returns it.

    Args:
        ask: asks one prompt.
        answers: where they are kept.

    """

    def __init__(self, ask: Callable[[Any], ChatReply], answers: CheckpointWriter) -> None:
        self._ask = ask
        self._answers = answers

    def __call__(self, job: Job) -> Optional[ChatReply]:
        answers, key = self._answers, job.key
        if key is None:
            return self._ask(job.prompt)
        if key in answers.known:
            reply = restored(answers.read(key) or "")
            if reply is not None:
                return reply
        if not answers.takes:  # what cannot be kept is not bought
            return None
        if key in answers.known:
            logger.warning("checkpoint: an answer in it cannot be read; it is asked for again")
        reply = self._ask(job.prompt)
        answers.write(key, stored(reply))
        return reply


@contextmanager
def _kept(checkpoint: Any) -> Iterator[CheckpointWriter]:
    """Open a checkpoint, and close it at the end: without waiting for long where this thread was interrupted."""
    allowed = "the path of a file, as a text or a pathlib.Path"
    path = os.fspath(checkpoint) if isinstance(checkpoint, os.PathLike) else checkpoint
    if not isinstance(path, str) or not path:
        raise reject("checkpoint", Shown(checkpoint), allowed)
    try:
        from ..runtime.checkpoint_writer import CheckpointWriter  # noqa: PLC0415 - it loads sqlite3
    except ImportError:
        raise reject("checkpoint", path, "None, for this Python has no sqlite3") from None
    answers = CheckpointWriter(path)
    patience: Optional[float] = MOMENT_S
    try:
        answers.open()
        yield answers
        patience = None
    finally:
        answers.close(patience)


def _until_trouble(jobs: Iterable[Job], answers: CheckpointWriter) -> Iterator[Job]:
    """Pass jobs on for as long as their answers can be kept."""
    for job in jobs:
        if answers.trouble is not None:
            return
        yield job


def _broken(trouble: ConfigurationError, results: List[Any]) -> ConfigurationError:
    """Make the error for a checkpoint that failed in the middle, with all that was answered."""
    told = f"{trouble}; all that was answered is in .results of this error"
    return ConfigurationError(told, field=trouble.field, value=trouble.value, results=results)
