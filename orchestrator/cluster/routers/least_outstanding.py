"""`--router least-outstanding`: the engine that has the fewest requests, waiting and running.

Among equal ones the next in turn, as nginx's least_conn does. What engines have is known as of the very moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.records import dataclass
from orchestrator.cluster.fewest import Turns, outstanding
from orchestrator.cluster.router import Balances, RouterPlace, routers

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


class LeastOutstanding:
    """See the module's docstring."""

    balances: Balances = "outstanding"

    def __init__(self) -> None:
        self._turns = Turns()

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        return self._turns.least(engines, [outstanding(engine, now) for engine in engines])


@routers.register("least-outstanding")
@dataclass(frozen=True)
class LeastOutstandingSettings:
    """The fewest requests."""

    def router(self, place: RouterPlace) -> LeastOutstanding:
        """Return a new router."""
        return LeastOutstanding()
