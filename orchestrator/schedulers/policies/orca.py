"""`--scheduling orca`: iteration-level scheduling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.schedulers.settings import Place, policies
from orchestrator.schedulers.shared_settings import Batching, Queueing

if TYPE_CHECKING:
    from orchestrator.schedulers.orca import OrcaScheduler


@policies.register("orca")
@dataclass(frozen=True)
class OrcaSettings(Queueing, Batching):
    """Iteration level. See `orchestrator.schedulers.orca`."""

    only_parallel: ClassVar[str] = "hybrid"

    batch_delay: int = setting(0, "for the sake of older command lines: 0", unit="ns", least=0)

    def problems(self) -> Iterator[Problem]:
        """An iteration never waits for others to arrive."""
        if self.batch_delay:
            what = f"{self.batch_delay} ns, but --scheduling orca never waits for a batch to fill"
            yield Problem("batch_delay", what, "leave it out, or give --scheduling none")

    def scheduler(self, place: Place) -> OrcaScheduler:
        """Return the iteration-level scheduler."""
        from orchestrator.schedulers.orca import OrcaScheduler

        return OrcaScheduler(self.ledger(place), max_batch=self.max_batch, pipeline=place.pipeline, order=self.order)
