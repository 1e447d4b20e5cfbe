"""How processes may share what they know."""

from typing import NamedTuple, Optional, Tuple

#: Processes of a host.
OF_A_HOST = 32


class Sharing(NamedTuple):
    """A way of sharing."""

    short: str
    title: str
    #: How many processes share one store; 0 for all.
    together: int = 1
    #: Seconds between two looks for news.
    look_s: float = 0.0
    #: Seconds until whoever is to be told of a change hears of it, at least and at most; None where nobody is told.
    news_s: Optional[Tuple[float, float]] = None


SHARINGS = {
    "alone": Sharing("alone", "each process alone"),
    "sqlite": Sharing("SQLite", f'`state="sqlite:///..."`, hosts of {OF_A_HOST} processes', OF_A_HOST, 0.25),
    "redis": Sharing("Redis", '`state="redis://..."`, one for the whole fleet', 0, 0.4, (0.1, 0.5)),
}
