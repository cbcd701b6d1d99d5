"""The time of paged attention, by what its kernels do with a batch.

All requests decode (one new token each): the kernel is bound by memory. It reads the KV cache once, query heads that
share a KV head together, and spends a fixed time on each request's KV head, spread over the compute units:

    overhead + bytes / (bandwidth x efficiency) + tile_ns x requests x KV heads / units

Any prompt tokens in the batch: every request is a chunk, a decode being a chunk of one. A tile of work is up to 64
queries of one head, padded to 64; units work through the tiles in whole waves. A short chunk on a long context so
leaves units idle, and decodes beside a prefill cost far more than alone:

    compute = max(total work / units, waves of the tiles that take at least s, times s, for every s)
    overhead + sqrt(compute^2 + memory^2) + tile_ns x tiles / units

Decodes never take longer than they would as chunks.

That is what FlashAttention-2 does. FlashAttention-3 and its like keep decodes and prompts apart in one kernel
(`Hardware.attention_kernels`): what the decodes take alone, and what the prompts take as chunks.

Where no query heads share a KV head, decodes have an efficiency of their own: kernels that put the queries of a KV head
side by side into a tile then have one query in it.

Where all query heads share one KV head and stand in one tile (`AttentionShape.tile_heads`: absorbed latent attention),
a decode is near the ridge: what it computes counts, too, at the rate of chunks, and is combined with what it moves as
the rest of the roofline does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.hardware import Efficiency, Hardware
from trace_gen.perf_model import AttentionPart

FloatArray = NDArray[np.float64]
QUERY_TILE = 64
"""Queries of one head that a compute unit handles at a time (FlashAttention-2's block of rows)."""


@dataclass(frozen=True, slots=True)
class AttentionRoofline:
    """Attention on one rank: `peak` in FLOP/s, `bandwidth` in bytes/s."""

    hardware: Hardware
    peak: float
    bandwidth: float

    def batch_ns(self, part: AttentionPart) -> FloatArray:
        """Return the time of one kernel over the whole batch at each step, shape ``[k]``."""
        prompts = part.batch.new_tokens > 1
        if prompts.any() and not prompts.all() and self.hardware.attention_kernels == "fa3":
            own: FloatArray = self._chunks_ns(part, np.flatnonzero(prompts)[None, :])[:, 0]
            beside: FloatArray = own + self._decode_ns(part)[:, ~prompts].sum(axis=1)
            return beside
        together = np.arange(len(part.batch.new_tokens))[None, :]
        chunks: FloatArray = self._chunks_ns(part, together)[:, 0]
        if prompts.any():
            return chunks
        decodes: FloatArray = self._decode_ns(part).sum(axis=1) + self._decode(part).overhead_ns
        return np.minimum(chunks, decodes)

    def requests_ns(self, part: AttentionPart) -> FloatArray:
        """Return the time of one kernel for each request at each step, shape ``[k, n]``."""
        overhead = self._decode(part).overhead_ns
        alone = np.arange(len(part.batch.new_tokens))[:, None]
        chunks = self._chunks_ns(part, alone)
        decodes = np.minimum(chunks, self._decode_ns(part) + overhead)
        return np.where(part.batch.new_tokens == 1, decodes, chunks)

    def _decode(self, part: AttentionPart) -> Efficiency:
        """Return the efficiency of decodes with the heads of `part`."""
        grouped = part.shape.query_heads > part.shape.kv_heads
        return self.hardware.efficiencies["attention_decode" if grouped else "attention_decode_ungrouped"]

    def _decode_ns(self, part: AttentionPart) -> FloatArray:
        """Return what each request adds to a kernel of decodes, ``[k, n]``."""
        efficiency = self._decode(part)
        memory = part.work.mem_bytes * (1e9 / (self.bandwidth * efficiency.memory))
        if part.shape.tile_heads > 1:
            rate = self.peak * self.hardware.efficiencies["attention_prefill"].compute
            memory = np.hypot(memory, part.work.flops * (1e9 / rate))
        tiles = efficiency.tile_ns * part.shape.kv_heads / self.hardware.compute_units
        result: FloatArray = np.asarray(memory + tiles)
        return result

    def _chunks_ns(self, part: AttentionPart, kernels: NDArray[np.int64]) -> FloatArray:
        """Return the time of kernels over chunks, ``[k, kernels]``; row i of `kernels` lists its requests."""
        efficiency, units = self.hardware.efficiencies["attention_prefill"], self.hardware.compute_units
        new_tokens, work = part.batch.new_tokens, part.work
        side_by_side = part.shape.tile_heads
        heads = max(1.0, part.shape.query_heads / side_by_side)
        queries = new_tokens * side_by_side
        blocks = -(-queries // QUERY_TILE)
        tile_flops = work.flops * (QUERY_TILE / queries) / heads
        unit_rate = self.peak * efficiency.compute / units
        tiles: FloatArray = (blocks * heads)[kernels].astype(np.float64)
        compute = _waves(tile_flops[:, kernels], tiles, units) / unit_rate * 1e9
        moved = work.mem_bytes[:, kernels].sum(axis=2)
        memory = moved / (self.bandwidth * efficiency.memory) * 1e9
        busy: FloatArray = np.hypot(compute, memory) + efficiency.tile_ns * tiles.sum(axis=1) / units
        return busy + efficiency.overhead_ns


def _waves(tile: FloatArray, tiles: FloatArray, units: int) -> FloatArray:
    """Return the work that each kernel's busiest unit does.

    `tile` ``[k, kernels, requests]`` is the work of one tile of a request, `tiles` ``[kernels, requests]`` how many it
    has. The result is at least the mean over the units, and for each size at least the waves of tiles that large.
    """
    if (tiles == tiles[:, :1]).all():
        # Requests with equally many tiles, such as decodes: sizes alone are sorted, which is several times as fast.
        sizes, counts = -np.sort(-tile, axis=2), tiles
    else:
        order = np.argsort(-tile, axis=2)
        sizes = np.take_along_axis(tile, order, axis=2)
        counts = np.take_along_axis(np.broadcast_to(tiles, tile.shape), order, axis=2)
    waves = np.ceil(counts.cumsum(axis=-1) / units)
    mean = (sizes * counts).sum(axis=2) / units
    result: FloatArray = np.maximum(mean, (waves * sizes).max(axis=2))
    return result
