"""Latencies from datasheet numbers and fitted efficiencies: any model on any device, nothing measured.

For each operator, with the efficiencies of its class:

    compute = FLOPs / (peak x compute efficiency)        memory = bytes / (bandwidth x memory efficiency)
    latency = overhead + sqrt(compute^2 + memory^2)

The plain roofline takes the longer of the two; kernels near the ridge overlap them less than perfectly, which the
square root follows well (docs/performance_models.md has the errors). Activations up to a share of the cache move at
a multiple of the memory bandwidth.

The matrices of a rank's experts are one operator: the FLOPs of all its copies of tokens, the weights of those experts
that have any. Where ranks differ, the time is that of the slowest rank.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.recent import RecentByIdentity
from trace_gen.attention.work import AttentionShape
from trace_gen.attention_numbers import CompiledAttention
from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import Hardware
from trace_gen.perf_model import (
    AttentionGranularity,
    AttentionPart,
    ExpertPart,
    IntArray,
    LatencySource,
    OperatorTable,
    PerfModelOptions,
)
from trace_gen.perf_models.roofline.attention import AttentionRoofline
from trace_gen.precision import Arithmetic
from trace_gen.trace import OperatorClass
from trace_gen.vocabulary import FUSED, Vocabulary

FloatArray = NDArray[np.float64]
SIZES_KEPT = 256
"""So many different sizes of batches are remembered: as many as `trace_gen.generator` hands out again."""
CACHE_SHARE = 0.7
"""The part of the last-level cache that an operator's activations find free."""
CLASS_NAMES = {
    int(OperatorClass.GEMM): "gemm",
    int(OperatorClass.GROUPED_GEMM): "grouped_gemm",
    int(OperatorClass.ELEMENTWISE): "elementwise",
    int(OperatorClass.EMBEDDING): "embedding",
    int(OperatorClass.SAMPLER): "sampler",
}
NARROW = (int(Arithmetic.EIGHT), int(Arithmetic.FP8), int(Arithmetic.INT8))
CACHED = (int(OperatorClass.ELEMENTWISE), int(OperatorClass.EMBEDDING))


class RooflineModel:
    """See the module's docstring. `options.memory_bandwidth` replaces the device's."""

    vocabulary: Vocabulary = FUSED
    attention_granularity: AttentionGranularity = "batch"
    latency_source: LatencySource = "model"

    def __init__(self, options: PerfModelOptions) -> None:
        self.hardware: Hardware = options.hardware
        precision = options.precision
        self._plain: RecentByIdentity[FloatArray] = RecentByIdentity(SIZES_KEPT)
        options.hardware.rate(precision.arithmetic)  # a width that the device has no rate for is refused here
        self.peaks = np.array([_rate(options.hardware, kind) for kind in Arithmetic])
        self.bandwidth = options.memory_bandwidth or options.hardware.memory_bandwidth
        # Scores and their weighted sum are computed in 16 bits or more, whatever the weights are stored in.
        attention_peak = options.hardware.rate(Arithmetic.of(max(16, precision.activation_bits)))
        self.attention = AttentionRoofline(options.hardware, attention_peak, self.bandwidth)

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        """Return the roofline's time of each operator, shape ``[k, m]``."""
        result = np.empty(operators.flops.shape)
        # Only attention depends on the context, so the other columns are the same at every step, and whenever batches
        # of the same sizes come again.
        result[:] = self._plain.get([operators.rows], lambda: self._plain_ns(operators))
        for part in operators.attention:
            if part.per_request:
                requests = operators.request[part.columns] - part.first
                result[:, part.columns] = self.attention.requests_ns(part)[:, requests]
            else:
                result[:, part.columns] = self.attention.batch_ns(part)[:, None]
        return np.maximum(np.rint(result), 1).astype(np.int64)

    def attention_ns(self, shape: AttentionShape, batch: BatchShape) -> IntArray:
        """See `trace_gen.perf_model.TimesAttention`."""
        part = AttentionPart(np.zeros(1, dtype=np.int64), False, shape, batch, shape.work(batch))
        return np.maximum(np.rint(self.attention.batch_ns(part)), 1).astype(np.int64)

    def compiled_attention(self, shape: AttentionShape) -> CompiledAttention:
        """See `trace_gen.perf_model.CompilesAttention`."""
        return self.attention.compiled(shape)

    def _plain_ns(self, operators: OperatorTable) -> FloatArray:
        """Return the time of every operator but attention, whose place holds 0, shape ``[m]``."""
        flops = operators.flops[0].astype(np.float64)
        moved = operators.mem_bytes[0].astype(np.float64)
        peaks = self.peaks[operators.arithmetic]
        result = np.zeros(flops.shape)
        for kind, name in CLASS_NAMES.items():
            chosen = operators.kinds == kind
            busy = self._busy_ns(flops[chosen], peaks[chosen], moved[chosen], name, kind in CACHED)
            result[chosen] = busy + self.hardware.efficiencies[name].overhead_ns
        narrow = (operators.kinds == int(OperatorClass.GEMM)) & np.isin(operators.arithmetic, NARROW)
        busy = self._busy_ns(flops[narrow], peaks[narrow], moved[narrow], "gemm_8bit", cached=False)
        result[narrow] = busy + self.hardware.efficiencies["gemm_8bit"].overhead_ns
        for part in operators.experts:
            result[part.columns] = self._slowest_ns(part, peaks[part.columns])
        return result

    def _slowest_ns(self, part: ExpertPart, peaks: FloatArray) -> FloatArray:
        """Return the time of the rank whose experts take longest, ``[c]``."""
        name = CLASS_NAMES[int(OperatorClass.GROUPED_GEMM)]
        flops, moved = part.flops.astype(np.float64), part.mem_bytes.astype(np.float64)
        busy = self._busy_ns(flops, peaks[:, None], moved, name, cached=False)
        slowest: FloatArray = busy.max(axis=1) + self.hardware.efficiencies[name].overhead_ns
        return slowest

    def _busy_ns(self, flops: FloatArray, peaks: FloatArray, moved: FloatArray, name: str, cached: bool) -> FloatArray:
        efficiency = self.hardware.efficiencies[name]
        compute = flops / (peaks * efficiency.compute) * 1e9
        if cached:
            inside = np.minimum(moved, self.hardware.cache_bytes * CACHE_SHARE)
            moved = moved - inside + inside / self.hardware.cache_speedup
        memory = moved / (self.bandwidth * efficiency.memory) * 1e9
        result: FloatArray = np.hypot(compute, memory)
        return result


def _rate(hardware: Hardware, arithmetic: Arithmetic) -> float:
    """Return the FLOP/s of `arithmetic`, not a number where the device has none."""
    lacks = arithmetic is Arithmetic.SINGLE and "fp32" not in hardware.peak_flops
    return float("nan") if lacks else hardware.rate(arithmetic)
