"""Choices as they were recorded: an expert's tokens, or the frequency with which it was chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trace_gen.mlp.draws import Draws, shares
from trace_gen.mlp.experts import Experts
from trace_gen.mlp.routings.file.recording import Recording

IntArray = NDArray[np.int64]


class _Recorded:
    """What is known of the routers of a recording."""

    by_layer = by_step = True

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def popularity(self, experts: Experts, layers: Sequence[int]) -> NDArray[np.float64]:
        """See `Choices.popularity`: all recorded tokens."""
        return np.array([self._recording.tokens[layer].sum(axis=0) for layer in layers], dtype=np.float64)


class RecordedSteps(_Recorded):
    """The recorded tokens of each step, the recording beginning again when it is over.

    Where a step has more or fewer tokens than were recorded, experts have as many in proportion: whole ones, the rest
    going to those that lack most, the first of equal ones.
    """

    def chosen(self, experts: Experts, layers: Sequence[int], step: int, tokens: range) -> IntArray:
        """See `Choices.chosen`."""
        at = step % self._recording.steps
        recorded = np.array([self._recording.tokens[layer][at] for layer in layers])
        choices, total = len(tokens) * experts.per_token, recorded.sum(axis=1, keepdims=True)
        whole, rest = np.divmod(recorded * choices, total)
        lacking = choices - whole.sum(axis=1)
        order = np.argsort(-rest, axis=1, kind="stable")
        place = np.argsort(order, axis=1, kind="stable")
        result: IntArray = whole + (place < lacking[:, None])
        return result


class RecordedFrequencies(_Recorded):
    """Each token chooses an expert as often as tokens did in the recording, drawn for each layer and step.

    Systematic sampling with unequal probabilities (Madow 1949): experts stand in line, each as long as its tokens, and
    a token takes those at k points at equal distances, the first drawn. The order in the line is drawn for each layer.
    """

    def __init__(self, recording: Recording, seed: int) -> None:
        super().__init__(recording)
        self._draws = Draws(seed)

    def chosen(self, experts: Experts, layers: Sequence[int], step: int, tokens: range) -> IntArray:
        """See `Choices.chosen`."""
        orders = self._draws.order(layers, experts.count)
        first = shares(self._draws.tokens(layers, step, tokens))
        result = np.empty((len(layers), experts.count), dtype=np.int64)
        for row, layer in enumerate(layers):
            in_line = self._recording.tokens[layer][0][orders[row]] * experts.per_token
            distance = int(in_line.sum()) // experts.per_token
            points = (first[row] * distance).astype(np.int64)[:, None] + distance * np.arange(experts.per_token)
            places = np.searchsorted(in_line.cumsum(), points.ravel(), side="right")
            result[row, orders[row]] = np.bincount(places, minlength=experts.count)
        return result
