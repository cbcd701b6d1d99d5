"""A kernel's time over one size, as a multiple of a base that is known everywhere.

Kernels differ between measured sizes mostly as their operations and bytes do. So what is interpolated is the logarithm
of how many times longer than a base (a plain roofline) a kernel takes, over the logarithm of the size: at a measured
size the time is the measured one, between two the base carries the shape, and outside of them the ratio stays what it
is at the edge. `benchmarks/aiconfigurator_tables.py` says how much better that is than straight lines.

Along its size a kernel's time should not fall. Where rows do, single ones mostly wrong by a passing disturbance, the
monotone curve with the least absolute logarithmic error is fitted (pooled adjacent medians); the row furthest from it
is left out, until all are within `TOLERANCE`. Those that were left out lie on a line between the others, in logarithms.
Smaller steps, such as those of tiles, are as they were measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

FloatArray = NDArray[np.float64]
TOLERANCE = 0.1
"""The part of a time that a row may be away from a monotone curve."""


@dataclass(frozen=True, slots=True, eq=False)
class Ratios:
    """`ratios` ``[n]`` (logarithms) at `sizes` ``[n]``, ascending; `corrected`: rows that were outliers."""

    sizes: FloatArray
    ratios: FloatArray
    corrected: int

    @classmethod
    def of(cls, sizes: FloatArray, times: FloatArray, base: FloatArray) -> Ratios:
        """Return the curve of `times` (ns) at ascending `sizes`, of which the base is `base` (ns)."""
        sound, corrected = without_outliers(np.log(sizes), np.log(times))
        return cls(sizes, sound - np.log(base), corrected)

    def at(self, sizes: FloatArray) -> FloatArray:
        """Return the logarithm of the ratio at `sizes`."""
        found: FloatArray = np.interp(np.log(sizes), np.log(self.sizes), self.ratios)
        return found

    def outside(self, sizes: FloatArray) -> NDArray[np.bool_]:
        """Return which of `sizes` lie outside of what was measured."""
        return np.asarray((sizes < self.sizes[0]) | (sizes > self.sizes[-1]))


def by_size(sizes: NDArray[np.int64], times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return sizes in ascending order and their times; of a size that was measured several times, the mean."""
    distinct, place = np.unique(sizes, return_inverse=True)
    counts = np.bincount(place.ravel())
    return distinct.astype(np.float64), np.bincount(place.ravel(), weights=times) / counts


def without_outliers(sizes: FloatArray, values: FloatArray) -> tuple[FloatArray, int]:
    """Return `values` over ascending `sizes`, all logarithms, with outliers put right, and how many these were."""
    kept = np.arange(len(values))
    while True:
        off = np.abs(values[kept] - rising(values[kept]))
        worst = int(np.argmax(off))
        if off[worst] <= np.log1p(TOLERANCE):
            break
        kept = np.delete(kept, worst)
    return np.interp(sizes, sizes[kept], values[kept]), len(values) - len(kept)


def rising(values: FloatArray) -> FloatArray:
    """Return what never falls and is nearest to `values` by the sum of absolute differences."""
    if (np.diff(values) >= 0).all():
        return values
    blocks: list[tuple[float, list[float]]] = []
    for value in values.tolist():
        blocks.append((value, [value]))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            members = blocks[-2][1] + blocks[-1][1]
            blocks[-2:] = [(float(np.median(members)), members)]
    return np.concatenate([np.full(len(members), middle) for middle, members in blocks])


def bracket(sizes: FloatArray, size: float) -> tuple[int, int, float]:
    """Return the two places of ascending `sizes` that `size` lies between, and how far along by logarithms, 0 to 1."""
    high = int(np.clip(np.searchsorted(sizes, size), 0, len(sizes) - 1))
    low = high if high == 0 or sizes[high] <= size else high - 1
    if low == high:
        return low, low, 0.0
    return low, high, float(np.log(size / sizes[low]) / np.log(sizes[high] / sizes[low]))
