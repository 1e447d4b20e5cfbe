"""The default client: `syncfailover.chat("text")` needs no client, as `requests.get` needs no session."""

from __future__ import annotations

from typing import Any, Mapping, Sequence, Union

from .api import ChatStream
from .client import FailoverClient
from .completion.reply import ChatReply
from .errors import ConfigurationError
from .runtime.once import Once

_default: Once[FailoverClient] = Once(FailoverClient.from_env, lambda client: client._caller.closed)


def default_client() -> FailoverClient:
    """Return the client that this process has from its environment, made by the first call.

    All threads share it; a closed one is replaced. See `FailoverClient.from_env` and docs/configuration.md.

    Raises:
        ConfigurationError: the environment configures nothing, or something that cannot work.

    """
    return _default.get()


def chat(
    prompt: Union[str, Sequence[Mapping[str, Any]], None] = None, **params: Any
) -> Union[ChatReply, ChatStream]:
    """Ask the default client; see `client.chat` for what it takes, returns and raises.

    Args:
        prompt: a text, or a list of messages.
        params: `model`, `timeout` or any other argument of `client.chat`.

    Raises:
        ConfigurationError: nothing is configured, or neither the call nor the environment names a model.
        FailoverError: as for `client.chat`.

    """
    try:
        answer: Union[ChatReply, ChatStream] = default_client().chat(prompt, **params)
    except ConfigurationError as error:
        if error.field != "model" or error.value is not None:
            raise
    else:
        return answer
    raise ConfigurationError(
        "model: none is given; expected model=... in the call, SYNCFAILOVER_MODEL in the environment, "
        "or model in the settings file",
        field="model",
    )
