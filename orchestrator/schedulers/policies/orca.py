"""`--scheduling orca`: iteration-level scheduling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.settings import choice, setting
from foundation.settings.reading import Problem
from orchestrator.kv_memory.managers import KVManager, kv_managers
from orchestrator.schedulers.settings import Place, Policy, policies

if TYPE_CHECKING:
    from orchestrator.schedulers.orca import OrcaScheduler


@policies.register("orca")
@dataclass(frozen=True)
class OrcaSettings(Policy):
    """Iteration level. See `orchestrator.schedulers.orca`."""

    default_block_size: ClassVar[int] = 8
    only_parallel: ClassVar[str] = "hybrid"

    max_batch: int = setting(0, "requests in a batch at most; 0: no limit", least=0, like=("max_num_seqs",))
    batch_delay: int = setting(0, "for the sake of older command lines: 0", unit="ns", least=0)
    kv_manage: KVManager = choice(kv_managers, "vllm", "KV memory of a request")
    gen: bool = setting(False, "skip the initiation phase: prompts count as computed already")

    def problems(self) -> Iterator[Problem]:
        """An iteration never waits for others to arrive."""
        if self.batch_delay:
            what = f"{self.batch_delay} ns, but --scheduling orca never waits for a batch to fill"
            yield Problem("batch_delay", what, "leave it out, or give --scheduling none")

    @property
    def ends_at_longest(self) -> bool:
        """Whether the longest sequence is reserved."""
        return self.kv_manage.reserves_longest

    def step_limits(self) -> Mapping[str, int]:
        """See `Policy.step_limits`."""
        return {"requests": self.max_batch} if self.max_batch else {}

    def scheduler(self, place: Place) -> OrcaScheduler:
        """Return the iteration-level scheduler."""
        from orchestrator.schedulers.ledger import Ledger
        from orchestrator.schedulers.orca import OrcaScheduler

        memory = self.kv_manage.memory(place.space, place.groups, place.model_len)
        return OrcaScheduler(Ledger(memory), max_batch=self.max_batch, pipeline=place.pipeline)
