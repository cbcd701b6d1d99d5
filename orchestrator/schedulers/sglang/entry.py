"""What SGLang's scheduler knows of one request while it is waiting or running."""

from __future__ import annotations

from orchestrator.requests.admission import Admission
from orchestrator.schedulers.tracked import Tracked

CLIPPED = 4096
"""No request is expected to get more tokens than that (SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION)."""


class Entry(Tracked):
    """One request's counters, all in tokens; SGLang's names for them are in brackets.

    - `tokens`: the prompt and the output that has arrived (origin_input_ids + output_ids);
    - `computed` (kv_committed_len), batches in flight included;
    - `limit` (max_new_tokens): what its client allows, cut to the longest sequence;
    - `landed`: leading tokens whose KV cache comes from elsewhere and has no slots here yet;
    - `finished`: it needs no more steps, though it may still be in a batch; `retracted`: it has lost its place.
    """

    __slots__ = ("_start", "finished", "landed", "limit", "retracted")

    def __init__(self, admission: Admission, serial: int, longest: int) -> None:
        super().__init__(admission, serial)
        self.landed, self.computed = self.computed, 0
        self._start = self.tokens
        self.limit = min(admission.request.max_tokens, longest - admission.request.prompt_tokens - 1)
        self.finished = self.retracted = False

    @property
    def output(self) -> int:
        """Tokens of the answer that have arrived (output_ids)."""
        return self.tokens - self._start

    @property
    def is_last(self) -> bool:
        """Whether the answer is as long as it may get."""
        return self.output >= self.limit

    @property
    def joins(self) -> bool:
        """Whether it comes with all of its prompt computed, so that it decodes at once."""
        return self.landed >= self.request.prompt_tokens

    @property
    def expected(self) -> int:
        """How many tokens it may still get, as far as the scheduler plans."""
        return min(self.limit - self.output, CLIPPED)

    def steps_left(self) -> int:
        """Return how many more tokens may arrive and not be its last."""
        return self.limit - self.output - 1
