"""`--router power-of-two`: of two engines that are drawn, the one with fewer requests.

M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001. SGLang's router calls
it power_of_two, Envoy's LEAST_REQUEST is it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.draws import below
from foundation.records import dataclass
from orchestrator.cluster.fewest import outstanding
from orchestrator.cluster.router import RouterPlace, routers

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


@dataclass(frozen=True, slots=True)
class PowerOfTwo:
    """Two different engines are drawn, by `seed` and the request's id alone; of equal ones the first drawn is taken."""

    seed: int

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        count = len(engines)
        if count == 1:
            return 0
        first = below(count, self.seed, "route", request.id)
        second = below(count - 1, self.seed, "route again", request.id)
        second += second >= first
        return second if outstanding(engines[second], now) < outstanding(engines[first], now) else first


@routers.register("power-of-two")
@dataclass(frozen=True)
class PowerOfTwoSettings:
    """The less loaded of two that are drawn."""

    def router(self, place: RouterPlace) -> PowerOfTwo:
        """Return a new router."""
        return PowerOfTwo(place.seed)
