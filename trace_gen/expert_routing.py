"""How the tokens of a batch spread over experts: the one place that knows the routing.

Routing is balanced: every rank is given what it has on the average under uniform independent routing, so ranks are
alike. A token chooses k of E experts; T tokens make T k copies, of which each of R ranks works on ``T k / R``. All T
tokens miss an expert with probability ``(1 - k/E)^T``, so the share of experts whose weights are read is

    1 - (1 - k/E)^T

and at least one expert of the rank: the ranks wait for each other, so the one that has work counts. (LLMServingSim's
BALANCED takes ``min(T k, E)`` experts instead, which no two tokens share until all are in use: with 128 experts, 8 a
token and 16 tokens that is 128, where independent choices hit 82.)
"""

from __future__ import annotations

from dataclasses import dataclass

from trace_gen.architecture import Experts
from trace_gen.sharding import ceil_div


@dataclass(frozen=True, slots=True)
class ExpertRouting:
    """Balanced routing of `experts` that are spread over `ranks`; tokens are those of the whole batch."""

    experts: Experts
    ranks: int

    def copies(self, tokens: int) -> int:
        """Return the copies of tokens that each rank's experts work on, rounded up."""
        return ceil_div(tokens * self.experts.per_token, self.ranks)

    def own_tokens(self, tokens: int) -> int:
        """Return the tokens that each rank sends to the experts and gets back, rounded up."""
        return ceil_div(tokens, self.ranks)

    def activated_share(self, tokens: int) -> float:
        """Return the share of a rank's experts whose weights are read, above 0 and at most 1."""
        missed = (1 - self.experts.per_token / self.experts.count) ** tokens
        return max(1 - missed, self.ranks / self.experts.count)
