"""`--scheduling none` and `static`: request-level scheduling, as LLMServingSim and as FasterTransformer have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.schedulers.settings import Place, policies
from orchestrator.schedulers.shared_settings import Batching, Queueing, Seating

if TYPE_CHECKING:
    from orchestrator.schedulers.static import StaticScheduler


_BATCH_DELAY = "how long after the first waiting arrival a batch starts though not full"


@policies.register("none")
@dataclass(frozen=True)
class RequestLevelSettings(Queueing, Batching):
    """Request level, static batches. See `orchestrator.schedulers.static`."""

    batch_delay: int = setting(0, _BATCH_DELAY, unit="ns", least=0)

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


@policies.register("static")
@dataclass(frozen=True)
class StaticSettings(Queueing, Seating):
    """Request level with slots, as FasterTransformer's. See `orchestrator.schedulers.slots`."""

    ends_at_longest: ClassVar[bool] = False

    batch_delay: int = setting(0, _BATCH_DELAY, unit="ns", least=0)

    def scheduler(self, place: Place) -> StaticScheduler:
        """Return the request-level scheduler, over memory that keeps all tokens of all layers."""
        from orchestrator.kv_memory.groups import FULL
        from orchestrator.kv_memory.paged import PagedKV
        from orchestrator.schedulers.ledger import Ledger
        from orchestrator.schedulers.slots import SlottedScheduler

        return SlottedScheduler(
            Ledger(PagedKV(place.space, (FULL,) * len(place.groups))),
            max_batch=self.max_batch,
            batch_delay=self.batch_delay,
            pipeline=place.pipeline,
            order=self.order,
        )
