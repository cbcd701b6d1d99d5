"""`--scheduling vllm`: as vLLM's v1 engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.settings import setting
from orchestrator.schedulers.settings import Place, policies

if TYPE_CHECKING:
    from orchestrator.schedulers.vllm import VllmScheduler


@policies.register("vllm")
@dataclass(frozen=True)
class VllmSettings:
    """As vLLM's v1 engine. Names are vLLM's; see `orchestrator.schedulers.vllm.config`."""

    default_block_size: ClassVar[int] = 16
    ends_at_longest: ClassVar[bool] = True

    max_num_seqs: int = setting(256, "requests running at once", least=1, like=("max_batch",))
    max_num_batched_tokens: int = setting(2048, "tokens a step", least=1)
    long_prefill_token_threshold: int = setting(0, "tokens of one prompt a step at most; 0: no limit", least=0)
    enable_prefix_caching: bool = setting(True, "reuse KV blocks of equal prefixes", aliases=("no_prefix_caching",))
    enable_chunked_prefill: bool = setting(True, "compute long prompts in chunks", aliases=("no_chunked_prefill",))
    async_scheduling: bool | None = setting(
        None,
        "decide a step while the step before still runs",
        shown_default="on",
    )
    reserve_full_isl: bool = setting(
        True, "admit a prompt only if all of it fits", aliases=("scheduler_reserve_full_isl",)
    )
    policy: str = setting(
        "fcfs", "order of the waiting queue", choices=("fcfs", "priority"), aliases=("scheduling_policy",)
    )
    vllm_version: str = setting("0.19", "rule set", choices=("0.19", "0.33"))

    def scheduler(self, place: Place) -> VllmScheduler:
        """Return vLLM's scheduler; one block more than fit, because vLLM counts its null block."""
        from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig

        return VllmScheduler(
            VllmSchedulerConfig(
                num_gpu_blocks=place.space.total_blocks + 1,
                max_model_len=place.space.max_model_len or place.model_len,
                block_size=place.space.block_size,
                pipeline_stages=place.pipeline,
                max_num_seqs=self.max_num_seqs,
                max_num_batched_tokens=self.max_num_batched_tokens,
                long_prefill_token_threshold=self.long_prefill_token_threshold,
                enable_prefix_caching=self.enable_prefix_caching,
                enable_chunked_prefill=self.enable_chunked_prefill,
                async_scheduling=self.async_scheduling,
                scheduler_reserve_full_isl=self.reserve_full_isl,
                policy=self.policy,
                version=self.vllm_version,
            ),
            place.groups,
        )
