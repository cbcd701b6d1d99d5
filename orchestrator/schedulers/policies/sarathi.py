"""`--scheduling sarathi`: stall-free batches of decodes and chunks of prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.schedulers.server import WatermarkPolicy
from orchestrator.schedulers.settings import Machine, Place, policies

if TYPE_CHECKING:
    from orchestrator.schedulers.sarathi import SarathiScheduler

SEATS = 128


@policies.register("sarathi")
@dataclass(frozen=True)
class SarathiSettings(WatermarkPolicy):
    """Stall-free batches as Sarathi-Serve's: decodes, then chunks of prompts. Names and defaults are its own."""

    fewer: ClassVar[tuple[str, ...]] = ("max_num_seqs", "chunk_size")

    max_num_seqs: int | None = setting(
        None, "requests running at once", least=1, like=("max_batch",), shown_default=str(SEATS)
    )
    chunk_size: int = setting(
        512,
        "tokens a step, of which decodes have one each and prompts the rest",
        least=1,
        like=("max_num_batched_tokens",),
    )

    @property
    def step_tokens(self) -> int | None:
        """See `ServerPolicy.step_tokens`; decodes are not held back."""
        return max(self.chunk_size, self.max_num_seqs or SEATS)

    def decided(self, machine: Machine) -> Self:
        """Return the same with Sarathi-Serve's defaults."""
        return replace(self, max_num_seqs=self.max_num_seqs or SEATS, gpu_memory_utilization=self.decided_share())

    def scheduler(self, place: Place) -> SarathiScheduler:
        """Return the scheduler."""
        from orchestrator.kv_memory.paged import PagedKV
        from orchestrator.schedulers.sarathi import SarathiScheduler

        return SarathiScheduler(
            PagedKV(place.space, place.groups),
            longest=place.space.max_model_len or place.model_len,
            chunk_size=self.chunk_size,
            max_num_seqs=self.max_num_seqs or SEATS,
            watermark=self.watermark,
            pipeline=place.pipeline,
            order=self.order,
        )
