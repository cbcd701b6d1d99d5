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
        new = batch.new_tokens[None, :]
        mem_bytes = (self.attended(batch) + new) * self.kv_bytes + 2 * new * self.query_bytes
        return AttentionWork(self.pair_flops * self.pairs(batch), mem_bytes)

    def pairs(self, batch: BatchShape) -> IntArray:
        """Return the query-key pairs of each request at each step, ``[steps, n]``."""
        context, new = batch.context_by_step(), batch.new_tokens[None, :]
        if self.window is None:
            pairs: IntArray = new * context + new * (new + 1) // 2
            return pairs
        growing = np.clip(self.window - context, 0, new)
        windowed: IntArray = growing * context + growing * (growing + 1) // 2 + (new - growing) * self.window
        return windowed

    def attended(self, batch: BatchShape) -> IntArray:
        """Return the tokens that each request's queries attend to at each step, ``[steps, n]``."""
        attended = batch.context_by_step() + batch.new_tokens[None, :]
        return attended if self.window is None else np.minimum(attended, self.window + batch.new_tokens[None, :] - 1)
