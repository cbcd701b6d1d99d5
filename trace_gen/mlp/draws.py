"""Random choices of experts that depend on nothing but what they are for: seed, layer, step and token.

Every token of every layer and step has a stream of its own, SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators"), whose n-th number is worked out without those before it. So it does not matter what
else is drawn, in which order, or together with what.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trace_gen.mlp.experts import Experts

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Streams = NDArray[np.uint64]
_STEP, _FIRST, _SECOND = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_EXPERTS, _GROUPS, _ORDER = range(3)
"""What streams are for."""
_TRIES = 1.75
"""After so many numbers of its stream for each choice, a token draws from what is left to it alone."""
_GUIDE = 4096
"""Points of each line whose place is looked up; a power of two, so that scaling rounds nothing."""
_TOGETHER = 1 << 15
"""Tokens x layers whose choices are held at once."""


def numbers(streams: Streams, place: int | IntArray) -> Streams:
    """Return number `place` (from 0) of each stream, which is a stream of its own, too; broadcast together."""
    mixed: Streams = streams + (np.atleast_1d(np.asarray(place, dtype=np.uint64)) + np.uint64(1)) * _STEP
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def shares(drawn: Streams) -> FloatArray:
    """Return numbers from 0 to 1, 1 excluded."""
    return np.asarray((drawn >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


class Draws:
    """What is drawn in a run of this `seed`."""

    def __init__(self, seed: int) -> None:
        self._seed = np.array([seed % 2**64], dtype=np.uint64)

    def order(self, layers: Sequence[int], count: int) -> IntArray:
        """Return a permutation of `count` things for each of `layers`, ``[l, count]``; the same at every step."""
        streams = numbers(numbers(self._seed, _ORDER), np.array(layers, dtype=np.int64))
        return np.argsort(numbers(streams[:, None], np.arange(count)), axis=1, kind="stable")

    def tokens(self, layers: Sequence[int], step: int, tokens: range, purpose: int = _EXPERTS) -> Streams:
        """Return a stream for each of `tokens` of `step` in each of `layers`, ``[l, tokens]``."""
        of_layers = numbers(numbers(self._seed, purpose), np.array(layers, dtype=np.int64))
        of_step = numbers(of_layers, step)
        return numbers(of_step[:, None], np.arange(tokens.start, tokens.stop))

    def chosen(
        self, experts: Experts, weights: FloatArray, order: IntArray, layers: Sequence[int], step: int, tokens: range
    ) -> IntArray:
        """Return how many of `tokens` choose each of `experts`, ``[l, experts]``.

        `order` ``[l, experts]``: the experts of each layer, the most popular first; `weights` ``[experts]``: how
        popular they are. A token draws its experts one after another, none of them twice; where experts stand in
        groups, first the groups, each as popular as its experts together.
        """
        counts: list[IntArray] = [np.zeros((0, experts.count), dtype=np.int64)]
        for part in _pieces(len(layers), max(1, _TOGETHER // max(1, len(tokens)))):
            own, some = order[part], layers[part]
            groups = None
            if experts.groups_per_token < experts.groups:
                of_expert = own // (experts.count // experts.groups)
                popular = np.zeros((len(own), experts.groups))
                np.add.at(popular, (np.arange(len(own))[:, None], of_expert), weights)
                streams = self.tokens(some, step, tokens, _GROUPS)
                groups = Groups(of_expert, without_replacement(popular, experts.groups_per_token, streams))
            streams = self.tokens(some, step, tokens)
            places = without_replacement(weights[None, :], experts.per_token, streams, groups)
            of_layer = np.repeat(np.arange(len(own)), len(tokens))[:, None]
            numbered = own[of_layer, places] + of_layer * experts.count
            found: IntArray = np.bincount(numbered.ravel(), minlength=own.size)
            counts.append(found.reshape(own.shape))
        return np.concatenate(counts)


class Groups:
    """Which choices streams may have: `group_of` ``[l, choices]``, of each stream the groups, ``[l x t, some]``."""

    def __init__(self, group_of: IntArray, open_to: IntArray) -> None:
        self._group_of = group_of
        self._open = np.zeros((len(open_to), int(group_of.max()) + 1), dtype=np.bool_)
        np.put_along_axis(self._open, open_to, True, axis=1)
        self.part = open_to.shape[1] / self._open.shape[1]

    def allow(self, rows: IntArray, layer: IntArray, choices: IntArray) -> BoolArray:
        """Return which of `choices` ``[n, m]`` the streams `rows` ``[n]`` of these layers ``[n]`` may have."""
        allowed: BoolArray = self._open[rows[:, None], self._group_of[layer[:, None], choices]]
        return allowed


def without_replacement(weights: FloatArray, take: int, streams: Streams, groups: Groups | None = None) -> IntArray:
    """Return `take` different choices for each stream, drawn by weight one after another, ``[l x t, take]``.

    `weights` ``[l, choices]``, or ``[1, choices]`` for all; `streams` ``[l, t]``. There are at least `take` choices in
    the groups of each stream.

    A number that leads to what a stream has already, or may not have, is passed over, which leaves the odds of the
    others as they are.
    """
    count, flat = weights.shape[1], streams.ravel()
    layer = np.repeat(np.arange(len(streams)), streams.shape[1])
    line = layer if len(weights) > 1 else np.zeros_like(layer)
    # One ascending line for all: that of layer l from l to l + 1.
    ends = weights.cumsum(axis=1) / weights.sum(axis=1, keepdims=True) + np.arange(len(weights))[:, None]
    tries = math.ceil(_TRIES * take / (1.0 if groups is None else groups.part))
    points = shares(numbers(flat[:, None], np.arange(tries))) + line[:, None]
    choices = _places(ends.ravel(), points) - line[:, None] * count
    choices = np.minimum(choices, count - 1)  # a sum may be rounded up
    rows = np.arange(len(flat))
    fresh = _first_ones(choices)
    if groups is not None:
        fresh &= groups.allow(rows, layer, choices)
    fresh &= fresh.cumsum(axis=1) <= take
    found = fresh.sum(axis=1)
    picked = np.full((len(flat), take), -1, dtype=np.int64)
    picked[np.arange(take) < found[:, None]] = choices[fresh]
    for part in _pieces(len(left := rows[found < take]), max(1, _TOGETHER // count)):
        some = left[part]
        barred = np.zeros((len(some), count), dtype=np.bool_)
        if groups is not None:
            barred = ~groups.allow(some, layer[some], np.broadcast_to(np.arange(count), barred.shape))
        picked[some] = _completed(picked[some], weights[line[some]], numbers(flat[some], tries), barred)
    return picked


def _places(ends: FloatArray, points: FloatArray) -> IntArray:
    """Return how many of the ascending `ends` are at or below each of `points`, as `searchsorted` does, but faster.

    A table has the answer for points at small equal distances; between two with the same answer there is no other.
    """
    size = math.ceil(ends[-1]) * _GUIDE
    if points.size < size:
        return np.asarray(np.searchsorted(ends, points, side="right"), dtype=np.int64)
    table: IntArray = np.searchsorted(ends, np.arange(size + 1) / _GUIDE, side="right")
    at = np.minimum((points * _GUIDE).astype(np.int64), size - 1)  # a point may be rounded up, too
    places: IntArray = table[at]
    unsure = np.nonzero(places != table[1:][at])
    places[unsure] = np.searchsorted(ends, points[unsure], side="right")
    return places


def _first_ones(choices: IntArray) -> BoolArray:
    """Return which of each row's `choices` have not occurred in it before."""
    width = choices.shape[1]
    placed = np.sort(choices * width + np.arange(width), axis=1)
    new = np.ones(choices.shape, dtype=np.bool_)
    new[:, 1:] = placed[:, 1:] // width != placed[:, :-1] // width
    result = np.empty_like(new)
    np.put_along_axis(result, placed % width, new, axis=1)
    return result


def _completed(picked: IntArray, weights: FloatArray, streams: Streams, barred: BoolArray) -> IntArray:
    """Return `picked` ``[n, take]`` with choices for those that are -1, at each row's end, none of them `barred`.

    They come in the order of exponential times, which is that of such draws. (Of things that wait for a time of rate w
    each, the next to come is one of weight w with the odds of a draw.)
    """
    times = -np.log1p(-shares(numbers(streams[:, None], np.arange(weights.shape[1])))) / weights
    had = picked >= 0
    rows, _ = np.nonzero(had)
    barred[rows, picked[had]] = True
    order = np.argsort(np.where(barred, np.inf, times), axis=1, kind="stable")
    following = np.maximum(np.arange(picked.shape[1]) - had.sum(axis=1, keepdims=True), 0)
    return np.where(had, picked, np.take_along_axis(order, following, axis=1))


def _pieces(length: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, length, size))
