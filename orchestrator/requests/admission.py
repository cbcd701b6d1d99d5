"""How a request enters an engine: fresh, or with KV cache that was computed elsewhere or before."""

from __future__ import annotations

from foundation.records import dataclass
from orchestrator.requests.request import Request


@dataclass(frozen=True, slots=True)
class Admission:
    """`request` with `computed_tokens` of its prompt in the KV cache already; the engine sees it from `kv_ready_ns` on.

    A fresh request has none and is there when it arrives. A decode engine of a disaggregated pair gets one whose KV
    lands later; a session's next turn one whose history was kept.

    `ends_after`: the engine is done with the request after so many tokens, of however long an answer (None: all).
    """

    request: Request
    computed_tokens: int = 0
    kv_ready_ns: int = 0
    ends_after: int | None = None

    def most(self, tokens: int) -> int:
        """Return how many of an answer's `tokens` the engine makes."""
        return tokens if self.ends_after is None else min(tokens, self.ends_after)

    def peak_tokens(self, output_tokens: int) -> int:
        """Return the most tokens in the request's KV cache, whose last output token is never written.

        One whose prompt was computed elsewhere got its first output token there, which is written here.
        """
        prompt = self.request.prompt_tokens
        return prompt + output_tokens - (1 if self.computed_tokens < prompt else 0)
