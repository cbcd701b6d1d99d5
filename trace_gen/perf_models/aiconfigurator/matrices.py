"""Matrix products of one format: times over rows, outputs and inputs.

    [m, k] x [k, n]: base = least time of the table + sqrt((2 m n k / peak)^2 + (bytes / bandwidth)^2)

For each measured pair (n, k) there is a curve over m; between pairs, ratios are interpolated linearly over the
logarithms of n and k. A pair that lacks leaves its weight to the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trace_gen.measured.lookups import LookupCounts
from trace_gen.perf_models.aiconfigurator.curves import Ratios, bracket, by_size
from trace_gen.perf_models.aiconfigurator.files import Kernels

FloatArray = NDArray[np.float64]
ACTIVATION_BYTES = 2


class MatrixTimes:
    """Times of `kernels` (sizes ``m``, ``n``, ``k``), weights of `weight_bytes` bytes each.

    `peak` in FLOP/s, `bandwidth` in bytes/s; `least` is the least time of all (ns).
    """

    def __init__(self, kernels: Kernels, peak: float, bandwidth: float, weight_bytes: float) -> None:
        self._peak, self._bandwidth, self._weight_bytes = peak, bandwidth, weight_bytes
        self.least = float(kernels.times.min())
        self._outputs = np.unique(kernels.sizes["n"]).astype(np.float64)
        self._inputs = np.unique(kernels.sizes["k"]).astype(np.float64)
        order = np.lexsort((kernels.sizes["m"], kernels.sizes["k"], kernels.sizes["n"]))
        self._kernels = kernels.only(order)
        pairs = np.stack((self._kernels.sizes["n"], self._kernels.sizes["k"]), axis=1)
        starts = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(axis=1)])
        ends = np.r_[starts[1:], len(pairs)]
        self._rows = {
            (int(pairs[start, 0]), int(pairs[start, 1])): slice(start, end)
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        }
        self._curves: dict[tuple[int, int], Ratios] = {}
        self._known: dict[tuple[int, int, int], tuple[float, LookupCounts]] = {}

    @property
    def corrected(self) -> tuple[int, int]:
        """How many rows of the curves that were used were outliers, and how many these have."""
        used = self._curves.values()
        return sum(curve.corrected for curve in used), sum(len(curve.sizes) for curve in used)

    def time_ns(self, rows: int, outputs: int, inputs: int) -> tuple[float, LookupCounts]:
        """Return the time of a product of `rows` rows, and whether it was measured."""
        key = rows, outputs, inputs
        if key not in self._known:
            self._known[key] = self._time_ns(*key)
        return self._known[key]

    def _time_ns(self, rows: int, outputs: int, inputs: int) -> tuple[float, LookupCounts]:
        size = np.array([float(rows)])
        total = weight = 0.0
        outside, measured = False, True
        n_low, n_high, n_share = bracket(self._outputs, outputs)
        k_low, k_high, k_share = bracket(self._inputs, inputs)
        for place, of_n in ((n_low, 1 - n_share), (n_high, n_share)):
            for other, of_k in ((k_low, 1 - k_share), (k_high, k_share)):
                curve = self._curve(int(self._outputs[place]), int(self._inputs[other]))
                if not of_n * of_k or curve is None:
                    continue
                total += of_n * of_k * float(curve.at(size)[0])
                weight += of_n * of_k
                outside |= bool(curve.outside(size)[0])
                measured &= rows in curve.sizes
        if not weight:  # none of the pairs around it was measured
            return self._nearest_ns(rows, outputs, inputs)
        outside |= not self._outputs[0] <= outputs <= self._outputs[-1]
        outside |= not self._inputs[0] <= inputs <= self._inputs[-1]
        measured &= outputs in self._outputs and inputs in self._inputs
        found = LookupCounts(int(measured and not outside), int(not measured and not outside), int(outside))
        return float(np.exp(total / weight)) * float(self._base(size, outputs, inputs)[0]), found

    def _nearest_ns(self, rows: int, outputs: int, inputs: int) -> tuple[float, LookupCounts]:
        def distance(pair: tuple[int, int]) -> float:
            return float(abs(np.log(pair[0] / outputs)) + abs(np.log(pair[1] / inputs)))

        pair = min(self._rows, key=distance)
        curve, size = self._curve(*pair), np.array([float(rows)])
        assert curve is not None
        ratio = float(np.exp(curve.at(size)[0]))
        return ratio * float(self._base(size, outputs, inputs)[0]), LookupCounts(extrapolated=1)

    def _curve(self, outputs: int, inputs: int) -> Ratios | None:
        rows = self._rows.get((outputs, inputs))
        if rows is None:
            return None
        if (outputs, inputs) not in self._curves:
            sizes, times = by_size(self._kernels.sizes["m"][rows], self._kernels.times[rows])
            self._curves[outputs, inputs] = Ratios.of(sizes, times, self._base(sizes, outputs, inputs))
        return self._curves[outputs, inputs]

    def _base(self, rows: FloatArray, outputs: int, inputs: int) -> FloatArray:
        compute = 2 * rows * outputs * inputs / self._peak * 1e9
        moved = outputs * inputs * self._weight_bytes + rows * (outputs + inputs) * ACTIVATION_BYTES
        return np.asarray(self.least + np.hypot(compute, moved / self._bandwidth * 1e9))
