"""What vLLM's scheduler knows of one request while it is waiting or running."""

from __future__ import annotations

from enum import Enum, auto

from orchestrator.requests.admission import Admission
from orchestrator.schedulers.tracked import Tracked


class Status(Enum):
    """Where a request is. A preempted one waits again, its output kept and its KV blocks gone."""

    WAITING = auto()
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
    - `next_decode`: the decision from which on it may be decided again.
    """

    __slots__ = ("final", "key", "longest", "next_decode", "placeholders", "stale", "status")

    def __init__(self, admission: Admission, serial: int, max_model_len: int) -> None:
        super().__init__(admission, serial)
        request = admission.request
        self.tokens = request.prompt_tokens
        self.computed = 0
        self.key = (request.priority, request.arrival_ns, request.name or str(request.id), serial)
        self.final = request.prompt_tokens + request.max_tokens
        self.longest = max_model_len
        self.status = Status.WAITING
        self.placeholders = 0
        self.stale = 0
        self.next_decode = 0

    @property
    def is_last(self) -> bool:
        """Whether the token that came last was one too many to go on."""
        return self.tokens >= self.final or self.tokens >= self.longest

    def wanted(self) -> int:
        """Tokens that it could compute now; 0 when its last step is in flight."""
        if self.placeholders and self.computed + 2 - self.placeholders >= self.final:
            return 0
        return min(self.tokens + self.placeholders - self.computed, self.longest - 1 - self.computed)

    def steps_left(self) -> int:
        """Return how many more times it is decided as a decode, each time when the token before is there."""
        return min(self.final, self.longest) - self.tokens - 1
