"""`--scheduling lightllm`: token-level admission by the predicted peak of memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.schedulers.settings import Place, policies
from orchestrator.schedulers.shared_settings import Queueing

if TYPE_CHECKING:
    from orchestrator.schedulers.lightllm import LightllmScheduler


@policies.register("lightllm")
@dataclass(frozen=True)
class LightllmSettings(Queueing):
    """As LightLLM's router. Names are LightLLM's, or Vidur's; see `orchestrator.schedulers.lightllm`."""

    default_block_size: ClassVar[int] = 1
    ends_at_longest: ClassVar[bool] = False

    batch_max_tokens: int = setting(
        16384,
        "prompt tokens of a step at most; longer prompts are turned away",
        least=1,
        like=("max_num_batched_tokens",),
    )
    max_waiting_iters: int = setting(
        10, "decodes between two steps that compute prompts", least=0, aliases=("router_max_wait_tokens",)
    )
    running_max_req_size: int = setting(1000, "requests running at once", least=1, like=("max_batch", "max_num_seqs"))

    def step_limits(self) -> Mapping[str, int]:
        """See `Policy.step_limits`."""
        return {"requests": self.running_max_req_size, "prompt tokens": self.batch_max_tokens}

    def scheduler(self, place: Place) -> LightllmScheduler:
        """Return the scheduler, over memory that keeps all tokens of all layers."""
        from orchestrator.kv_memory.groups import FULL
        from orchestrator.kv_memory.paged import PagedKV
        from orchestrator.schedulers.ledger import Ledger
        from orchestrator.schedulers.lightllm import LightllmScheduler

        columns = place.space.total_blocks // len(place.groups)
        return LightllmScheduler(
            Ledger(PagedKV(place.space, (FULL,) * len(place.groups))),
            max_total_tokens=columns * place.space.block_size,
            batch_max_tokens=self.batch_max_tokens,
            max_waiting_iters=self.max_waiting_iters,
            running_max_req_size=self.running_max_req_size,
            order=self.order,
        )
