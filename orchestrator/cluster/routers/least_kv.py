"""`--router least-kv`: the engine whose KV cache is in use the least, as a share of its own blocks.

Blocks that hold what may be found again, but that nobody needs, are not in use. A request that waits has no blocks yet,
so requests that come in a burst find the same engine until it has admitted some of them. Among equal ones the next in
turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.records import dataclass
from orchestrator.cluster.fewest import Turns
from orchestrator.cluster.router import Balances, RouterPlace, routers

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


class LeastKV:
    """See the module's docstring."""

    balances: Balances = "kv"

    def __init__(self) -> None:
        self._turns = Turns()

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        loads = [engine.load(now) for engine in engines]
        return self._turns.least(engines, [1 - load.free_blocks / load.total_blocks for load in loads])


@routers.register("least-kv")
@dataclass(frozen=True)
class LeastKVSettings:
    """The KV cache that is in use the least."""

    def router(self, place: RouterPlace) -> LeastKV:
        """Return a new router."""
        return LeastKV()
