"""`--scheduling continuous`, `mixed-continuous`, `chunked-mixed-continuous`: ReaLLM's kinds of continuous batching."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.schedulers.settings import Place, policies
from orchestrator.schedulers.shared_settings import Batching, Queueing

if TYPE_CHECKING:
    from orchestrator.schedulers.orca import OrcaScheduler


@policies.register("continuous")
@dataclass(frozen=True)
class ContinuousSettings(Queueing, Batching):
    """Prompts in iterations of their own, before decodes. See `orchestrator.schedulers.continuous`."""

    def scheduler(self, place: Place) -> OrcaScheduler:
        """Return a new scheduler."""
        from orchestrator.schedulers.continuous import PromptsFirstScheduler

        return PromptsFirstScheduler(
            self.ledger(place), max_batch=self.max_batch, pipeline=place.pipeline, order=self.order
        )


@policies.register("mixed-continuous")
@dataclass(frozen=True)
class MixedContinuousSettings(Queueing, Batching):
    """Prompts whole, beside decodes: what `orca` does."""

    def scheduler(self, place: Place) -> OrcaScheduler:
        """Return a new scheduler."""
        from orchestrator.schedulers.orca import OrcaScheduler

        return OrcaScheduler(self.ledger(place), max_batch=self.max_batch, pipeline=place.pipeline, order=self.order)


@policies.register("chunked-mixed-continuous")
@dataclass(frozen=True)
class ChunkedMixedContinuousSettings(Queueing, Batching):
    """Prompts in chunks, beside decodes. See `orchestrator.schedulers.continuous`."""

    prefill_chunk: int = setting(
        2048, "tokens of prompts in a step at most, beside all decodes", least=1, like=("max_num_batched_tokens",)
    )

    def scheduler(self, place: Place) -> OrcaScheduler:
        """Return a new scheduler."""
        from orchestrator.schedulers.continuous import ChunkedScheduler

        return ChunkedScheduler(
            self.ledger(place),
            chunk=self.prefill_chunk,
            max_batch=self.max_batch,
            pipeline=place.pipeline,
            order=self.order,
        )
