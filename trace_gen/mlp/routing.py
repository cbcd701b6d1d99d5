"""How the tokens of a batch spread over experts: the one place that knows the routing.

Routing is balanced: every rank is given what it has on the average under uniform independent routing, so ranks are
alike. A token chooses k of E experts; T tokens make T k copies, of which each of R ranks works on ``T k / R``. (Where
R does not divide E, the ranks with one expert more than others work on ``T k ceil(E / R) / E``.) All T
tokens miss an expert with probability ``(1 - k/E)^T``, so the share of experts whose weights are read is

    1 - (1 - k/E)^T

and at least one expert of the rank: the ranks wait for each other, so the one that has work counts. (LLMServingSim's
BALANCED takes ``min(T k, E)`` experts instead, which no two tokens share until all are in use: with 128 experts, 8 a
token and 16 tokens that is 128, where independent choices hit 82.)
"""

from __future__ import annotations

from dataclasses import dataclass

from trace_gen.mlp.experts import Experts
from trace_gen.precision import ceil_div


@dataclass(frozen=True, slots=True)
class ExpertRouting:
    """Balanced routing of `experts` that are spread over `ranks`, of which `sharers` have the same tokens.

    `ranks` are those of a wave (or of one batch); `sharers` the tensor-parallel ranks of one member.
    """

    experts: Experts
    ranks: int
    sharers: int = 1

    def copies(self, tokens: int) -> int:
        """Return the copies of all `tokens` that the fullest rank's experts work on, rounded up."""
        experts = self.experts
        return ceil_div(tokens * experts.per_token * experts.held(self.ranks), experts.count)

    def own_tokens(self, tokens: int) -> int:
        """Return how many of its member's `tokens` each rank sends to the experts and gets back, rounded up."""
        return ceil_div(tokens, self.sharers)

    def own_copies(self, tokens: int) -> int:
        """Return how many copies of its member's `tokens` each rank sends to the experts, rounded up."""
        return ceil_div(tokens * self.experts.per_token, self.sharers)

    def gathered_tokens(self, tokens: int) -> int:
        """Return the tokens that all ranks send together where every member has `tokens`."""
        return self.ranks * self.own_tokens(tokens)

    def activated_share(self, tokens: int) -> float:
        """Return the share of a rank's experts whose weights are read for all `tokens`, above 0 and at most 1."""
        missed = (1 - self.experts.per_token / self.experts.count) ** tokens
        return max(1 - missed, 1 / self.experts.held(self.ranks))
