"""What becomes of a pickle: the thing again, its secrets read from where they are in this process.

What is missing here is told when the thing is used, not when it is loaded. An exception in loading would be worse than
lost: a `multiprocessing.Pool` takes ours, which are `OSError`s, for the end of its pipe and waits for the task forever, an
executor is broken for good, and a worker of Dask goes down with all that it does.
"""

from __future__ import annotations

from typing import Any, Callable, NoReturn, Tuple

from ._version import __version__
from .errors import ConfigurationError
from .pickling import Source, Sourced


def reduced(kind: type, make: Callable[..., Any], *arguments: Any) -> Tuple[Any, ...]:
    """Return what `__reduce__` returns of something that `make(*arguments)` makes in another process.

    Args:
        kind: what it is.
        make: a function of a module; a `ConfigurationError` of it is raised when what it should have made is used.
        arguments: as they travel.

    """
    return rebuild, (kind, __version__, make, arguments)


def rebuild(kind: type, version: str, make: Callable[..., Any], arguments: Tuple[Any, ...]) -> Any:
    """Make what was pickled, or what says why it cannot be made here."""
    try:
        _check_version(version)
        return make(*arguments)
    except ConfigurationError as error:
        return Unbuilt(kind, error, (kind, version, make, arguments))


def _check_version(version: str) -> None:
    """Refuse what another version has pickled: what is in it may mean something else here."""
    if version != __version__:
        raise ConfigurationError(
            f"pickle: one of syncfailover {version} is not allowed; expected one of {__version__}, which is here",
            field="pickle",
            value=version,
        )


class Unbuilt:
    """Stands for something that cannot be rebuilt in this process: whoever uses it is told why.

    It is an instance of what it stands for, as far as `isinstance` is asked, and travels on to a process where it may
    be rebuilt.
    """

    __slots__ = ("_arguments", "_error", "_kind")

    def __init__(self, kind: type, error: ConfigurationError, arguments: Tuple[Any, ...]) -> None:
        put = object.__setattr__
        put(self, "_kind", kind)
        put(self, "_error", (error.message, error.field, error.value))
        put(self, "_arguments", arguments)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """Be what it stands for to `isinstance`."""
        return object.__getattribute__(self, "_kind")

    def __reduce__(self) -> Tuple[Any, ...]:
        """Travel on as the pickle that it was."""
        return rebuild, object.__getattribute__(self, "_arguments")

    def __repr__(self) -> str:
        kind, (message, _field, _value) = self.__class__, object.__getattribute__(self, "_error")
        return f"<{kind.__name__} that cannot be used here: {message}>"

    def __getattr__(self, name: str) -> NoReturn:
        """Say why it cannot be used; but whoever only asks what Python can do with it is told that it cannot."""
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def _refuse(self, *_arguments: Any, **_named: Any) -> NoReturn:
        message, field, value = object.__getattribute__(self, "_error")
        raise ConfigurationError(message, field=field, value=value)

    __setattr__ = __getitem__ = __call__ = __enter__ = _refuse

    def __exit__(self, *_error: object) -> None:
        """Nobody gets here; but Python asks for it before it enters."""


def unpack(owner: str, packed: Any) -> Any:
    """Return what was packed, secrets read again from where they are.

    Raises:
        ConfigurationError: one is not there; the message says whose it is and what is missing.

    """
    if isinstance(packed, Source):
        found = told_of(owner, packed.read)
        return Sourced(found, packed) if type(found) is str else found
    if isinstance(packed, dict):
        return {name: unpack(owner, value) for name, value in packed.items()}
    return packed


def told_of(owner: str, make: Callable[[], Any]) -> Any:
    """Return what `make` makes; an error says whose it is.

    Raises:
        ConfigurationError: as `make` does.

    """
    try:
        return make()
    except ConfigurationError as error:
        problem = ConfigurationError(f"{owner}: {error.message}", field=error.field, value=error.value)
    raise problem
