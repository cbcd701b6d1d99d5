"""Routings that say which experts tokens choose: from the tokens of each expert to the loads of the ranks.

Experts stand on ranks in order, ``held`` on each; redundant ones are placed by how popular experts are
(`trace_gen.mlp.placement`), and the copies of an expert share its tokens evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trace_gen.mlp.experts import Experts
from trace_gen.mlp.placement import Placement, place_experts
from trace_gen.mlp.routing import ExpertSpread, Loads

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Choices(Protocol):
    """Says how many tokens choose each expert: a pure function of what it is asked."""

    @property
    def by_layer(self) -> bool:
        """Whether layers with equal experts choose otherwise."""

    @property
    def by_step(self) -> bool:
        """Whether the same tokens choose otherwise at another step."""

    def popularity(self, experts: Experts, layers: Sequence[int]) -> FloatArray:
        """Return how much each expert is expected to be chosen, in any unit, ``[layers, experts]``."""

    def chosen(self, experts: Experts, layers: Sequence[int], step: int, tokens: range) -> IntArray:
        """Return how many of `tokens` choose each expert at `step`, ``[layers, experts]``.

        A row sums to ``len(tokens) x experts.per_token``, and no expert has more than all tokens.
        """


class ChosenRouting:
    """The routing of `choices`, called `name`."""

    def __init__(self, name: str, choices: Choices) -> None:
        self.name, self.choices = name, choices
        self._placements: dict[tuple[ExpertSpread, tuple[int, ...]], Placement] = {}

    @property
    def by_layer(self) -> bool:
        """See `Routing.by_layer`."""
        return self.choices.by_layer

    @property
    def by_step(self) -> bool:
        """See `Routing.by_step`."""
        return self.choices.by_step

    def loads(self, spread: ExpertSpread, layers: Sequence[int], step: int, tokens: range) -> Loads:
        """See `Routing.loads`."""
        chosen = self.choices.chosen(spread.experts, layers, step, tokens)
        if spread.redundant:
            chosen = self._placement(spread, tuple(layers)).shared(chosen)
        of_rank = _by_rank(chosen, spread)
        return Loads(of_rank.sum(axis=2), (of_rank > 0).mean(axis=2), of_rank)

    def _placement(self, spread: ExpertSpread, layers: tuple[int, ...]) -> Placement:
        key = spread, layers
        if key not in self._placements:
            popularity = self.choices.popularity(spread.experts, layers)
            self._placements[key] = place_experts(popularity, spread.ranks, spread.redundant)
        return self._placements[key]


def _by_rank(chosen: IntArray, spread: ExpertSpread) -> IntArray:
    """Return the tokens of the experts of each rank, ``[layers, ranks, held]``, 0 where a rank has fewer."""
    share, more = divmod(chosen.shape[1], spread.ranks)
    if more:
        held = [spread.held * rank + place for rank in range(spread.ranks) for place in range(share + (rank < more))]
        padded = np.zeros((len(chosen), spread.ranks * spread.held), dtype=chosen.dtype)
        padded[:, held] = chosen
        chosen = padded
    return chosen.reshape(len(chosen), spread.ranks, spread.held)
