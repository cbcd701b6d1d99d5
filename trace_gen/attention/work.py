"""Floating-point operations and KV traffic of attention, which depend on how much each request attends to.

A request with ``c`` tokens of context and ``t`` new ones scores ``t c + t (t + 1) / 2`` query-key pairs (causal);
a pair costs `AttentionShape.pair_flops`. What the cache holds of all ``c + t`` tokens is read once, that of the new
ones written once (queries read and outputs written, too). With a sliding window of ``w`` tokens, query ``i`` attends to
``min(c + i, w)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
      weighted sum) where heads are plain;
    - `query_bytes`: bytes of a token's queries (its outputs have as many); `kv_bytes`: of what the cache holds of it;
    - `window`: tokens that a query attends to at most, itself included; None for all.
    """

    query_heads: float
    kv_heads: float
    pair_flops: int
    query_bytes: int
    kv_bytes: int
    window: int | None = None

    def work(self, batch: BatchShape) -> AttentionWork:
        """Return what each request's attention costs at each step of `batch`."""
        context, new = batch.context_by_step(), batch.new_tokens[None, :]
        mem_bytes = (self._attended(context, new) + new) * self.kv_bytes + 2 * new * self.query_bytes
        return AttentionWork(self.pair_flops * self._pairs(context, new), mem_bytes)

    def pairs(self, batch: BatchShape) -> IntArray:
        """Return the query-key pairs of each request at each step, ``[steps, n]``."""
        return self._pairs(batch.context_by_step(), batch.new_tokens[None, :])

    def attended(self, batch: BatchShape) -> IntArray:
        """Return the tokens that each request's queries attend to at each step, ``[steps, n]``."""
        return self._attended(batch.context_by_step(), batch.new_tokens[None, :])

    def _pairs(self, context: IntArray, new: IntArray) -> IntArray:
        growing = new if self.window is None else np.clip(self.window - context, 0, new)
        pairs: IntArray = growing * context + growing * (growing + 1) // 2
        return pairs if self.window is None else pairs + (new - growing) * self.window

    def _attended(self, context: IntArray, new: IntArray) -> IntArray:
        attended: IntArray = context + new
        return attended if self.window is None else np.minimum(attended, self.window + new - 1)
