"""`--scheduling sglang`: as SGLang 0.5.5, with what its server decides by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

from foundation.errors import UserError
from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.schedulers.settings import Machine, MemoryShare, Place, Policy, policies

if TYPE_CHECKING:
    from orchestrator.schedulers.sglang import SglangScheduler

_CHUNK = 8192
"""Tokens, where no device decides: the most usual default."""


@policies.register("sglang")
@dataclass(frozen=True)
class SglangSettings(Policy):
    """As SGLang's scheduler. Names and rules are those of 0.5.5; see `orchestrator.schedulers.sglang`."""

    default_block_size: ClassVar[int] = 1
    ends_at_longest: ClassVar[bool] = True
    sees_driver_memory: ClassVar[bool] = True
    needs_longest: ClassVar[bool] = False

    schedule_policy: str = setting(
        "fcfs", "order of the waiting queue", choices=("fcfs", "lpm", "dfs-weight", "lof", "random"), like=("policy",)
    )
    schedule_conservativeness: float = setting(
        1.0, "how much of what running requests may still ask for is set aside for them, of SGLang's share", above=0
    )
    chunked_prefill_size: int | None = setting(
        None,
        "prompt tokens a step, longer prompts being cut; -1: none is cut",
        least=-1,
        like=("max_num_batched_tokens",),
        shown_default="SGLang's for the device: 2048, 4096 from 35 GiB on, 8192 from 60, 16384 from 160",
    )
    max_prefill_tokens: int = setting(16384, "prompt tokens a step, after which no further prompt begins", least=1)
    max_running_requests: int | None = setting(
        None,
        "requests running at once",
        least=1,
        like=("max_num_seqs", "max_batch"),
        shown_default="SGLang's: half the tokens of the KV cache, at most 2048 to 4096",
    )
    enable_mixed_chunk: bool = setting(False, "let those that decode share the steps of prompts")
    mem_fraction_static: float | None = setting(
        None,
        "share of an NPU's memory for weights and KV cache",
        above=0,
        most=1,
        like=("gpu_memory_utilization",),
        shown_default="SGLang's for the device, chunks and ranks",
    )
    max_total_tokens: int | None = setting(
        None, "tokens that the KV cache holds at most", least=8, shown_default="as many as fit"
    )
    page_size: int | None = setting(
        None, "tokens in a page of KV cache, a KV block by SGLang's name", least=1, shown_default="1; --block_size"
    )
    disable_radix_cache: bool = setting(False, "reuse no KV cache of equal prefixes, and keep none")
    disable_overlap_schedule: bool = setting(
        False, "decide a step when the step before has ended; several pipeline stages always do"
    )
    ignore_eos: bool = setting(
        False, "clients ask for all the tokens that they allow, which matters without a radix cache"
    )
    random_seed: int = setting(0, "seed of --schedule_policy random", least=0)

    @property
    def block_size(self) -> int:
        """See `Policy.block_size`."""
        return self.page_size or self.default_block_size

    @property
    def reuses_prefixes(self) -> bool:
        """See `Policy.reuses_prefixes`."""
        return not self.disable_radix_cache

    def decided(self, machine: Machine) -> Self:
        """Return the same with SGLang's own defaults for the device."""
        from orchestrator.schedulers.sglang import server

        chunk = self.chunked_prefill_size
        if chunk is None:
            chunk = server.chunked_prefill_size(machine.memory_bytes)
        share = self.mem_fraction_static
        if share is None:
            sizes = (chunk, self.max_prefill_tokens, machine.tensor, machine.stages)
            share = server.mem_fraction_static(machine.memory_bytes, *sizes)
            if not share:
                reserve = server.reserved_mib(machine.memory_bytes, *sizes) * server.MIB
                raise UserError(
                    f"SGLang leaves {reserve / 1e9:.2f} GB to other things than weights and KV cache, an NPU has "
                    f"{machine.memory_bytes / 1e9:.2f} GB",
                    field="--mem_fraction_static",
                    fix="give it, or more memory",
                )
        return replace(self, chunked_prefill_size=chunk, mem_fraction_static=share)

    def memory_share(self, machine: Machine) -> MemoryShare:
        """Return the share of the memory that is for weights and KV cache."""
        share = self.mem_fraction_static or 1.0
        part = f"{share:g} of {machine.memory_bytes / 1e9:.2f} GB"
        less = "a smaller --chunked_prefill_size"
        return MemoryShare(round(share * machine.memory_bytes), part, "--mem_fraction_static", less)

    def step_limits(self) -> Mapping[str, int]:
        """See `Policy.step_limits`."""
        chunk = self.chunked_prefill_size
        limits = {"requests": self.max_running_requests, "prompt tokens": chunk if chunk and chunk > 0 else None}
        return {counted: most for counted, most in limits.items() if most is not None}

    def scheduler(self, place: Place) -> SglangScheduler:
        """Return SGLang's scheduler."""
        from orchestrator.kv_memory.radix import RadixKV
        from orchestrator.schedulers.sglang import SglangConfig, SglangScheduler

        kv = RadixKV(place.space, place.groups, shares=not self.disable_radix_cache)
        try:
            config = SglangConfig(
                capacity=kv.capacity,
                context_length=place.space.max_model_len or place.model_len,
                page_size=kv.block_size,
                schedule_policy=self.schedule_policy,
                schedule_conservativeness=self.schedule_conservativeness,
                chunked_prefill_size=_CHUNK if self.chunked_prefill_size is None else self.chunked_prefill_size,
                max_prefill_tokens=self.max_prefill_tokens,
                max_running_requests=self.max_running_requests,
                enable_mixed_chunk=self.enable_mixed_chunk,
                overlap=not self.disable_overlap_schedule,
                radix_cache=not self.disable_radix_cache,
                ignore_eos=self.ignore_eos,
                random_seed=self.random_seed,
                stages=place.pipeline,
            )
        except UserError as error:
            raise UserError(error.what, field=f"--{error.field}", fix=error.fix) from None
        return SglangScheduler(config, kv)
