"""Floating-point operations and KV traffic of attention, which depend on how much each request attends to.

A request with ``c`` tokens of context and ``t`` new ones scores ``t c + t (t + 1) / 2`` query-key pairs (causal);
a pair costs 4 FLOPs an element of the query (2 for the score, 2 for the weighted sum). Keys and values of all
``c + t`` tokens are read once, the new ones written once (queries read and outputs written, too). With a sliding
window of ``w`` tokens, query ``i`` attends to ``min(c + i, w)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trace_gen.batch_shape import BatchShape

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """One rank's attention, a token: elements of queries and of keys, bytes of them, and the window (or None)."""

    query_elements: int
    kv_elements: int
    """Keys alone."""
    query_bytes: int
    kv_bytes: int
    """Keys and values together."""
    window: int | None = None


@dataclass(frozen=True, slots=True)
class AttentionWork:
    """Attention by request: `flops` and `mem_bytes` of shape ``[steps, n]``, for one layer on one rank."""

    flops: IntArray
    mem_bytes: IntArray


def attention_work(shape: AttentionShape, batch: BatchShape) -> AttentionWork:
    """Return what each request's attention costs at each step of `batch`, for one layer on one rank."""
    context, new = batch.context_by_step(), batch.new_tokens[None, :]
    if shape.window is None:
        pairs = new * context + new * (new + 1) // 2
        attended = context + new
    else:
        growing = np.clip(shape.window - context, 0, new)
        pairs = growing * context + growing * (growing + 1) // 2 + (new - growing) * shape.window
        attended = np.minimum(context + new, shape.window + new - 1)
    flops = 4 * shape.query_elements * pairs
    mem_bytes = (attended + new) * shape.kv_bytes + 2 * new * shape.query_bytes
    return AttentionWork(flops, mem_bytes)
