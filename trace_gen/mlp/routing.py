"""What a routing is to the operator table: how many copies of tokens the experts of each rank work on.

A token chooses k of E experts; T tokens make T k copies, which R ranks share. Balanced routing gives every rank what it
has on the average under uniform independent choices, ``T k / R``, so ranks and layers are alike. (Where R does not
divide E, the ranks with one expert more than others work on ``T k ceil(E / R) / E``.) All T tokens miss an expert with
probability ``(1 - k/E)^T``, so the share of experts whose weights are read is

    1 - (1 - k/E)^T

and at least one expert of the rank: the ranks wait for each other, so the one that has work counts. (LLMServingSim's
BALANCED takes ``min(T k, E)`` experts instead, which no two tokens share until all are in use: with 128 experts, 8 a
token and 16 tokens that is 128, where independent choices hit 82.)

Any other routing says which experts tokens choose (`trace_gen.mlp.choices`), so ranks differ. They wait for each other
where tokens come back, so the slowest decides: rows have the sizes of the rank that has most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.mlp.experts import Experts
from trace_gen.precision import ceil_div

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ExpertSpread:
    """Where `experts` are: spread over `ranks`, of which `sharers` have the same tokens.

    `ranks` are those of a wave (or of one batch); `sharers` the tensor-parallel ranks of one member. `redundant`
    experts are held beside the model's own, as second copies of some of them.
    """

    experts: Experts
    ranks: int
    sharers: int = 1
    redundant: int = 0

    @property
    def held(self) -> int:
        """Experts that each rank holds; where ranks do not divide them, the first ranks, which have one more."""
        return self.experts.held(self.ranks, self.redundant)

    def own_tokens(self, tokens: int) -> int:
        """Return how many of its member's `tokens` each rank sends to the experts and gets back, rounded up."""
        return ceil_div(tokens, self.sharers)

    def own_copies(self, tokens: int) -> int:
        """Return how many copies of its member's `tokens` each rank sends to the experts, rounded up."""
        return ceil_div(tokens * self.experts.per_token, self.sharers)

    def gathered_tokens(self, tokens: int) -> int:
        """Return the tokens that all ranks send together where every member has `tokens`."""
        return self.ranks * self.own_tokens(tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Loads:
    """What the experts of each of `r` ranks have to do in each of `l` layers; ranks that are alike are one.

    - `copies` ``[l, r]``: copies of tokens that the rank's experts work on;
    - `active` ``[l, r]``: the share of the rank's experts whose weights are read, from 0 to 1;
    - `tokens` ``[l, r, held]``: the tokens of each expert; None where only the mean is known.
    """

    copies: IntArray
    active: FloatArray
    tokens: IntArray | None = None


class Routing(Protocol):
    """How tokens reach experts."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def by_layer(self) -> bool:
        """Whether layers with equal experts have other loads."""

    @property
    def by_step(self) -> bool:
        """Whether the same tokens make other loads at another step; traces then have one step each."""

    def loads(self, spread: ExpertSpread, layers: Sequence[int], step: int, tokens: range) -> Loads:
        """Return the loads of `layers` with the experts of `spread`; where layers are alike there is one of them.

        `tokens`: which of the step's tokens, numbered from 0 through the members of a wave.
        """


class BalancedRouting:
    """Every rank has the mean; see the module's docstring. Redundant experts count as experts more to choose from."""

    name = "balanced"
    by_layer = by_step = False

    def loads(self, spread: ExpertSpread, layers: Sequence[int], step: int, tokens: range) -> Loads:
        """See `Routing.loads`."""
        everywhere = spread.experts.count + spread.redundant
        copies = ceil_div(len(tokens) * spread.experts.per_token * spread.held, everywhere)
        return Loads(np.array([[copies]]), np.array([[self.activated_share(spread, len(tokens))]]))

    def activated_share(self, spread: ExpertSpread, tokens: int) -> float:
        """Return the share of a rank's experts whose weights are read for all `tokens`, above 0 and at most 1."""
        count = spread.experts.count + spread.redundant
        missed = (1 - spread.experts.per_token / count) ** tokens
        return max(1 - missed, 1 / spread.held)
