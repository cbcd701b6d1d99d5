"""vLLM's v1 scheduler. `config` has its settings, `scheduler` the decisions; `vllm_scheduler` puts them together."""

from __future__ import annotations

from typing import Any

from orchestrator.schedulers.settings import PolicySettings, policies
from orchestrator.schedulers.vllm.config import VllmSchedulerConfig
from orchestrator.schedulers.vllm.pipelined import PipelinedVllmScheduler
from orchestrator.schedulers.vllm.scheduler import VllmScheduler

__all__ = ["PipelinedVllmScheduler", "VllmScheduler", "VllmSchedulerConfig", "vllm_scheduler"]


def vllm_scheduler(config: VllmSchedulerConfig) -> VllmScheduler:
    """Return the scheduler for `config`: with one pipeline stage, or with several."""
    return (PipelinedVllmScheduler if config.pipeline_stages > 1 else VllmScheduler)(config)


@policies.register("vllm")
def vllm(settings: PolicySettings) -> VllmScheduler:
    """Return the scheduler of a run; one block more than fit, because vLLM counts its null block."""
    options: dict[str, Any] = dict(settings.vllm)
    return vllm_scheduler(
        VllmSchedulerConfig(
            num_gpu_blocks=settings.space.total_blocks + 1,
            max_model_len=settings.space.max_model_len or settings.model_len,
            block_size=settings.space.block_size,
            pipeline_stages=settings.pipeline,
            **options,
        )
    )
