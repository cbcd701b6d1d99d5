"""The halves of latent attention's up-projection: a small product for each head, all heads of a rank at once.

base = least time of the table + sqrt((operations / peak)^2 + (bytes / bandwidth)^2), over tokens
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.measured.lookups import LookupCounts
from trace_gen.operators import Operator
from trace_gen.perf_models.aiconfigurator.curves import Ratios, by_size
from trace_gen.perf_models.aiconfigurator.files import Kernels

FloatArray = NDArray[np.float64]
TOKENS, HEADS = "num_tokens", "num_heads"
NAMES = {"q_absorb": "mla_gen_pre", "v_up_proj": "mla_gen_post"}
"""What the tables call them, by our names."""
SIDES = 128 * 512
"""A head's matrix in the tables: DeepSeek-V3's, as that of all models with absorbed latent attention to date."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchedTimes:
    """Times of one operator; `peak` in FLOP/s, `bandwidth` in bytes/s."""

    operator: Operator
    peak: float
    bandwidth: float
    curve: Ratios
    least: float

    @classmethod
    def of(cls, kernels: Kernels, operator: Operator, peak: float, bandwidth: float) -> BatchedTimes | None:
        """Return the times of `operator`; None where `kernels` have none of its heads."""
        heads, rest = divmod(operator.flops, 2 * SIDES)
        own = kernels.where(**{HEADS: heads})
        if rest or not len(own.times):
            return None
        sizes, times = by_size(own.sizes[TOKENS], own.times)
        least = float(times.min())
        base = _base(operator, sizes, peak, bandwidth, least)
        return cls(operator, peak, bandwidth, Ratios.of(sizes, times, base), least)

    @property
    def corrected(self) -> tuple[int, int]:
        """See `MatrixTimes.corrected`."""
        return self.curve.corrected, len(self.curve.sizes)

    def time_ns(self, rows: int) -> tuple[float, LookupCounts]:
        """Return the time for `rows` tokens, and whether it was measured."""
        size = np.array([float(rows)])
        outside, known = bool(self.curve.outside(size)[0]), rows in self.curve.sizes
        base = _base(self.operator, size, self.peak, self.bandwidth, self.least)
        found = LookupCounts(int(known), int(not known and not outside), int(outside))
        return float(np.exp(self.curve.at(size)[0]) * base[0]), found


def _base(operator: Operator, rows: FloatArray, peak: float, bandwidth: float, least: float) -> FloatArray:
    moved = operator.weight_traffic_bytes + rows * operator.traffic_bytes
    return np.asarray(least + np.hypot(rows * operator.flops / peak, moved / bandwidth) * 1e9)
