"""A request as it arrives. What a scheduler or the metrics know about it lives with them, not here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, eq=False)
class Request:
    """One request: `id` is its position in the workload (and breaks ties), times in ns, lengths in tokens.

    `prompt_token_ids` and `output_token_ids` (sequences of int, or None) matter only for prefix caching;
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
