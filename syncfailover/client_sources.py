"""A client made of what is elsewhere: a few keys, the environment, a settings file, a mapping."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, Sequence, Type, TypeVar, Union

from . import providers
from .endpoint import Endpoint
from .endpoint_fields import ApiKey
from .errors import ConfigurationError

if TYPE_CHECKING:
    from . import settings

Client = TypeVar("Client", bound="FromElsewhere")

_ENDPOINT_FIELDS = frozenset(Endpoint.__slots__) - {"name", "api_key", "weight", "origin"}


def _make(kind: Callable[..., Client], endpoints: Iterable[Endpoint], **options: Any) -> Client:
    """Call a class whose arguments are not known here."""
    return kind(endpoints, **options)


class FromElsewhere:
    """The ways to make a client that need no list of endpoints."""

    @classmethod
    def from_keys(
        cls: Type[Client],
        keys: Sequence[ApiKey],
        provider: str = "holysheep",
        *,
        emergency: Union[Endpoint, Iterable[Endpoint]] = (),
        **options: Any,
    ) -> Client:
        """Make a client of several keys of one provider: one endpoint per key, weights falling.

        Args:
            keys: at least one.
            provider: the name of a preset in `syncfailover.providers`; for "azure" pass `base_url`, too.
            emergency: endpoints of lower priority, for when no key of the provider works.
            options: any keyword of `Endpoint` for the keys' endpoints, any other for the client.

        """
        fields = {name: options.pop(name) for name in list(options) if name in _ENDPOINT_FIELDS}
        exits = [emergency] if isinstance(emergency, Endpoint) else list(emergency)
        return _make(cls, [*providers.from_keys(provider, keys, **fields), *exits], **options)

    @classmethod
    def from_env(cls: Type[Client], **options: Any) -> Client:
        """Make a client of what the environment says; docs/configuration.md lists the variables.

        Args:
            options: keywords of the client; they win over what the environment says.

        """
        from . import settings  # noqa: PLC0415 - most clients are made in code

        return cls._of(settings.from_env(), options)

    @classmethod
    def from_file(cls: Type[Client], path: Union[str, os.PathLike[str]], **options: Any) -> Client:
        """Make a client of a TOML file; docs/configuration.md lists its keys."""
        from . import settings  # noqa: PLC0415 - most clients are made in code

        return cls._of(settings.from_file(path), options)

    @classmethod
    def from_mapping(cls: Type[Client], mapping: Mapping[str, Any], **options: Any) -> Client:
        """Make a client of a mapping in the shape of the TOML file."""
        from . import settings  # noqa: PLC0415 - most clients are made in code

        return cls._of(settings.from_mapping(mapping), options)

    @classmethod
    def _of(cls: Type[Client], found: settings.Settings, options: Mapping[str, Any]) -> Client:
        try:
            return _make(cls, found.endpoints, **{**found.options, **options})
        except ConfigurationError as error:
            problem = error if error.field in options else found.told(error)
        raise problem
