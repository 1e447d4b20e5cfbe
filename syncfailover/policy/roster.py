"""The roster: who there is, what is known of each for each model, and who may be asked.

It answers; what happens to whom is `pool.py`'s. Who is eligible is worked out once per state, not once per call: a
`View` per model holds the candidates in order of preference and the moment at which time alone will make it wrong.
Whoever changes anything here says so by `changed()`.
"""

from __future__ import annotations

from typing import AbstractSet, Any, Callable, Dict, Iterable, Optional, Tuple

from ..endpoint import Endpoint, checked_endpoints
from .breaker import BreakerState
from .homes import Homes
from .node import Attempt, Node
from .rests import Rests
from .rooms import Rooms
from .view import View, look, reopens_at

#: Views kept at a time; model names come from callers and may be without number.
_VIEWS = 128
_FOREVER = float("inf")


class Roster:
    """Endpoints with all that is known of them; it reads the time from what it was last asked for.

    Raises:
        ConfigurationError: no endpoint, or two of the same name.

    """

    def __init__(self, endpoints: Iterable[Endpoint], node: Callable[[Endpoint], Node]) -> None:
        self.endpoints: Tuple[Endpoint, ...] = checked_endpoints(endpoints)
        self.nodes: Dict[str, Node] = {endpoint.name: node(endpoint) for endpoint in self.endpoints}
        self.by_priority = sorted(self.nodes.values(), key=lambda node: node.priority)
        #: The time of the decision that is being made.
        self.now = 0.0
        self._views: Dict[Optional[str], View] = {}
        self.forget_pairs()

    def forget_pairs(self) -> None:
        """Forget what was found out of endpoint and model together, and where conversations live."""
        #: Pairs of endpoint and model that are left alone.
        self.rests = Rests(self._time)
        #: What is left of what their providers allow, by endpoint and model.
        self.rooms = Rooms()
        #: Where conversations live.
        self.homes = Homes(self._time)

    # The view

    def view(self, now: float, model: Optional[str]) -> Optional[View]:
        """Return who may be asked for a model as far as that is known; None where it has to be looked at anew."""
        self.now = now
        view = self._views.get(model)
        return view if view is not None and now < view.valid_until else None

    def look(self, now: float, model: Optional[str]) -> View:
        """See anew who may be asked for a model."""
        view = look(self.by_priority, self.rests, self.rooms, model, now, self._time)
        if len(self._views) >= _VIEWS:
            self._views.clear()
        self._views[model] = view
        return view

    def shuffle(self, chance: Callable[[], float]) -> None:
        """Draw the order of equals anew."""
        self.by_priority.sort(key=lambda node: (node.priority, chance()))
        self.changed()

    def changed(self) -> None:
        """Forget who may be asked: something has changed that bears on it."""
        self._views.clear()

    def _time(self) -> float:
        return self.now

    # Who

    def home(self, conversation: Any, model: Optional[str]) -> Optional[Node]:
        """Return where a conversation lives, None where it is new."""
        return self.nodes.get(self.homes.of(conversation, model) or "")

    def may_serve(self, node: Node, model: Optional[str]) -> bool:
        """Tell whether it serves the model at all."""
        return node.endpoint.weight > 0 and node.endpoint.serves(model) is not None

    def may_be_asked(self, node: Node, now: float, model: Optional[str]) -> bool:
        """Tell whether it is eligible for a model that it serves, or would be if it were not busy."""
        return node.open_to_calls(now) and now >= self.rests.until(node.name, model)

    def is_only_busy(self, node: Node, now: float, model: Optional[str]) -> bool:
        """Tell whether it serves the model, and will as soon as a request under way has ended."""
        return node.busy() and self.may_serve(node, model) and self.may_be_asked(node, now, model)

    def is_scarce(self, node: Node, now: float, model: Optional[str]) -> bool:
        """Tell whether its rate limit for the model is nearly used up."""
        return now < self.rooms.until(node.name, model)

    def first_to_reopen(self, now: float, model: Optional[str], exclude: AbstractSet[str]) -> Optional[Node]:
        """Return who may be asked again first, never one that is forced open, drained or busy."""
        known = [
            (reopens_at(node, self.rests, model, now), node.in_flight, order, node)
            for order, node in enumerate(self.by_priority)
            if node.name not in exclude and self.may_serve(node, model) and not node.busy()
            if node.breaker.state.name is not BreakerState.FORCED_OPEN
        ]
        return min(known)[3] if known else None

    def may_recover(self, now: float, model: Optional[str], exclude: AbstractSet[str], until: float) -> bool:
        """Tell whether waiting until then could help: whether somebody serves the model and may be asked by then.

        One that is down may be back at any time, also one that is forced open; but a key without credit, and one that
        is up and asked to be left alone, are not there any sooner than they say.
        """
        return any(
            self.may_serve(node, model)
            and (node.key_rests_until <= until or node.rested_by_probe)
            and (self.rests.until(node.name, model) <= until or not node.up(now))
            for node in self.by_priority
            if node.name not in exclude
        )

    def serves(self, model: Optional[str]) -> bool:
        """Tell whether any endpoint serves the model."""
        return any(endpoint.serves(model) is not None for endpoint in self.endpoints)

    def smaller_windows(self, attempt: Attempt) -> AbstractSet[str]:
        """Name the endpoints whose declared context window is not larger than that of the one that refused."""
        refused = attempt.endpoint.window(attempt.model) or 0
        return {e.name for e in self.endpoints if (e.window(attempt.model) or 0) <= refused}

    # When

    def ready_at(self, now: float, model: Optional[str], exclude: AbstractSet[str]) -> Optional[float]:
        """Return when the first that is up, but rests for this model, may be asked; None where nobody is up."""
        return min(
            (
                max(now, self.rests.until(node.name, model))
                for node in self.by_priority
                if node.name not in exclude and node.endpoint.serves(model) is not None and node.usable(now)
            ),
            default=None,
        )

    def retry_after_s(self, now: float, model: Optional[str] = None) -> Optional[float]:
        """Return the seconds until the first endpoint may be asked for the model, where that is known.

        Of one that fails its probes, or is busy, it is not.
        """
        known = [node for node in self.by_priority if self.may_serve(node, model)]
        times = [(reopens_at(node, self.rests, model, now), node) for node in known]
        return min((t - now for t, node in times if now < t < _FOREVER or node.usable(now)), default=None)
