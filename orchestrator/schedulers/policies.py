"""Builds the scheduler of each policy from the settings of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.kv_memory.managers import kv_managers
from orchestrator.kv_memory.paged import PagedKV
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.settings import PolicySettings


def orca(settings: PolicySettings) -> Scheduler:
    """Return the iteration-level scheduler."""
    from orchestrator.schedulers.orca import OrcaScheduler

    return OrcaScheduler(
        _kv(settings),
        max_batch=settings.max_batch,
        pipeline=settings.pipeline,
        skip_prefill=settings.skip_prefill,
    )


def static(settings: PolicySettings) -> Scheduler:
    """Return the request-level scheduler."""
    from orchestrator.schedulers.static import StaticScheduler

    return StaticScheduler(
        _kv(settings),
        max_batch=settings.max_batch,
        batch_delay=settings.batch_delay,
        pipeline=settings.pipeline,
        skip_prefill=settings.skip_prefill,
    )


def vllm(settings: PolicySettings) -> Scheduler:
    """Return vLLM's scheduler; one block more than fit, because vLLM counts its null block."""
    from orchestrator.schedulers.vllm import VllmSchedulerConfig, vllm_scheduler

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


def _kv(settings: PolicySettings) -> PagedKV:
    space = settings.space
    if settings.kv_manage == "max" and space.max_model_len is None:
        space = replace(space, max_model_len=settings.model_len)
    return kv_managers.get(settings.kv_manage, field="--kv_manage")(space)
