"""`--router random`: each request goes to an engine that is drawn, all alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.draws import below
from foundation.records import dataclass
from orchestrator.cluster.router import RouterPlace, routers

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


@dataclass(frozen=True, slots=True)
class RandomRouter:
    """See the module's docstring. A draw depends on `seed` and the request's id alone."""

    seed: int

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        return below(len(engines), self.seed, "route", request.id)


@routers.register("random")
@dataclass(frozen=True)
class RandomSettings:
    """One that is drawn."""

    def router(self, place: RouterPlace) -> RandomRouter:
        """Return a new router."""
        return RandomRouter(place.seed)
