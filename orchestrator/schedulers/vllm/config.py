"""The settings of vLLM's v1 scheduler, checked as vLLM's own configuration checks them."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.errors import UserError, near_names

POLICIES = ("fcfs", "priority")
VERSIONS = ("0.19", "0.33")


@dataclass(frozen=True, slots=True)
class VllmSchedulerConfig:
    """Names and defaults are vLLM's; lengths in tokens, `num_gpu_blocks` in KV blocks of `block_size` tokens.

    `num_gpu_blocks` counts the null block as vLLM does: one less is usable. `async_scheduling` None means vLLM's
    default: on, except with pipeline stages. `version` chooses between two rule sets; 0.33 differs from 0.19 in
    the order in which freed blocks are reused, in ignoring `long_prefill_token_threshold` for a request that is
    alone, and in going on after a request that preempted itself under ``priority``.
    """

    num_gpu_blocks: int
    max_model_len: int
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    policy: str = "fcfs"
    async_scheduling: bool | None = None
    scheduler_reserve_full_isl: bool = True
    pipeline_stages: int = 1
    version: str = "0.19"

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_choices()
        self._check_budget()
        if self.async_scheduling and self.pipeline_stages > 1:
            raise UserError(
                f"asynchronous scheduling is not modelled with {self.pipeline_stages} pipeline stages",
                field="async_scheduling",
                fix="turn it off, or use one stage",
            )

    @property
    def decides_ahead(self) -> bool:
        """Whether a step is decided while the previous one still runs."""
        return self.pipeline_stages == 1 if self.async_scheduling is None else self.async_scheduling

    @property
    def usable_blocks(self) -> int:
        """KV blocks that requests can hold."""
        return self.num_gpu_blocks - 1

    def _check_ranges(self) -> None:
        for name, least in (
            ("num_gpu_blocks", 2),
            ("max_model_len", 2),
            ("max_num_seqs", 1),
            ("max_num_batched_tokens", 1),
            ("block_size", 1),
            ("long_prefill_token_threshold", 0),
            ("pipeline_stages", 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{value!r} is not a whole number of at least {least}", field=name)

    def _check_choices(self) -> None:
        for name, value, known in (("policy", self.policy, POLICIES), ("version", self.version, VERSIONS)):
            if value not in known:
                raise UserError(f"unknown {name} {value!r}", field=name, fix=near_names(str(value), known))
        if self.version != "0.19" and self.long_prefill_token_threshold > self.max_model_len:
            raise UserError(
                f"{self.long_prefill_token_threshold} is above max_model_len ({self.max_model_len})",
                field="long_prefill_token_threshold",
                fix=f"at most {self.max_model_len}",
            )

    def _check_budget(self) -> None:
        budget = self.max_num_batched_tokens
        if budget < self.max_num_seqs:
            raise UserError(
                f"{budget} tokens a step cannot serve max_num_seqs ({self.max_num_seqs}) requests",
                field="max_num_batched_tokens",
                fix=f"at least {self.max_num_seqs}, or lower max_num_seqs",
            )
        if not self.enable_chunked_prefill and budget < self.max_model_len:
            raise UserError(
                f"{budget} is below max_model_len ({self.max_model_len}) while chunked prefill is off",
                field="max_num_batched_tokens",
                fix=f"at least {self.max_model_len}, or turn chunked prefill on",
            )
