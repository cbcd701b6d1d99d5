"""What a scheduling policy is built from, and the registry of policies (`--scheduling`).

To add one: write a module with a factory `(PolicySettings) -> Scheduler`, and one line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from foundation.registry import Registry
from orchestrator.kv_memory.paged import KVSpace
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


policies: Registry[PolicyFactory] = Registry("scheduling policy")
policies.register_lazy("orca", "orchestrator.schedulers.policies", "orca")
policies.register_lazy("none", "orchestrator.schedulers.policies", "static")
policies.register_lazy("vllm", "orchestrator.schedulers.policies", "vllm")
