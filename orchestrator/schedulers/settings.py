"""What a scheduling policy is built from, and the registry of policies (`--scheduling`).

To add one: put a module into this package that registers a factory `(PolicySettings) -> Scheduler` under its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from foundation.registry import Registry
from orchestrator.kv_memory.managers import kv_managers
from orchestrator.kv_memory.paged import KVSpace, PagedKV
from orchestrator.schedulers.interface import Scheduler


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The memory that is there, the pipeline, and the flags of the policies (each takes what it knows).

    `model_len` is the model's longest sequence (tokens), whatever `space.max_model_len` says; `batch_delay` in ns.
    """

    space: KVSpace
    model_len: int
    pipeline: int = 1
    kv_manage: str = "vllm"
    max_batch: int = 0
    batch_delay: int = 0
    skip_prefill: bool = False
    vllm: Mapping[str, object] = field(default_factory=dict)
    """Fields of `orchestrator.schedulers.vllm.config.VllmSchedulerConfig`."""


class PolicyFactory(Protocol):
    """Builds a scheduler."""

    def __call__(self, settings: PolicySettings) -> Scheduler:
        """Raise `foundation.errors.UserError` when the settings do not suit the policy."""


policies: Registry[PolicyFactory] = Registry("scheduling policy", package="orchestrator.schedulers")


def paged_kv(settings: PolicySettings) -> PagedKV:
    """Return the KV memory that `--kv_manage` asks for."""
    space = settings.space
    if settings.kv_manage == "max" and space.max_model_len is None:
        space = replace(space, max_model_len=settings.model_len)
    return kv_managers.get(settings.kv_manage, field="--kv_manage")(space)
