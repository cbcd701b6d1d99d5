"""Latencies from datasheet numbers and fitted efficiencies: any model on any device, nothing measured.

For each operator, with the efficiencies of its class:

    compute = FLOPs / (peak x compute efficiency)        memory = bytes / (bandwidth x memory efficiency)
    latency = overhead + (compute^p + memory^p)^(1/p)

A large `p` would be the plain roofline (the longer of the two); real kernels near the ridge overlap the two less
than perfectly. Activations up to the size of the cache move at a multiple of the memory bandwidth. Attention is
the sum of its prefills and its decodes. A prefill is cut into tiles of 64 queries a head, which compute units work
through in whole waves: a short chunk over a long context leaves units idle and takes as long as a full wave.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import Efficiency, Hardware
from trace_gen.operators import OperatorClass, Vocabulary
from trace_gen.perf_model import (
    WHOLE_BATCH,
    AttentionGranularity,
    IntArray,
    LatencySource,
    OperatorTable,
    PerfModelOptions,
)

FloatArray = NDArray[np.float64]
QUERY_TILE = 64
"""Queries of one head that a compute unit handles at a time in flash attention."""
OVERLAP = 3.0
"""The exponent `p` above."""
CLASS_NAMES = {
    OperatorClass.GEMM: "gemm",
    OperatorClass.ELEMENTWISE: "elementwise",
    OperatorClass.EMBEDDING: "embedding",
    OperatorClass.SAMPLER: "sampler",
}


class RooflineModel:
    """See the module's docstring. `options.memory_bandwidth` replaces the device's."""

    vocabulary: Vocabulary = "fused"
    attention_granularity: AttentionGranularity = "batch"
    latency_source: LatencySource = "model"

    def __init__(self, options: PerfModelOptions) -> None:
        self.hardware: Hardware = options.hardware
        self.head_dim = options.architecture.head_dim
        precision = options.precision
        self.peak = options.hardware.flops_for(max(precision.weight_bits, precision.activation_bits))
        self.attention_peak = options.hardware.flops_for(max(16, precision.activation_bits))
        self.bandwidth = options.memory_bandwidth or options.hardware.memory_bandwidth

    def latency_ns(self, operators: OperatorTable, batch: BatchShape) -> IntArray:
        """Return the roofline's time of each operator, shape ``[k, m]``."""
        steps, count = operators.flops.shape
        attention = operators.kinds == OperatorClass.ATTENTION
        result = np.empty((steps, count))
        plain = np.flatnonzero(~attention)
        # Only attention depends on the context, so the other columns are the same at every step.
        result[:, plain] = self._plain_ns(operators, plain)
        self._fill_attention(result, np.flatnonzero(attention), operators, batch)
        return np.maximum(np.rint(result), 1).astype(np.int64)

    def _plain_ns(self, operators: OperatorTable, columns: IntArray) -> FloatArray:
        flops = operators.flops[0, columns].astype(np.float64)
        moved = operators.mem_bytes[0, columns].astype(np.float64)
        kinds = operators.kinds[columns]
        result = np.zeros(columns.shape)
        for kind, name in CLASS_NAMES.items():
            chosen = kinds == kind
            efficiency = self.hardware.efficiencies[name]
            cached = kind in (OperatorClass.ELEMENTWISE, OperatorClass.EMBEDDING)
            result[chosen] = self._time(flops[chosen], moved[chosen], efficiency, cached)
        return result

    def _time(self, flops: FloatArray, moved: FloatArray, efficiency: Efficiency, cached: bool) -> FloatArray:
        compute = flops / (self.peak * efficiency.compute) * 1e9
        memory = moved / (self.bandwidth * efficiency.memory) * 1e9
        if cached:
            memory *= _cached_fraction(moved, self.hardware)
        return efficiency.overhead_ns + _overlap(compute, memory)

    def _fill_attention(
        self, result: FloatArray, columns: IntArray, operators: OperatorTable, batch: BatchShape
    ) -> None:
        """Write the attention columns of `result`: one for the whole batch, or one a request."""
        if not len(columns):
            return
        work = operators.work
        prefill = self._prefill_ns(work.flops, work.mem_bytes, operators, batch)
        decode_efficiency = self.hardware.efficiencies["attention_decode"]
        decode = _overlap(
            work.flops / (self.attention_peak * decode_efficiency.compute) * 1e9,
            work.mem_bytes / (self.bandwidth * decode_efficiency.memory) * 1e9,
        )
        busy = np.where(work.is_decode, decode, prefill)
        overhead = np.where(
            work.is_decode, decode_efficiency.overhead_ns, self.hardware.efficiencies["attention_prefill"].overhead_ns
        )
        request = operators.request[columns]
        if request[0] == WHOLE_BATCH:
            result[:, columns[0]] = busy.sum(axis=1) + overhead.max(initial=0.0)
        else:
            result[:, columns] = busy[:, request] + overhead[request]

    def _prefill_ns(self, flops: IntArray, moved: IntArray, operators: OperatorTable, batch: BatchShape) -> FloatArray:
        """Return the time of each request as a prefill: waves of tiles, or the KV cache's bytes."""
        efficiency = self.hardware.efficiencies["attention_prefill"]
        units = self.hardware.compute_units
        heads = max(1, operators.attention.query_elements // self.head_dim)
        tiles = heads * -(-batch.new_tokens // QUERY_TILE)
        padded = -(-batch.new_tokens // QUERY_TILE) * QUERY_TILE / np.maximum(batch.new_tokens, 1)
        waves = -(-tiles // units) * units / np.maximum(tiles, 1)
        compute = flops * padded * waves / (self.attention_peak * efficiency.compute) * 1e9
        return _overlap(compute, moved / (self.bandwidth * efficiency.memory) * 1e9)


def _overlap(compute: FloatArray, memory: FloatArray) -> FloatArray:
    """Return ``(compute^p + memory^p)^(1/p)``, without overflow."""
    longer, shorter = np.maximum(compute, memory), np.minimum(compute, memory)
    ratio = np.divide(shorter, longer, out=np.zeros_like(longer), where=longer > 0)
    result: FloatArray = longer * (1 + ratio**OVERLAP) ** (1 / OVERLAP)
    return result


def _cached_fraction(moved: FloatArray, hardware: Hardware) -> FloatArray:
    """Return the time of moving `moved` bytes relative to moving all of them from memory."""
    inside = np.minimum(moved, hardware.cache_bytes)
    outside = moved - inside
    relative: FloatArray = (inside / hardware.cache_speedup + outside) / np.maximum(moved, 1)
    return relative
