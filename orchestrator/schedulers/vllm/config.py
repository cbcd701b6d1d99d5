"""The settings of vLLM's v1 scheduler, checked as vLLM's own configuration checks them."""

from __future__ import annotations

from foundation.errors import UserError, near_names
from foundation.records import dataclass
from orchestrator.schedulers.speculation import METHODS, Speculation
from orchestrator.schedulers.vllm.rules import RULES, Rules

POLICIES = ("fcfs", "priority")
VERSIONS = tuple(RULES)


@dataclass(frozen=True, slots=True)
class VllmSchedulerConfig:
    """Names and defaults are vLLM's; lengths in tokens, `num_gpu_blocks` in KV blocks of `block_size` tokens.

    `num_gpu_blocks` counts the null block as vLLM does: one less is usable. `async_scheduling` None means vLLM's
    default: on. `version` chooses between rule sets (`orchestrator.schedulers.vllm.rules`), `engine_loop` is the
    version whose engine asks the scheduler, by default the same. `prefix_cache_retention_interval` (tokens; None: every
    block) matters from 0.33 on, and for sliding windows only. `num_speculative_tokens` 0 is no speculation;
    `max_loras` 0 is no limit to the adapters of a step.
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
    num_speculative_tokens: int = 0
    speculative_method: str | None = None
    max_loras: int = 0
    pipeline_stages: int = 1
    version: str = "0.19"
    engine_loop: str | None = None

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_choices()
        self._check_budget()
        self._check_speculation()

    @property
    def speculation(self) -> Speculation | None:
        """How answers are guessed ahead; None: they are not."""
        if not self.num_speculative_tokens or self.speculative_method is None:
            return None
        return Speculation(self.num_speculative_tokens, self.speculative_method)

    @property
    def step_tokens(self) -> int:
        """Tokens that the scheduler gives out in a step: the batch's, less what the drafter puts into it."""
        slots = self.speculation.slots if self.speculation is not None else 0
        return self.max_num_batched_tokens - slots * self.max_num_seqs

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
        if self.async_scheduling is None and self.speculation is not None:
            return self.speculation.runs_ahead_by_default
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
            ("num_speculative_tokens", 0),
            ("max_loras", 0),
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

    def _check_speculation(self) -> None:
        """Refuse what vLLM refuses, and what is not modelled here."""
        method, tokens = self.speculative_method, self.num_speculative_tokens
        if method is not None and method not in METHODS:
            fix = near_names(method, METHODS)
            raise UserError(f"unknown speculative_method {method!r}", field="speculative_method", fix=fix)
        if (method is None) is not (tokens == 0):
            missing = "num_speculative_tokens" if tokens == 0 else "speculative_method"
            raise UserError("speculation needs a method and a number of tokens", field=missing, fix="give both")
        speculation = self.speculation
        if speculation is None:
            return
        if self.async_scheduling and not speculation.may_run_ahead:
            raise UserError(
                f"drafts by {method} are made from tokens that must be there",
                field="async_scheduling",
                fix="leave it out, or choose a drafter that runs on the device",
            )
        if not self.rules.speculates:
            raise UserError(f"speculation is not modelled for {self.version}", field="version", fix="use 0.19")
        if self.pipeline_stages > 1:
            raise UserError(
                f"speculation is not modelled on {self.pipeline_stages} pipeline stages",
                field="pipeline_stages",
                fix="use 1",
            )
        if self.step_tokens < 1:
            raise UserError(
                f"{self.max_num_batched_tokens} tokens a step leave nothing beside a draft token for each of "
                f"max_num_seqs ({self.max_num_seqs}) requests",
                field="max_num_batched_tokens",
                fix=f"more than {self.max_num_seqs}, or lower max_num_seqs",
            )
