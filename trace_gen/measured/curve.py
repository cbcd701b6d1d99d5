"""A time over one size, from measured points.

Between points a time is interpolated linearly, below the first it is the first's, above the last it goes on with the
slope of a straight line fitted to the upper half of the points (the last two alone would extrapolate measurement
noise), never downwards.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trace_gen.measured.lookups import LookupCounts

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Curve:
    """Times (ns) of the sizes in `points`; see the module's docstring for what lies between and outside."""

    def __init__(self, points: Mapping[int, float]) -> None:
        self.sizes = np.array(sorted(points), dtype=np.float64)
        self.values = np.array([points[int(size)] for size in self.sizes])
        upper = slice(min(len(self.sizes) // 2, max(len(self.sizes) - 2, 0)), None)
        sizes, values = self.sizes[upper], self.values[upper]
        spread = sizes - sizes.mean()
        variance = float((spread**2).sum())
        self.slope = max(0.0, float((spread * values).sum()) / variance) if variance else 0.0

    @classmethod
    def of(cls, sizes: IntArray, times: FloatArray) -> Curve:
        """Return the curve of `times` (ns) at `sizes` ``[n]``."""
        return cls(dict(zip(sizes.tolist(), times.tolist(), strict=True)))

    def at(self, sizes: IntArray | FloatArray) -> FloatArray:
        """Return the time of each of `sizes`."""
        beyond = np.maximum(sizes - self.sizes[-1], 0.0)
        result: FloatArray = np.interp(sizes, self.sizes, self.values) + beyond * self.slope
        return result

    def lookups(self, sizes: IntArray | FloatArray) -> LookupCounts:
        """Return how many of `sizes` were measured, and how many lie between and outside of what was."""
        outside = int(((sizes < self.sizes[0]) | (sizes > self.sizes[-1])).sum())
        nearest = np.minimum(np.searchsorted(self.sizes, sizes), len(self.sizes) - 1)
        measured = int((self.sizes[nearest] == sizes).sum())
        return LookupCounts(measured, sizes.size - measured - outside, outside)
