"""The settings of vLLM's v1 scheduler, checked as vLLM's own configuration checks them."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.errors import UserError, near_names
from orchestrator.schedulers.vllm.rules import RULES, Rules

POLICIES = ("fcfs", "priority")
VERSIONS = tuple(RULES)


@dataclass(frozen=True, slots=True)
class VllmSchedulerConfig:
    """Names and defaults are vLLM's; lengths in tokens, `num_gpu_blocks` in KV blocks of `block_size` tokens.

    `num_gpu_blocks` counts the null block as vLLM does: one less is usable. `async_scheduling` None means vLLM's
    default: on. `version` chooses between rule sets (`orchestrator.schedulers.vllm.rules`), `engine_loop` is the
    version whose engine asks the scheduler, by default the same. `prefix_cache_retention_interval` (tokens; None: every
    block) matters from 0.33 on, and for sliding windows only.
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
    prefix_cache_retention_interval: int | None = 0
    pipeline_stages: int = 1
    version: str = "0.19"
    engine_loop: str | None = None

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_choices()
        self._check_budget()

    @property
    def rules(self) -> Rules:
        """The rules of the version."""
        return RULES[self.version]

    @property
    def fills_the_queue(self) -> bool:
        """Whether the engine decides until its queue of batches is full."""
        return RULES[self.engine_loop or self.version].fills_the_queue

    @property
    def decides_ahead(self) -> bool:
        """Whether a step is decided before the tokens of the previous one are there."""
        return self.async_scheduling is not False

    @property
    def staggers(self) -> bool:
        """Whether a request decodes only in every so manieth decision."""
        return self.pipeline_stages > 1 and self.decides_ahead and self.rules.staggers_stages

    @property
    def takes_turns(self) -> bool:
        """Whether not every batch in flight has every request that decodes."""
        return self.pipeline_stages > 1 and (self.staggers or not self.decides_ahead)

    @property
    def places(self) -> int:
        """Batches in flight: one a stage, and where decisions run ahead one more, on a single stage at least."""
        more = self.decides_ahead and (self.pipeline_stages == 1 or self.rules.staggers_stages)
        return self.pipeline_stages + int(more)

    def _check_ranges(self) -> None:
        for name, least in (
            ("num_gpu_blocks", 2),
            ("max_model_len", 2),
            ("max_num_seqs", 1),
            ("max_num_batched_tokens", 1),
            ("block_size", 1),
            ("long_prefill_token_threshold", 0),
            ("pipeline_stages", 1),
            ("prefix_cache_retention_interval", 0),
        ):
            value = getattr(self, name)
            if name == "prefix_cache_retention_interval" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{value!r} is not a whole number of at least {least}", field=name)

    def _check_choices(self) -> None:
        for name, value, known in (
            ("policy", self.policy, POLICIES),
            ("version", self.version, VERSIONS),
            ("engine_loop", self.engine_loop or self.version, VERSIONS),
        ):
            if value not in known:
                raise UserError(f"unknown {name} {value!r}", field=name, fix=near_names(str(value), known))
        if self.rules.bounds_the_threshold and self.long_prefill_token_threshold > self.max_model_len:
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
