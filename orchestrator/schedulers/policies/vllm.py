"""`--scheduling vllm`: as vLLM's v1 engine, with what `vllm serve` decides by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from foundation.errors import UserError
from foundation.settings import setting
from orchestrator.schedulers.settings import Machine, MemoryShare, Place, Policy, policies

if TYPE_CHECKING:
    from orchestrator.kv_memory.store import KVSpace
    from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig


@policies.register("vllm")
@dataclass(frozen=True)
class VllmSettings(Policy):
    """As vLLM's v1 engine. Names are vLLM's; see `orchestrator.schedulers.vllm.config`."""

    default_block_size: ClassVar[int] = 16
    ends_at_longest: ClassVar[bool] = True
    sees_driver_memory: ClassVar[bool] = True

    max_num_seqs: int | None = setting(
        None,
        "requests running at once",
        least=1,
        like=("max_batch",),
        shown_default="vLLM's for the device: 1024 from 70 GiB on, else 256",
    )
    max_num_batched_tokens: int | None = setting(
        None, "tokens a step", least=1, shown_default="vLLM's for the device: 8192 from 70 GiB on, else 2048"
    )
    gpu_memory_utilization: float | None = setting(
        None, "share of an NPU's memory that the engine takes", above=0, most=1, shown_default="0.9; 0.92 for 0.33"
    )
    num_gpu_blocks_override: int | None = setting(
        None, "KV blocks, whatever memory there is; one stays empty", least=2, shown_default="as many as fit"
    )
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

    @property
    def reuses_prefixes(self) -> bool:
        """See `Policy.reuses_prefixes`."""
        return self.enable_prefix_caching

    def decided(self, machine: Machine) -> Self:
        """Return the same with vLLM's own defaults for the device and the version."""
        from orchestrator.schedulers.vllm.server import step_limits, utilization

        limits = step_limits(
            self.vllm_version,
            machine.device,
            machine.memory_bytes,
            machine.max_model_len,
            chunked_prefill=self.enable_chunked_prefill,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
        )
        share = self.gpu_memory_utilization
        if share is None and self.num_gpu_blocks_override is None:
            share = utilization(self.vllm_version)
        made = replace(
            self,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            gpu_memory_utilization=share,
            async_scheduling=self.async_scheduling is not False,
        )
        made.check(machine.max_model_len)
        return made

    def check(self, max_model_len: int) -> None:
        """Refuse what vLLM's configuration refuses, by the names of the flags, before memory is divided."""
        from orchestrator.kv_memory.store import KVSpace

        try:
            self._config(KVSpace(1, self.default_block_size, 0, max_model_len), max_model_len, 1)
        except UserError as error:
            raise UserError(error.what, field=f"--{error.field}", fix=error.fix) from None

    def memory_share(self, machine: Machine) -> MemoryShare:
        """Return vLLM's share of the memory less what its profiling run needs, as far as that is known."""
        from orchestrator.schedulers.vllm.server import StepLimits, profiled_bytes

        share = self.gpu_memory_utilization
        if share is None or self.max_num_seqs is None or self.max_num_batched_tokens is None:
            return MemoryShare(machine.memory_bytes)  # the number of blocks is given
        profiled = profiled_bytes(
            StepLimits(self.max_num_seqs, self.max_num_batched_tokens),
            vocabulary=machine.model.vocab_size,
            hidden=machine.model.hidden_size,
            inner=max(layer.mlp.inner for layer in machine.model.layer_kinds),
            ranks=machine.tensor,
        )
        part = (
            f"{share:g} of {machine.memory_bytes / 1e9:.2f} GB less {profiled / 1e9:.2f} GB for logits, activations, "
            "CUDA context and graphs"
        )
        return MemoryShare(round(share * machine.memory_bytes) - profiled, part)

    def step_limits(self) -> Mapping[str, int]:
        """See `Policy.step_limits`."""
        limits = {"requests": self.max_num_seqs, "tokens": self.max_num_batched_tokens}
        return {counted: most for counted, most in limits.items() if most is not None}

    def scheduler(self, place: Place) -> VllmScheduler:
        """Return vLLM's scheduler."""
        from orchestrator.schedulers.vllm import VllmScheduler

        return VllmScheduler(self._config(place.space, place.model_len, place.pipeline), place.groups)

    def _config(self, space: KVSpace, model_len: int, pipeline: int) -> VllmSchedulerConfig:
        """Return vLLM's configuration; one block more than fit, because vLLM counts its null block.

        Limits of a step that nobody decided are `VllmSchedulerConfig`'s own.
        """
        from orchestrator.schedulers.vllm import VllmSchedulerConfig

        given = {"max_num_seqs": self.max_num_seqs, "max_num_batched_tokens": self.max_num_batched_tokens}
        limits: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return VllmSchedulerConfig(
            num_gpu_blocks=space.total_blocks + 1,
            max_model_len=space.max_model_len or model_len,
            block_size=space.block_size,
            pipeline_stages=pipeline,
            long_prefill_token_threshold=self.long_prefill_token_threshold,
            enable_prefix_caching=self.enable_prefix_caching,
            enable_chunked_prefill=self.enable_chunked_prefill,
            async_scheduling=self.async_scheduling,
            scheduler_reserve_full_isl=self.reserve_full_isl,
            policy=self.policy,
            version=self.vllm_version,
            **limits,
        )
