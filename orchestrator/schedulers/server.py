"""What the settings of servers that share an NPU's memory with its driver have in common: seats, tokens, memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.schedulers.settings import Machine, MemoryShare, Policy
from orchestrator.schedulers.shared_settings import Queueing


@dataclass(frozen=True)
class ServerPolicy(Policy):
    """The settings of such a server, by vLLM's names; what is None is decided by the device or the version."""

    default_block_size: ClassVar[int] = 16
    ends_at_longest: ClassVar[bool] = True
    sees_driver_memory: ClassVar[bool] = True
    fewer: ClassVar[tuple[str, ...]] = ("max_num_seqs", "max_num_batched_tokens")
    """The settings of which less would leave more memory."""

    max_num_seqs: int | None = setting(None, "requests running at once", least=1, like=("max_batch",))
    gpu_memory_utilization: float | None = setting(
        None, "share of an NPU's memory that the engine takes", above=0, most=1, shown_default="0.9"
    )
    num_gpu_blocks_override: int | None = setting(
        None,
        "KV blocks, whatever memory there is; one stays empty",
        least=2,
        aliases=("num_gpu_blocks",),
        shown_default="as many as fit",
    )

    @property
    @abstractmethod
    def step_tokens(self) -> int | None:
        """The most tokens of a step, once that is decided."""

    def memory_share(self, machine: Machine) -> MemoryShare:
        """Return the server's share of the memory less what its profiling run needs, as far as that is known."""
        from orchestrator.schedulers.vllm.server import StepLimits, profiled_bytes

        share, tokens = self.gpu_memory_utilization, self.step_tokens
        if share is None or self.max_num_seqs is None or tokens is None:
            return MemoryShare(machine.memory_bytes)  # the number of blocks is given
        profiled = profiled_bytes(
            StepLimits(self.max_num_seqs, tokens),
            vocabulary=machine.model.vocab_size,
            hidden=machine.model.hidden_size,
            inner=max(layer.mlp.inner for layer in machine.model.layer_kinds),
            ranks=machine.tensor,
        )
        part = (
            f"{share:g} of {machine.memory_bytes / 1e9:.2f} GB less {profiled / 1e9:.2f} GB for logits, activations, "
            "CUDA context and graphs"
        )
        less = f"less {', '.join(f'--{name}' for name in self.fewer)} or --max_model_len"
        return MemoryShare(round(share * machine.memory_bytes) - profiled, part, "--gpu_memory_utilization", less)

    def step_limits(self) -> Mapping[str, int]:
        """See `Policy.step_limits`."""
        limits = {"requests": self.max_num_seqs, "tokens": self.step_tokens}
        return {counted: most for counted, most in limits.items() if most is not None}


@dataclass(frozen=True)
class WatermarkPolicy(Queueing, ServerPolicy):
    """The settings of a server that leaves KV blocks free when it admits: vLLM's v0, and what was made of it."""

    watermark: float = setting(
        0.01, "share of the KV blocks that must stay free when a request is admitted", least=0, most=0.5
    )

    def decided_share(self) -> float | None:
        """Return the share of memory: what was asked for, else 0.9 unless the blocks are given."""
        if self.gpu_memory_utilization is None and self.num_gpu_blocks_override is None:
            return 0.9
        return self.gpu_memory_utilization
