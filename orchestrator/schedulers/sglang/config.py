"""The settings of SGLang's scheduler, and the limits that follow from them, as its server works them out.

Limits are those of `TpModelWorker` and `ModelRunner.init_memory_pool` (SGLang 0.5.5): how many requests run, how long a
sequence may get, and how long a prompt.
"""

from __future__ import annotations

from foundation.errors import UserError
from foundation.records import dataclass

POLICIES = ("fcfs", "lpm", "dfs-weight", "lof", "random")
_LEAST_ROWS, _MOST_ROWS = 2048, 4096
_BESIDE_PROMPT = 5


@dataclass(frozen=True, slots=True)
class SglangConfig:
    """Names and defaults are SGLang's; lengths in tokens, `capacity` of the KV cache too, in pages of `page_size`.

    `context_length` is the longest sequence; `max_running_requests` None is SGLang's default. A `chunked_prefill_size`
    below 1 leaves prompts whole. `overlap`: a step is decided while the step before still runs (never on several
    `stages`). `ignore_eos`: clients ask for all the tokens that they allow.
    """

    capacity: int
    context_length: int
    page_size: int = 1
    schedule_policy: str = "fcfs"
    schedule_conservativeness: float = 1.0
    chunked_prefill_size: int = 8192
    max_prefill_tokens: int = 16384
    max_running_requests: int | None = None
    enable_mixed_chunk: bool = False
    overlap: bool = True
    radix_cache: bool = True
    ignore_eos: bool = False
    random_seed: int = 0
    stages: int = 1

    def __post_init__(self) -> None:
        chunk, page = self.chunked_prefill_size, self.page_size
        if chunk > 0 and chunk % page:
            fix = f"give a multiple of {page}"
            raise UserError(f"{chunk} tokens are no whole pages of {page}", field="chunked_prefill_size", fix=fix)
        if self.stages > 1 and self.enable_mixed_chunk:
            raise UserError(
                f"SGLang mixes no prompts with decodes on {self.stages} pipeline stages",
                field="enable_mixed_chunk",
                fix="leave it out",
            )
        if self.longest_prompt < 1:
            raise UserError(
                f"the KV cache holds {self.capacity} tokens, the longest sequence has {self.context_length}: no prompt "
                f"is let in, which takes {_BESIDE_PROMPT + 3} of both",
                field="max_model_len" if self.context_length < self.capacity else "mem_fraction_static",
                fix="give more",
            )

    @property
    def chunk(self) -> int | None:
        """Prompt tokens of a step where prompts are cut; None where they are not."""
        return self.chunked_prefill_size if self.chunked_prefill_size > 0 else None

    @property
    def runs_ahead(self) -> bool:
        """Whether a step is decided while the step before still runs."""
        return self.overlap and self.stages == 1

    @property
    def longest(self) -> int:
        """The most tokens of a sequence."""
        return min(self.context_length, self.capacity) - 1

    @property
    def longest_prompt(self) -> int:
        """The most tokens of a prompt."""
        return self.longest - _BESIDE_PROMPT - 1

    @property
    def seats(self) -> int:
        """Requests that run at once in each micro-batch; there is one for every stage."""
        rows = min(max(int(self.capacity / self.context_length * 512), _LEAST_ROWS), _MOST_ROWS)
        asked = self.capacity // 2 if self.max_running_requests is None else self.max_running_requests
        return max(min(asked, rows) // self.stages, 1)

    @property
    def aware_of_cache(self) -> bool:
        """Whether the order of the waiting queue depends on what the cache holds."""
        return self.radix_cache and self.schedule_policy in ("lpm", "dfs-weight")
