"""vLLM's v1 scheduler. `config` has its settings, `scheduler` the decisions; `vllm_scheduler` puts them together."""

from __future__ import annotations

from orchestrator.schedulers.vllm.config import VllmSchedulerConfig
from orchestrator.schedulers.vllm.pipelined import PipelinedVllmScheduler
from orchestrator.schedulers.vllm.scheduler import VllmScheduler

__all__ = ["PipelinedVllmScheduler", "VllmScheduler", "VllmSchedulerConfig", "vllm_scheduler"]


def vllm_scheduler(config: VllmSchedulerConfig) -> VllmScheduler:
    """Return the scheduler for `config`: with one pipeline stage, or with several."""
    return (PipelinedVllmScheduler if config.pipeline_stages > 1 else VllmScheduler)(config)
