"""vLLM's v1 scheduler. `config` has its settings, `rules` what differs between versions, `scheduler` the decisions."""

from __future__ import annotations

from orchestrator.schedulers.vllm.config import VllmSchedulerConfig
from orchestrator.schedulers.vllm.scheduler import VllmScheduler

__all__ = ["VllmScheduler", "VllmSchedulerConfig"]
