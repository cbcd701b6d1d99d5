"""What vLLM's scheduler knows of one request while it is waiting or running."""

from __future__ import annotations

from enum import Enum, auto

from orchestrator.requests.admission import Admission
from orchestrator.schedulers.tracked import Tracked


class Status(Enum):
    """Where a request is. A preempted one waits again, its output kept and its KV blocks gone; one that fetches waits
    in blocks of its own for KV cache that was computed elsewhere."""

    WAITING = auto()
    FETCHING = auto()
    RUNNING = auto()
    PREEMPTED = auto()
    FINISHED = auto()


class Entry(Tracked):
    """One request's counters, all in tokens; vLLM's names for them are in brackets.

    - `tokens` (num_tokens): the prompt and the output that has arrived;
    - `placeholders` (num_output_placeholders): tokens that batches in flight sample, where decisions do not wait;
    - `computed` (num_computed_tokens), batches in flight included;
    - `final`: `tokens` at which the client's limit is reached, `longest` at which the model's is;
    - `stale` (num_stale_output_tokens): tokens of batches in flight that were decided before it lost its place;
    - `next_decode`: the decision from which on it may be decided again;
    - `drafts` (spec_token_ids): tokens guessed ahead that its next step verifies;
    - `coming`: tokens that batches in flight bring, `wrong`: drafts in them that count as computed and will not;
    - `guided`: whether the drafter could run with its last batch.
    """

    __slots__ = (
        "coming",
        "drafts",
        "final",
        "guided",
        "key",
        "longest",
        "next_decode",
        "placeholders",
        "stale",
        "status",
        "wrong",
    )

    def __init__(self, admission: Admission, serial: int, max_model_len: int) -> None:
        super().__init__(admission, serial)
        request = admission.request
        self.tokens = request.prompt_tokens
        self.computed = 0
        self.key = (request.priority, request.arrival_ns, request.name or str(request.id), serial)
        self.final = request.prompt_tokens + admission.most(request.max_tokens)
        self.longest = max_model_len
        self.status = Status.WAITING
        self.placeholders = 0
        self.stale = 0
        self.next_decode = 0
        self.drafts = self.coming = self.wrong = 0
        self.guided = True

    @property
    def is_last(self) -> bool:
        """Whether the token that came last was one too many to go on."""
        return self.tokens >= self.final or self.tokens >= self.longest

    def wanted(self) -> int:
        """Tokens that it could compute now; 0 when its last step is in flight."""
        if self.placeholders and self.computed + 2 - self.placeholders >= self.final:
            return 0
        known = self.tokens + self.drafts + self.placeholders
        return min(known - self.computed, self.longest - 1 - self.computed)

    @property
    def position(self) -> int:
        """Tokens of its answer that are there when all batches in flight are done."""
        return self.tokens - self.request.prompt_tokens + self.coming

    def room_for(self, brought: int, *, ended: bool) -> int:
        """Return how many of `brought` tokens belong to the answer; `ended`: it is complete with them."""
        most = min(self.final, self.longest)
        if ended:
            most = min(most, self.request.prompt_tokens + self.request.output_tokens)
        return min(brought, most - self.tokens)

    def steps_left(self) -> int:
        """Return how many more times it is decided as a decode, each time when the token before is there."""
        return min(self.final, self.longest) - self.tokens - 1
