"""The time of paged attention, by what its kernels do with a batch.

All requests decode (one new token each): the kernel is bound by memory. It reads the KV cache once, query heads that
share a KV head together, and spends a fixed time on each request's KV head, spread over the compute units:

    overhead + bytes / (bandwidth x efficiency) + tile_ns x requests x KV heads / units

Any prompt tokens in the batch: every request is a chunk, a decode being a chunk of one. A tile of work is up to 64
queries of one head, padded to 64; units work through the tiles in whole waves, and nothing is done before the longest
tile is. A short chunk on a long context so leaves units idle, and decodes beside a prefill cost far more than alone:

    compute = max(waves of tiles, longest tile)      overhead + sqrt(compute^2 + memory^2) + tile_ns x tiles / units
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import Hardware
from trace_gen.perf_model import OperatorTable

FloatArray = NDArray[np.float64]
QUERY_TILE = 64
"""Queries of one head that a compute unit handles at a time (FlashAttention-2's block of rows)."""


@dataclass(frozen=True, slots=True)
class AttentionRoofline:
    """Attention on one rank: `peak` in FLOP/s, `bandwidth` in bytes/s, `head_dim` in elements."""

    hardware: Hardware
    peak: float
    bandwidth: float
    head_dim: int

    def batch_ns(self, operators: OperatorTable, batch: BatchShape) -> FloatArray:
        """Return the time of one kernel over the whole batch at each step, shape ``[k]``."""
        decode = self._decode_ns(operators)
        everything = np.arange(len(batch.new_tokens))[None, :]
        if (batch.new_tokens == 1).all():
            efficiency = self.hardware.efficiencies["attention_decode"]
            alone: FloatArray = decode.sum(axis=1) + efficiency.overhead_ns
            return alone
        together: FloatArray = self._chunks_ns(operators, batch, everything)[:, 0]
        return together

    def requests_ns(self, operators: OperatorTable, batch: BatchShape) -> FloatArray:
        """Return the time of one kernel for each request at each step, shape ``[k, n]``."""
        overhead = self.hardware.efficiencies["attention_decode"].overhead_ns
        alone = np.arange(len(batch.new_tokens))[:, None]
        decode: FloatArray = self._decode_ns(operators) + overhead
        if (batch.new_tokens == 1).all():
            return decode
        return np.where(batch.new_tokens == 1, decode, self._chunks_ns(operators, batch, alone))

    def _decode_ns(self, operators: OperatorTable) -> FloatArray:
        """Return what each request adds to a kernel of decodes, ``[k, n]``."""
        efficiency = self.hardware.efficiencies["attention_decode"]
        memory = operators.work.mem_bytes * (1e9 / (self.bandwidth * efficiency.memory))
        heads = operators.attention.kv_elements / self.head_dim
        result: FloatArray = np.asarray(memory + efficiency.tile_ns * heads / self.hardware.compute_units)
        return result

    def _chunks_ns(self, operators: OperatorTable, batch: BatchShape, kernels: NDArray[np.int64]) -> FloatArray:
        """Return the time of kernels over chunks, ``[k, kernels]``; row i of `kernels` lists its requests."""
        efficiency, units = self.hardware.efficiencies["attention_prefill"], self.hardware.compute_units
        heads = max(1.0, operators.attention.query_elements / self.head_dim)
        blocks = -(-batch.new_tokens // QUERY_TILE)
        tile_flops = operators.work.flops * (QUERY_TILE / batch.new_tokens) / heads
        unit_rate = self.peak * efficiency.compute / units
        tiles = (blocks * heads)[kernels].sum(axis=1)
        mean_tile = (tile_flops * blocks * heads)[:, kernels].sum(axis=2) / tiles
        longest = tile_flops[:, kernels].max(axis=2)
        compute = np.maximum(mean_tile * np.ceil(tiles / units), longest) / unit_rate * 1e9
        moved = operators.work.mem_bytes[:, kernels].sum(axis=2)
        memory = moved / (self.bandwidth * efficiency.memory) * 1e9
        busy: FloatArray = np.hypot(compute, memory) + efficiency.tile_ns * tiles / units
        return busy + efficiency.overhead_ns
