"""Distributions of times: mean and percentiles, of plain values or of values that occur many times."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
_KEPT_APART = 4096
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
        weights = np.ones(len(values), dtype=np.int64)
    total = int(weights.sum())
    if total == 0:
        return None
    order = np.argsort(values, kind="stable")
    ranked, ends = values[order], np.cumsum(weights[order])
    mean = _sum(values, weights) / total
    return Distribution(total, mean, *(_percentile(ranked, ends, total, share) for share in SHARES.values()))


class WeightedValues:
    """Collects values with the number of times each occurred, as arrays."""

    def __init__(self) -> None:
        self._values: list[IntArray] = []
        self._weights: list[IntArray] = []

    def add(self, values: IntArray, weights: IntArray) -> None:
        """Add `values`, shape ``[n]``, that occurred `weights` times, shape ``[n]``."""
        self._values.append(values)
        self._weights.append(weights)
        if len(self._values) == _KEPT_APART:
            self._merge()

    def distribution(self) -> Distribution | None:
        """Return the distribution of everything added so far."""
        if not self._values:
            return None
        self._merge()
        return distribution(self._values[0], self._weights[0])

    def columns(self) -> tuple[IntArray, IntArray]:
        """Return the distinct values, ascending, and how often each occurred, both of shape ``[n]``."""
        if not self._values:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._merge()
        return self._values[0], self._weights[0]

    def _merge(self) -> None:
        """Keep each distinct value once."""
        values, place = np.unique(np.concatenate(self._values), return_inverse=True)
        weights = np.zeros(len(values), dtype=np.int64)
        np.add.at(weights, place, np.concatenate(self._weights))
        self._values, self._weights = [values], [weights]


def _sum(values: IntArray | FloatArray, weights: IntArray) -> float:
    """Return the weighted sum, the same on every machine: exact in integers, correctly rounded otherwise."""
    if np.issubdtype(values.dtype, np.integer):
        return int((values * weights).sum())
    return math.fsum((values * weights).tolist())


def _percentile(ranked: IntArray | FloatArray, ends: IntArray, total: int, share: float) -> float:
    position = (total - 1) * share
    rank = int(position)
    low, high = (float(ranked[np.searchsorted(ends, min(r, total - 1), side="right")]) for r in (rank, rank + 1))
    return low + (high - low) * (position - rank)
