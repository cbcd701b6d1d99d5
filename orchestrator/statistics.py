"""Distributions of times: mean and percentiles, of plain values or of values that occur many times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
_KEPT_APART, _MOST_ADDED = 4096, 2**18
"""How many arrays, and how many values in them, are not in order at most."""
STATISTICS = {"mean": "mean", "p50": "P50", "p90": "P90", "p95": "P95", "p99": "P99", "p99_9": "P99.9"}
"""The figures of a distribution, by the names they have in files, and as people write them."""
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean and percentiles (linear interpolation between the two nearest ranks) in the unit of the values."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float

    def scaled(self, factor: float) -> dict[str, float]:
        """Return the figures times `factor`, without the count."""
        return {name: value * factor for name, value in asdict(self).items() if name != "count"}


def distribution(values: IntArray | FloatArray, weights: IntArray | None = None) -> Distribution | None:
    """Return the distribution of `values`, each counted `weights` times (default 1); None when there are none."""
    if weights is None:
        ranked, ends, total = values.copy(), None, len(values)
        ranked.sort()
    else:
        order = np.argsort(values, kind="stable")
        ranked, ends, total = values[order], np.cumsum(weights[order]), int(weights.sum())
    if total == 0:
        return None
    mean = _sum(values, weights) / total
    return Distribution(total, mean, *(_percentile(ranked, ends, total, share) for share in SHARES.values()))


class WeightedValues:
    """Collects values with the number of times each occurred, as arrays.

    What was added last is put in order now and then, and joined with what is as large; so each value is moved about as
    often as the logarithm of how many there are. `kept_apart`: how many arrays, and values that came alone, are not
    in order at most.
    """

    def __init__(self, kept_apart: int = _KEPT_APART) -> None:
        self._kept_apart = kept_apart
        self._values: list[IntArray] = []
        self._weights: list[IntArray] = []
        self._added = 0
        self._single: dict[int, int] = {}
        self._ordered: list[tuple[IntArray, IntArray]] = []
        """Distinct values, ascending, and how often each occurred: each much longer than the next."""

    def add(self, values: IntArray, weights: IntArray) -> None:
        """Add `values`, shape ``[n]``, that occurred `weights` times, shape ``[n]``."""
        self._values.append(values)
        self._weights.append(weights)
        self._added += len(values)
        if len(self._values) >= self._kept_apart or self._added >= _MOST_ADDED:
            self._order()

    def count(self, value: int, times: int) -> None:
        """Add a value that occurred so many `times`."""
        self._single[value] = self._single.get(value, 0) + times
        if len(self._single) >= self._kept_apart:
            self._order()

    def distribution(self) -> Distribution | None:
        """Return the distribution of everything added so far."""
        return distribution(*self.columns())

    def columns(self) -> tuple[IntArray, IntArray]:
        """Return the distinct values, ascending, and how often each occurred, both of shape ``[n]``."""
        self._order()
        if not self._ordered:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        if len(self._ordered) > 1:
            self._ordered = [_distinct(self._ordered, joining=True)]
        return self._ordered[0]

    def _order(self) -> None:
        """Put in order what has not been; join what is as long as what came after it."""
        if self._single:
            singles = np.array(list(self._single.items()), dtype=np.int64)
            self._single = {}
            self._values.append(singles[:, 0])
            self._weights.append(singles[:, 1])
        if not self._values:
            return
        last = _distinct(list(zip(self._values, self._weights, strict=True)))
        self._values, self._weights, self._added = [], [], 0
        while self._ordered and len(self._ordered[-1][0]) <= 2 * len(last[0]):
            last = _distinct([self._ordered.pop(), last], joining=True)
        self._ordered.append(last)


def _distinct(parts: Sequence[tuple[IntArray, IntArray]], *, joining: bool = False) -> tuple[IntArray, IntArray]:
    """Return the distinct values of all parts, ascending, and how often each occurred.

    `joining`: the parts are in order, which a stable sort makes use of.
    """
    values, weights = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(values, kind="stable" if joining else None)
    ranked = values[order]
    firsts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(ranked)])
    if not len(firsts):
        return values, weights
    return ranked[firsts], np.add.reduceat(weights[order], firsts)


def _sum(values: IntArray | FloatArray, weights: IntArray | None) -> float:
    """Return the weighted sum, the same on every machine: exact in integers, correctly rounded otherwise."""
    products = values if weights is None else values * weights
    if np.issubdtype(values.dtype, np.integer):
        return int(products.sum())
    return math.fsum(products.tolist())


def _percentile(ranked: IntArray | FloatArray, ends: IntArray | None, total: int, share: float) -> float:
    """Return the value that `share` of `total` are below; `ends`: how many up to each of `ranked`; None: one."""
    position = (total - 1) * share
    rank = int(position)
    places = [min(rank, total - 1), min(rank + 1, total - 1)]
    low, high = map(float, ranked[places if ends is None else np.searchsorted(ends, places, side="right")])
    return low + (high - low) * (position - rank)
