"""`--router weighted`: shares of the requests as given, spread as evenly as can be.

Smooth weighted round robin, as nginx's upstreams: every engine gains its weight at each request, the one that has most
is taken and pays for all. Weights 5,1,1 make 0 0 1 0 2 0 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from foundation.digits import decimal_number
from foundation.errors import UserError
from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.cluster.router import RouterPlace, routers

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


class Weighted:
    """See the module's docstring. `weights` are by the engines' numbers; of engines that all have 0 each counts 1."""

    def __init__(self, weights: Sequence[Fraction]) -> None:
        self._weights = weights
        self._gained = [Fraction(0)] * len(weights)

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        numbers, gained = [engine.number for engine in engines], self._gained
        weights = [self._weights[number] for number in numbers]
        if not any(weights):
            weights = [Fraction(1)] * len(numbers)
        for number, weight in zip(numbers, weights, strict=True):
            gained[number] += weight
        chosen = max(
            (place for place, weight in enumerate(weights) if weight), key=lambda at: (gained[numbers[at]], -at)
        )
        gained[numbers[chosen]] -= sum(weights)
        return chosen


@routers.register("weighted")
@dataclass(frozen=True)
class WeightedSettings:
    """Shares of the requests."""

    router_weights: str | None = setting(
        None, "share of the requests of each engine, in any unit: 3,1,1", shown_default="must be given"
    )

    def problems(self) -> Iterator[Problem]:
        """Weights are numbers, and not all are 0."""
        text = self.router_weights
        if text is None:
            yield Problem("router_weights", "nothing says which engine gets how much", "give a number for each: 3,1,1")
        elif not any(weights := self.weights()) or any(weight is None or weight < 0 for weight in weights):
            yield Problem(
                "router_weights",
                f"{text!r} is not a list of numbers of at least 0, one of them above",
                "give a number for each engine: 3,1,1",
            )

    def weights(self) -> list[Fraction | None]:
        """Return the numbers exactly as they are written; None for what is none."""
        words = [word.strip() for word in (self.router_weights or "").split(",")]
        return [None if decimal_number(word) is None else Fraction(word) for word in words]

    def router(self, place: RouterPlace) -> Weighted:
        """Return a new router."""
        weights = [weight for weight in self.weights() if weight is not None]
        if len(weights) != place.engines:
            raise UserError(
                f"{len(weights)} weights for {place.engines} engines", field="--router_weights", fix="give one for each"
            )
        return Weighted(weights)
