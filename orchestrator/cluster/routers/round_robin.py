"""`--router round-robin`: each request goes to the engine after the one before it, whatever they are doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.records import dataclass
from orchestrator.cluster.fewest import Turns
from orchestrator.cluster.router import Balances, RouterPlace, routers

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


class RoundRobin:
    """See the module's docstring; the first request goes to engine 0."""

    balances: Balances = "turns"

    def __init__(self) -> None:
        self._turns = Turns()

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        return self._turns.next(engines)


@routers.register("round-robin")
@dataclass(frozen=True)
class RoundRobinSettings:
    """One after the other."""

    def router(self, place: RouterPlace) -> RoundRobin:
        """Return a new router."""
        return RoundRobin()
