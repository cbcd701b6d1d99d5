"""`--scheduling none`: request-level scheduling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundation.settings import setting
from orchestrator.schedulers.settings import Place, policies
from orchestrator.schedulers.shared_settings import Batching, Queueing

if TYPE_CHECKING:
    from orchestrator.schedulers.static import StaticScheduler


@policies.register("none")
@dataclass(frozen=True)
class StaticSettings(Queueing, Batching):
    """Request level, static batches. See `orchestrator.schedulers.static`."""

    batch_delay: int = setting(
        0, "how long after the first waiting arrival a batch starts though not full", unit="ns", least=0
    )

    def scheduler(self, place: Place) -> StaticScheduler:
        """Return the request-level scheduler."""
        from orchestrator.schedulers.static import StaticScheduler

        return StaticScheduler(
            self.ledger(place),
            max_batch=self.max_batch,
            batch_delay=self.batch_delay,
            pipeline=place.pipeline,
            order=self.order,
        )
