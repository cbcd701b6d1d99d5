"""`--scheduling none`: request-level scheduling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.settings import choice, setting
from orchestrator.kv_memory.managers import KVManager, kv_managers
from orchestrator.schedulers.settings import Place, Policy, policies

if TYPE_CHECKING:
    from orchestrator.schedulers.static import StaticScheduler


@policies.register("none")
@dataclass(frozen=True)
class StaticSettings(Policy):
    """Request level, static batches. See `orchestrator.schedulers.static`."""

    default_block_size: ClassVar[int] = 8

    max_batch: int = setting(0, "requests in a batch at most; 0: no limit", least=0, like=("max_num_seqs",))
    batch_delay: int = setting(
        0, "how long after the first waiting arrival a batch starts though not full", unit="ns", least=0
    )
    kv_manage: KVManager = choice(kv_managers, "vllm", "KV memory of a request")
    gen: bool = setting(False, "skip the initiation phase: prompts count as computed already")

    @property
    def ends_at_longest(self) -> bool:
        """Whether the longest sequence is reserved."""
        return self.kv_manage.reserves_longest

    def step_limits(self) -> Mapping[str, int]:
        """See `Policy.step_limits`."""
        return {"requests": self.max_batch} if self.max_batch else {}

    def scheduler(self, place: Place) -> StaticScheduler:
        """Return the request-level scheduler."""
        from orchestrator.schedulers.ledger import Ledger
        from orchestrator.schedulers.static import StaticScheduler

        return StaticScheduler(
            Ledger(self.kv_manage.memory(place.space, place.groups, place.model_len)),
            max_batch=self.max_batch,
            batch_delay=self.batch_delay,
            pipeline=place.pipeline,
        )
