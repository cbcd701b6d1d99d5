"""`--scheduling vllm-v0`: as vLLM's v0 engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from foundation.errors import UserError
from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.schedulers.server import WatermarkPolicy
from orchestrator.schedulers.settings import Machine, Place, policies

if TYPE_CHECKING:
    from orchestrator.kv_memory.store import KVStore
    from orchestrator.schedulers.virtual_engine import V0Limits
    from orchestrator.schedulers.vllm_v0 import VllmV0Scheduler

SEATS = 256
LONG_CONTEXT = 32768
"""Beyond so many tokens v0 computes prompts in chunks by itself, or its profiling run would take all memory."""
CHUNK_TOKENS, PROMPT_TOKENS = 512, 2048
"""v0's defaults of `max_num_batched_tokens` with chunks, and the least without."""


@policies.register("vllm-v0")
@dataclass(frozen=True)
class VllmV0Settings(WatermarkPolicy):
    """As vLLM's v0 engine, prompts first. Names and defaults are those of vLLM 0.6."""

    max_num_seqs: int | None = setting(
        None, "requests running at once", least=1, like=("max_batch",), shown_default=str(SEATS)
    )
    max_num_batched_tokens: int | None = setting(
        None,
        "tokens a step",
        least=1,
        shown_default=f"{CHUNK_TOKENS} with chunks, else those of the longest sequence, at least {PROMPT_TOKENS}",
    )
    enable_prefix_caching: bool = setting(False, "reuse KV blocks of equal prefixes", aliases=("no_prefix_caching",))
    enable_chunked_prefill: bool | None = setting(
        None,
        "compute long prompts in chunks",
        aliases=("no_chunked_prefill",),
        shown_default=f"off, unless the longest sequence has more than {LONG_CONTEXT} tokens",
    )
    preemption_mode: str = setting(
        "recompute",
        "what becomes of a request that loses its KV blocks: computed anew, or swapped to host memory and back",
        choices=("recompute", "swap"),
    )

    @property
    def reuses_prefixes(self) -> bool:
        """See `Policy.reuses_prefixes`."""
        return self.enable_prefix_caching

    @property
    def swaps(self) -> bool:
        """See `Policy.swaps`."""
        return self.preemption_mode == "swap"

    @property
    def step_tokens(self) -> int | None:
        """See `ServerPolicy.step_tokens`."""
        return self.max_num_batched_tokens

    def decided(self, machine: Machine) -> Self:
        """Return the same with v0's defaults."""
        seats, tokens = self._step(machine.max_model_len)
        return replace(
            self,
            max_num_seqs=seats,
            max_num_batched_tokens=tokens,
            enable_chunked_prefill=self._chunks(machine.max_model_len),
            gpu_memory_utilization=self.decided_share(),
        )

    def scheduler(self, place: Place) -> VllmV0Scheduler:
        """Return v0's schedulers, one for each stage with its part of the KV blocks."""
        from orchestrator.schedulers.vllm_v0 import VllmV0Scheduler

        limits, size = self._limits(place), place.space.block_size
        tokens = limits.max_num_batched_tokens
        if limits.chunked and self.enable_prefix_caching and tokens % size:
            raise UserError(
                f"{tokens} is no multiple of --block_size {size}, as chunks beside --enable_prefix_caching must be",
                field="--max_num_batched_tokens",
                fix=f"give {tokens // size * size or size}",
            )
        return VllmV0Scheduler([self._memory(place) for _ in range(place.pipeline)], limits, order=self.order)

    def _limits(self, place: Place) -> V0Limits:
        from orchestrator.schedulers.virtual_engine import V0Limits

        longest = place.space.max_model_len or place.model_len
        return V0Limits(
            *self._step(longest),
            longest,
            chunked=self._chunks(longest),
            swaps=self.swaps,
            watermark=self.watermark,
        )

    def _memory(self, place: Place) -> KVStore:
        """Return the memory of one of the virtual engines."""
        from orchestrator.kv_memory.block_pool import SharedBlockPool
        from orchestrator.kv_memory.paged import PagedKV
        from orchestrator.kv_memory.prefix import PrefixKV

        space = replace(place.space, total_blocks=place.space.total_blocks // place.pipeline)
        if not self.enable_prefix_caching:
            return PagedKV(space, place.groups)
        return PrefixKV(space, SharedBlockPool(space.total_blocks + 1), place.groups)

    def _chunks(self, longest: int) -> bool:
        """Return whether prompts are computed in chunks."""
        asked = self.enable_chunked_prefill
        return longest > LONG_CONTEXT if asked is None else asked

    def _step(self, longest: int) -> tuple[int, int]:
        """Return the seats and tokens of a step; what v0's configuration refuses is a `UserError`."""
        seats, tokens = self.max_num_seqs or SEATS, self.max_num_batched_tokens
        if tokens is None:
            tokens = max(CHUNK_TOKENS, seats) if self._chunks(longest) else max(longest, PROMPT_TOKENS, seats)
        if tokens < seats:
            raise UserError(
                f"{tokens} tokens a step cannot serve max_num_seqs ({seats}) requests",
                field="--max_num_batched_tokens",
                fix=f"at least {seats}, or lower max_num_seqs",
            )
        if tokens < longest and not self._chunks(longest):
            raise UserError(
                f"{tokens} is below max_model_len ({longest}) while chunked prefill is off",
                field="--max_num_batched_tokens",
                fix=f"at least {longest}, a lower --max_model_len, or --enable_chunked_prefill",
            )
        return seats, tokens
