"""Choices by popularity that falls as Zipf's law has it; with exponent 0 they are uniform."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trace_gen.mlp.draws import Draws
from trace_gen.mlp.experts import Experts


class PopularChoices:
    """Each token draws its experts one after another, none of them twice, the i-th most popular with weight i^-s.

    `exponent` is s. Which experts are popular is a permutation drawn for each layer, the same at every step.
    """

    by_layer = by_step = True

    def __init__(self, seed: int, exponent: float) -> None:
        self._draws, self._exponent = Draws(seed), exponent

    def popularity(self, experts: Experts, layers: Sequence[int]) -> NDArray[np.float64]:
        """See `Choices.popularity`."""
        result = np.empty((len(layers), experts.count))
        np.put_along_axis(result, self._draws.order(layers, experts.count), self._weights(experts)[None, :], axis=1)
        return result

    def chosen(self, experts: Experts, layers: Sequence[int], step: int, tokens: range) -> NDArray[np.int64]:
        """See `Choices.chosen`."""
        order = self._draws.order(layers, experts.count)
        return self._draws.chosen(experts, self._weights(experts), order, layers, step, tokens)

    def _weights(self, experts: Experts) -> NDArray[np.float64]:
        """Return the weights, the most popular expert's first."""
        return np.arange(1, experts.count + 1, dtype=np.float64) ** -self._exponent
