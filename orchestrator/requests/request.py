"""A request as it arrives. What a scheduler or the metrics know about it lives with them, not here."""

from __future__ import annotations

from typing import Any

from foundation.records import dataclass


@dataclass(slots=True, eq=False)
class Request:
    """One request: `id` is its position in the workload (and breaks ties), times in ns, lengths in tokens.

    `output_tokens` is the workload's knowledge: the answer is that long, and ends with a stop token where `max_tokens`,
    which the client allowed and a scheduler may know, is more. (Benchmarks ask for exactly as many tokens as they want
    and ignore stop tokens; so does a workload that says nothing: `max_tokens` is `output_tokens`.)
    `expected_output` is what a policy that asks for it by name may plan with; unless given it is the truth.

    `abort_ns`: when its client goes away, if it has no complete answer by then.

    `adapter` names the LoRA adapter that it is served with, if any.

    `session` is the number of the session that it is a turn of, if it is one.

    `prompt_token_ids` and `output_token_ids` (sequences of int, or None) matter only for prefix caching. The last
    `retrieved_tokens` of the prompt were found for it on the way, and nobody knows their ids.
    `source_line` is the line of the workload file, for error messages.
    """

    id: int
    arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    name: str = ""
    priority: int = 0
    session: int | None = None
    prompt_token_ids: Any = None
    output_token_ids: Any = None
    source_line: int | None = None
    max_tokens: int = 0
    expected_output: int = 0
    abort_ns: int | None = None
    adapter: str | None = None
    retrieved_tokens: int = 0

    def __post_init__(self) -> None:
        self.max_tokens = self.max_tokens or self.output_tokens
        self.expected_output = self.expected_output or self.output_tokens
