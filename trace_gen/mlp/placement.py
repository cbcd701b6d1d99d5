"""Redundant experts: which ones have a second copy, and on which ranks all copies stand.

As DeepSeek's expert-parallel load balancer (EPLB, global policy) does it, and vLLM after it: one copy after another
goes to the expert whose copies have most to do each; then copies go to ranks, the busiest first, each to the rank that
has least to do among those with room. Here a rank that has no copy of the expert yet comes before one that has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The copies of the experts of each of `l` layers, rank after rank, equally many on each.

    - `expert` ``[l, copies]``: the expert that it is a copy of;
    - `number` ``[l, copies]``: which of that expert's copies it is, from 0;
    - `copies` ``[l, copies]``: how many copies that expert has.
    """

    expert: IntArray
    number: IntArray
    copies: IntArray

    def shared(self, tokens: IntArray) -> IntArray:
        """Return the tokens of each copy ``[l, copies]`` of those of each expert ``[l, experts]``: they differ by 1."""
        of_expert = np.take_along_axis(tokens, self.expert, axis=1)
        shared: IntArray = (of_expert + self.copies - 1 - self.number) // self.copies
        return shared


def place_experts(popularity: FloatArray, ranks: int, redundant: int) -> Placement:
    """Return where experts of `popularity` ``[l, experts]`` stand, with `redundant` copies more than experts.

    `ranks` divide the copies.
    """
    layers, count = popularity.shape
    every = np.arange(layers)
    copies = np.ones((layers, count), dtype=np.int64)
    expert = np.tile(np.arange(count + redundant), (layers, 1))
    number = np.zeros_like(expert)
    for copy in range(count, count + redundant):
        # More copies than ranks would be two on one of them.
        hottest = np.where(copies < ranks, popularity / copies, -1.0).argmax(axis=1)
        expert[:, copy], number[:, copy] = hottest, copies[every, hottest]
        copies[every, hottest] += 1
    order = _ranks_in_turn(expert, np.take_along_axis(popularity / copies, expert, axis=1), ranks)
    expert, number = (np.take_along_axis(values, order, axis=1) for values in (expert, number))
    return Placement(expert, number, np.take_along_axis(copies, expert, axis=1))


def _ranks_in_turn(expert: IntArray, load: FloatArray, ranks: int) -> IntArray:
    """Return the indices of copies ``[l, copies]`` in the order of the ranks that they are packed on."""
    layers, total = load.shape
    every, room = np.arange(layers), total // ranks
    busy, full = np.zeros((layers, ranks)), np.zeros((layers, ranks), dtype=np.int64)
    holds = np.zeros((layers, ranks, int(expert.max()) + 1), dtype=np.bool_)
    rank_of = np.zeros((layers, total), dtype=np.int64)
    for copy in np.argsort(-load, axis=1, kind="stable").T:
        own = expert[every, copy]
        # Python would compare (no room, has it already, load): the first two outweigh any load.
        unfit = 2 * (full == room) + holds[every, :, own]
        least = np.where(unfit == unfit.min(axis=1, keepdims=True), busy, np.inf).argmin(axis=1)
        rank_of[every, copy] = least
        busy[every, least] += load[every, copy]
        full[every, least] += 1
        holds[every, least, own] = True
    return np.argsort(rank_of, axis=1, kind="stable")
