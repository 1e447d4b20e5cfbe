"""What a healthy OpenAI-compatible endpoint says to each request."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any, Dict, Optional, Sequence

from .faults import Ok, openai_error
from .response_api import response_events, response_from
from .streams import chat_events, completion_events
from .wire import Message, Response, as_response, as_stream

_EMBEDDING_SIZE = 8
_HEALTH = {("GET", "/health"), ("GET", "/v1/health")}
#: How the reply to a POST is taken apart when a stream is asked for.
_STREAMS = {
    "/v1/chat/completions": chat_events,
    "/v1/completions": completion_events,
    "/v1/responses": response_events,
}


class Replies:
    """Routes, bodies and the key check of one upstream.

    :param text: the text of every completion; ``{prompt}`` stands for what was asked.
    :param api_key: when given, what every route but health asks for as ``Authorization: Bearer``.
    """

    def __init__(self, text: str, models: Sequence[str], api_key: Optional[str]) -> None:
        self._text = text
        self._models = tuple(models)
        self._authorization = None if api_key is None else f"Bearer {api_key}"
        self._numbers = itertools.count(1)
        self._routes = {
            ("GET", "/v1/models"): self._model_list,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completion,
            ("POST", "/v1/responses"): self._response,
            ("POST", "/v1/embeddings"): self._embeddings,
        }

    def reply(self, message: Message, ok: Ok) -> Response:
        """Answer a request, in the variation that ``ok`` asks for."""
        route = (message.method, message.path.partition("?")[0])
        if route in _HEALTH:
            return as_response(200, {"status": "ok"}, ok.headers)
        handler = self._routes.get(route)
        if handler is None:
            return as_response(
                404, openai_error(404, f"Invalid URL ({message.method} {message.path})"), ok.headers
            )
        if self._authorization is not None and message.headers.get("authorization") != self._authorization:
            return as_response(401, openai_error(401, "Incorrect API key provided."), ok.headers)
        asked = _parse(message.body)
        if asked is None:
            return as_response(
                400, openai_error(400, "We could not parse the JSON body of your request."), ok.headers
            )
        body = handler(asked, len(message.body), ok)
        if asked.get("stream") is True and route[1] in _STREAMS:
            return as_stream(_STREAMS[route[1]](body, asked), ok.headers)
        return as_response(200, body, ok.headers)

    def _model_list(self, _asked: Dict[str, Any], _size: int, _ok: Ok) -> Dict[str, Any]:
        entries = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self._models]
        return {"object": "list", "data": entries}

    def _chat(self, asked: Dict[str, Any], size: int, ok: Ok) -> Dict[str, Any]:
        text = (self._text if ok.text is None else ok.text).replace("{prompt}", _prompt(asked))
        message = {"role": "assistant", "content": text} if ok.message is None else dict(ok.message)
        usage = _usage(size, len(text)) if ok.usage is None else dict(ok.usage)
        return {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._model(asked),
            "choices": [
                {"index": index, "message": message, "logprobs": None, "finish_reason": ok.finish_reason}
                for index in range(_how_many(asked))
            ],
            "usage": usage,
        }

    def _completion(self, asked: Dict[str, Any], size: int, ok: Ok) -> Dict[str, Any]:
        chat = self._chat(asked, size, ok)
        choices = [
            {
                "index": choice["index"],
                "text": choice["message"].get("content") or "",
                "logprobs": None,
                "finish_reason": choice["finish_reason"],
            }
            for choice in chat["choices"]
        ]
        name = chat["id"].replace("chatcmpl", "cmpl")
        return {**chat, "id": name, "object": "text_completion", "choices": choices}

    def _response(self, asked: Dict[str, Any], size: int, ok: Ok) -> Dict[str, Any]:
        return response_from(self._chat(asked, size, ok))

    def _embeddings(self, asked: Dict[str, Any], size: int, ok: Ok) -> Dict[str, Any]:
        given = asked.get("input", "")
        texts = given if isinstance(given, list) else [given]
        size_asked = asked.get("dimensions")
        vector = [1.0] + [0.0] * ((size_asked if isinstance(size_asked, int) else _EMBEDDING_SIZE) - 1)
        data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(texts))]
        usage = _usage(size) if ok.usage is None else dict(ok.usage)
        return {"object": "list", "data": data, "model": self._model(asked), "usage": usage}

    def _model(self, asked: Dict[str, Any]) -> Any:
        # A request without a model still gets an answer: the fake is no validator, and tests are brief.
        return asked.get("model") or (self._models[0] if self._models else "fake")


def _parse(body: bytes) -> Optional[Dict[str, Any]]:
    try:
        asked = json.loads(body or b"{}")
    except ValueError:
        return None
    return asked if isinstance(asked, dict) else None


def _prompt(asked: Dict[str, Any]) -> str:
    """Find what was asked: the last message, or what the other ways of asking have instead."""
    messages = asked.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    found = last.get("content") if isinstance(last, dict) else asked.get("prompt", asked.get("input"))
    return found if isinstance(found, str) else ""


def _how_many(asked: Dict[str, Any]) -> int:
    wanted = asked.get("n")
    return wanted if isinstance(wanted, int) and wanted > 0 else 1


def _usage(prompt_chars: int, completion_chars: Optional[int] = None) -> Dict[str, int]:
    """Count tokens as the rule of thumb does: four characters each."""
    prompt = prompt_chars // 4 + 1
    if completion_chars is None:  # an embedding completes nothing
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    completion = completion_chars // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
