"""Floating-point operations and KV traffic of attention, which depend on how much each request attends to.

A request with ``c`` tokens of context and ``t`` new ones scores ``t c + t (t + 1) / 2`` query-key pairs (causal);
a pair costs `AttentionShape.pair_flops`. What the cache holds of all ``c + t`` tokens is read once, that of the new
ones written once (queries read and outputs written, too). With a sliding window of ``w`` tokens, query ``i`` attends to
``min(c + i, w)``; in chunks of ``w`` tokens, to those since the last multiple of ``w``: ``(c + i - 1) mod w + 1``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.batch_shape import BatchShape

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionWork:
    """Attention by request: `flops` and `mem_bytes` of shape ``[steps, n]``, for one layer on one rank."""

    flops: IntArray
    mem_bytes: IntArray


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """One layer's attention on one rank.

    - `query_heads`, `kv_heads`: heads of the rank; below 1 where a head is split over ranks;
    - `pair_flops`: operations for each query-key pair: 4 an element of the queries (2 for the score, 2 for the
      weighted sum) where heads are plain, and what else is done to a score;
    - `kv_bytes`: bytes that are read of a token that is attended to;
    - `query_bytes`, `output_bytes`: bytes of a token's queries and outputs; `kept_bytes`: of what the cache keeps;
    - `context_flops`, `context_bytes`: what a token of the context costs before it is attended to;
    - `window`: tokens that a query attends to at most, itself included; None for all. `chunked`: those of its own
      chunk of as many tokens;
    - `tile_heads`: query heads that share a KV head, and whose queries a kernel puts side by side into one tile.
    """

    query_heads: float
    kv_heads: float
    pair_flops: int
    kv_bytes: int
    query_bytes: int
    output_bytes: int
    kept_bytes: int
    context_flops: int = 0
    context_bytes: int = 0
    window: int | None = None
    chunked: bool = False
    tile_heads: int = 1

    def work(self, batch: BatchShape) -> AttentionWork:
        """Return what each request's attention costs at each step of `batch`."""
        context, new = batch.context_by_step(), batch.new_tokens[None, :]
        flops, mem_bytes = self.pair_flops * self._pairs(context, new), self._attended(context, new) * self.kv_bytes
        mem_bytes += new * (self.query_bytes + self.output_bytes + self.kept_bytes)
        if self.context_flops:
            flops, mem_bytes = flops + context * self.context_flops, mem_bytes + context * self.context_bytes
        return AttentionWork(flops, mem_bytes)

    def pairs(self, batch: BatchShape) -> IntArray:
        """Return the query-key pairs of each request at each step, ``[steps, n]``."""
        return self._pairs(batch.context_by_step(), batch.new_tokens[None, :])

    def attended(self, batch: BatchShape) -> IntArray:
        """Return the tokens that each request's queries attend to at each step, ``[steps, n]``."""
        return self._attended(batch.context_by_step(), batch.new_tokens[None, :])

    def _pairs(self, context: IntArray, new: IntArray) -> IntArray:
        if self.window is not None and self.chunked:
            return _since_chunk(context + new, self.window) - _since_chunk(context, self.window)
        growing = new if self.window is None else np.clip(self.window - context, 0, new)
        pairs: IntArray = growing * context + growing * (growing + 1) // 2
        return pairs if self.window is None else pairs + (new - growing) * self.window

    def _attended(self, context: IntArray, new: IntArray) -> IntArray:
        if self.window is not None and self.chunked:
            return np.asarray(context % self.window + new)
        attended: IntArray = context + new
        return attended if self.window is None else np.minimum(attended, self.window + new - 1)


def _since_chunk(tokens: IntArray, chunk: int) -> IntArray:
    """Return the pairs of the first `tokens` queries of a sequence, each with the tokens since its chunk began."""
    whole, part = np.divmod(tokens, chunk)
    return np.asarray(whole * (chunk * (chunk + 1) // 2) + part * (part + 1) // 2)
