"""`--admission queue`: no more requests while so many wait over all engines of the pool, as servers answer 503."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.cluster.admission import gates

if TYPE_CHECKING:
    from orchestrator.cluster.pool import Pool
    from orchestrator.requests.request import Request


@dataclass(frozen=True)
class QueueGate:
    """See the module's docstring."""

    most: int

    def refuses(self, request: Request, now: int, pool: Pool) -> str | None:
        """See `Gate.refuses`."""
        waiting = sum(engine.load(now).waiting for engine in pool.engines)
        return f"{waiting} requests waited already (max_queued_requests {self.most})" if waiting >= self.most else None


@gates.register("queue")
@dataclass(frozen=True)
class QueueGateSettings:
    """By the length of the queues."""

    max_queued_requests: int = setting(
        1024,
        "requests that may wait over all engines; one that comes when there are as many is rejected",
        least=1,
        most=10**9,
        implies=True,
    )

    def gate(self) -> QueueGate:
        """Return a new gate."""
        return QueueGate(self.max_queued_requests)
