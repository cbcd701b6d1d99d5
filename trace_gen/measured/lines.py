"""A time over two sizes, from measured points: a curve over the second for each of the first.

Rows of one first size need not have the second sizes of others. Between first sizes times are interpolated linearly;
below the first they are the first's, above the last the slope of the last two goes on, never downwards. A curve of a
single point goes on as its neighbour's does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trace_gen.measured.curve import Curve
from trace_gen.measured.lookups import LookupCounts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Lines:
    """Times ``[n]`` (ns) at `sizes` ``[n, 2]``, each pair once; see the module's docstring."""

    def __init__(self, sizes: IntArray, times: FloatArray) -> None:
        self.firsts = np.unique(sizes[:, 0]).astype(np.float64)
        self._range = sizes[:, 1].min(), sizes[:, 1].max()
        self._rows = {*map(tuple, sizes.tolist())}
        chosen = [sizes[:, 0] == first for first in self.firsts]
        self._curves = [Curve.of(sizes[own, 1], times[own]) for own in chosen]
        for line, more in zip(reversed(self._curves[:-1]), reversed(self._curves[1:]), strict=True):
            _borrow_slope(line, more)
        for less, line in zip(self._curves[:-1], self._curves[1:], strict=True):
            _borrow_slope(line, less)

    def points(self) -> tuple[IntArray, FloatArray]:
        """Return the rows: pairs of sizes ``[n, 2]``, and their times ``[n]``."""
        each = [(first, curve) for first, curve in zip(self.firsts, self._curves, strict=True)]
        sizes = [np.stack([np.full(len(curve.sizes), first), curve.sizes], axis=1) for first, curve in each]
        return np.concatenate(sizes).astype(np.int64), np.concatenate([curve.values for _, curve in each])

    def at(self, first: FloatArray | IntArray, second: FloatArray | IntArray) -> FloatArray:
        """Return the times at pairs of sizes, ``[q]``."""
        values = np.stack([curve.at(second) for curve in self._curves])
        if len(self.firsts) == 1:
            return np.asarray(values[0])
        high = np.clip(np.searchsorted(self.firsts, first), 1, len(self.firsts) - 1)
        low = high - 1
        share = (np.maximum(first, self.firsts[0]) - self.firsts[low]) / (self.firsts[high] - self.firsts[low])
        each = np.arange(len(first))
        less, step = values[low, each], values[high, each] - values[low, each]
        between = less + step * share
        return np.asarray(np.where(share > 1, np.maximum(between, values[high, each]), between))

    def lookups(self, first: FloatArray | IntArray, second: FloatArray | IntArray) -> LookupCounts:
        """Return how many of the pairs were measured, lie between, and outside of what was."""
        outside = (first < self.firsts[0]) | (first > self.firsts[-1])
        outside |= (second < self._range[0]) | (second > self._range[1])
        measured = sum(pair in self._rows for pair in zip(first.tolist(), second.tolist(), strict=True))
        return LookupCounts(measured, int((~outside).sum()) - measured, int(outside.sum()))


def _borrow_slope(line: Curve, other: Curve) -> None:
    if len(line.sizes) == 1:
        line.slope = max(line.slope, other.slope)
