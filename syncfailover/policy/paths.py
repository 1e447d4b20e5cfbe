"""What is known of the API's paths: what a good reply to each holds, and what kind of stream comes from it."""

from __future__ import annotations

from typing import Dict, Optional, Type

from .progress import AnyProgress, ChoicesProgress, Progress, ResponsesProgress

#: By the whole path; others may answer what they like.
_EXPECTS = {
    "chat/completions": "choices",
    "completions": "choices",
    "embeddings": "data",
    "models": "data",
    "responses": "output",
}
#: By the last part of the path: some gateways put more before it.
_STREAMS: Dict[str, Type[Progress]] = {"completions": ChoicesProgress, "responses": ResponsesProgress}


def expected_of(path: str) -> Optional[str]:
    """Return what a good reply to a path, relative to the base URL, holds; see `classify`."""
    return _EXPECTS.get(path.split("?", 1)[0])


def progress_of(path: str) -> Type[Progress]:
    """Return the kind of stream that a path of the API brings."""
    last = path.split("?", 1)[0].rstrip("/").rpartition("/")[2]
    return _STREAMS.get(last, AnyProgress)
