"""The time of paged attention, by what its kernels do with a batch.

All requests decode (one new token each): the kernel is bound by memory. It reads the KV cache once, query heads that
share a KV head together, and spends a fixed time on each request's KV head, spread over the compute units:

    spread = bytes / (bandwidth x efficiency) + tile_ns x requests x KV heads / units
    overhead + max(spread, serial_ns x longest context)

The second counts where kernels leave a context whole (FlashAttention-2 without groups of query heads): the unit that
reads the longest one is then waited for. A context is measured in the bytes that are moved for it.

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

Sums are exact, of integers that are scaled afterwards, or taken in the order of the requests: compiled functions
(`roofline.compiled`) say the same to the bit.

Where all query heads share one KV head and stand in one tile (`AttentionShape.tile_heads`: absorbed latent attention),
a decode is near the ridge: what it computes counts, too, at the rate of chunks, and is combined with what it moves as
the rest of the roofline does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.attention_numbers import CompiledAttention
from trace_gen.device_classes import Efficiency
from trace_gen.hardware import Hardware
from trace_gen.perf_model import AttentionPart
from trace_gen.perf_models.roofline.numbers import (
    QUERY_TILE,
    SURELY,
    roofline_numbers,
    serial_ns_a_byte,
    tile_heads,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AttentionRoofline:
    """Attention on one rank: `peak` in FLOP/s, `bandwidth` in bytes/s."""

    hardware: Hardware
    peak: float
    bandwidth: float

    def batch_ns(self, part: AttentionPart) -> FloatArray:
        """Return the time of one kernel over the whole batch at each step, shape ``[k]``."""
        prompts = part.batch.new_tokens > 1
        if not prompts.any():
            return self._decodes_ns(part)
        if not prompts.all() and self.hardware.attention_kernels == "fa3":
            own = self._chunks_ns(part, np.flatnonzero(prompts))
            beside = self._added_ns(part.shape, part.work.mem_bytes[:, ~prompts], part.work.flops[:, ~prompts])
            return np.asarray(own + beside)
        return self._chunks_ns(part, np.arange(len(prompts)))

    def requests_ns(self, part: AttentionPart) -> FloatArray:
        """Return the time of one kernel for each request at each step, shape ``[k, n]``."""
        efficiency = self._decode(part.shape)
        chunks = self._alone_ns(part)
        read = self._read_ns(part.shape, part.work.mem_bytes, part.work.flops)
        whole = part.work.mem_bytes * serial_ns_a_byte(part.shape, efficiency)
        decodes = np.minimum(chunks, np.maximum(read + self._tiles_ns(part.shape), whole) + efficiency.overhead_ns)
        return np.where(part.batch.new_tokens == 1, decodes, chunks)

    def compiled(self, shape: AttentionShape) -> CompiledAttention:
        """Return the numbers of attention of `shape`."""
        chunk, apart = self.hardware.efficiencies["attention_prefill"], self.hardware.attention_kernels == "fa3"
        units, decode = self.hardware.compute_units, self._decode(shape)
        return roofline_numbers(shape, self.peak, self.bandwidth, units, chunk, decode, apart)

    def _decode(self, shape: AttentionShape) -> Efficiency:
        """Return the efficiency of decodes with the heads of `shape`."""
        grouped = shape.query_heads > shape.kv_heads
        return self.hardware.efficiencies["attention_decode" if grouped else "attention_decode_ungrouped"]

    def _decodes_ns(self, part: AttentionPart) -> FloatArray:
        """Return the time of one kernel over decodes only, ``[k]``: as such, or as chunks if that is less."""
        shape, work, units = part.shape, part.work, self.hardware.compute_units
        count, heads = len(part.batch.new_tokens), tile_heads(part.shape)
        alone: FloatArray = self._added_ns(shape, work.mem_bytes, work.flops) + self._decode(shape).overhead_ns
        moved, flops = work.mem_bytes.sum(axis=1), work.flops.sum(axis=1)
        blocks, padded = -(-shape.tile_heads // QUERY_TILE), QUERY_TILE / shape.tile_heads
        mean: FloatArray = flops * padded / heads * (blocks * heads) / units
        least = self._kernel_ns(mean, moved, count * blocks, heads)
        if (alone <= least * SURELY).all():  # so for most batches, and their tiles need not be sorted
            return alone
        if shape.chunked:
            sizes = np.sort(work.flops, axis=1)[:, ::-1]
        else:  # all contexts grow together: who is ahead is so at every step, and in their sum
            sizes = work.flops[:, np.argsort(-work.flops.sum(axis=0), kind="stable")]
        waves = np.ceil(np.arange(1, count + 1) * blocks * heads / units).astype(np.int64)
        busiest = np.maximum(mean, (waves * sizes).max(axis=1) * padded / heads)
        return np.minimum(alone, self._kernel_ns(busiest, moved, count * blocks, heads))

    def _added_ns(self, shape: AttentionShape, moved: IntArray, flops: IntArray) -> FloatArray:
        """Return what decodes of such work ``[k, n]`` add to a kernel, ``[k]``."""
        if shape.tile_heads > 1:
            read = self._read_ns(shape, moved, flops).cumsum(axis=1)[:, -1]
        else:
            read = self._read_ns(shape, moved.sum(axis=1), flops)
        spread = np.asarray(read + moved.shape[1] * self._tiles_ns(shape))
        serial = serial_ns_a_byte(shape, self._decode(shape))
        return np.maximum(spread, moved.max(axis=1) * serial) if serial else spread

    def _read_ns(self, shape: AttentionShape, moved: IntArray, flops: IntArray) -> FloatArray:
        """Return the time of reading so many bytes; what is computed counts where heads stand side by side."""
        memory = np.asarray(moved * (1e9 / (self.bandwidth * self._decode(shape).memory)), dtype=np.float64)
        if shape.tile_heads == 1:
            return memory
        rate = self.peak * self.hardware.efficiencies["attention_prefill"].compute
        return np.asarray(np.hypot(memory, flops * (1e9 / rate)))

    def _tiles_ns(self, shape: AttentionShape) -> float:
        """Return what a decode's tiles take beside that."""
        return self._decode(shape).tile_ns * shape.kv_heads / self.hardware.compute_units

    def _chunks_ns(self, part: AttentionPart, chosen: IntArray) -> FloatArray:
        """Return the time of one kernel over the requests `chosen` as chunks, ``[k]``: a step, as prompts have."""
        units, heads = self.hardware.compute_units, tile_heads(part.shape)
        flops, moved = part.work.flops[:, chosen], part.work.mem_bytes[:, chosen].sum(axis=1)
        blocks, padded = _tiles(part.batch.new_tokens[chosen] * part.shape.tile_heads)
        sizes = flops * padded / heads
        mean = (sizes * (blocks * heads)).cumsum(axis=1)[:, -1] / units
        order = np.argsort(-sizes[0], kind="stable")
        waves = np.ceil(blocks[order].cumsum() * heads / units).astype(np.int64)
        busiest = (waves * flops[:, order] * padded[order] / heads).max(axis=1)
        return self._kernel_ns(np.maximum(mean, busiest), moved, blocks.sum(), heads)

    def _alone_ns(self, part: AttentionPart) -> FloatArray:
        """Return the time of a kernel for each request as a chunk, ``[k, n]``."""
        units, heads, flops = self.hardware.compute_units, tile_heads(part.shape), part.work.flops
        blocks, padded = _tiles(part.batch.new_tokens * part.shape.tile_heads)
        mean = flops * padded / heads * (blocks * heads) / units
        waves = np.ceil(blocks * heads / units).astype(np.int64)
        busiest = np.maximum(mean, waves * flops * padded / heads)
        return self._kernel_ns(busiest, part.work.mem_bytes, blocks, heads)

    def _kernel_ns(self, busiest: FloatArray, moved: IntArray, blocks: IntArray | int, heads: float) -> FloatArray:
        """Return the time of kernels over chunks, all ``[k, ..]``.

        `busiest`: the work of the busiest unit, at least the mean over the units, and for each size at least the waves
        of tiles that large; `blocks` of queries, each with a tile for each of `heads`.
        """
        efficiency, units = self.hardware.efficiencies["attention_prefill"], self.hardware.compute_units
        compute = busiest / (self.peak * efficiency.compute / units) * 1e9
        memory = moved / (self.bandwidth * efficiency.memory) * 1e9
        busy: FloatArray = np.hypot(compute, memory) + efficiency.tile_ns * (blocks * heads) / units
        return busy + efficiency.overhead_ns


def _tiles(queries: IntArray) -> tuple[IntArray, FloatArray]:
    """Return how many tiles so many queries stand in, and for how many queries each is counted in full ones."""
    return -(-queries // QUERY_TILE), QUERY_TILE / queries
