"""What requests attend to, as functions that compile: the formulas of `trace_gen.attention.work`, request by request.

Decodes whose contexts grow together are noted once (`note_contexts`). What they attend to at a later step is then a
sum that needs no look at each of them, but where some have come to the end of a window and others have not, or where
windows begin anew (chunks).
"""

from __future__ import annotations

from foundation.compiling import inner
from trace_gen.attention_numbers import (
    CHUNKED,
    CONTEXT_BYTES,
    CONTEXT_FLOPS,
    KV_BYTES,
    NEW_BYTES,
    PAIR_FLOPS,
    WINDOW,
    FloatArray,
    IntArray,
)

CONTEXTS = 0
"""The row of the space of integers that keeps the contexts."""
TOTAL, LEAST, MOST, STATE = range(4)
"""Rows of the space of floats whose first place keeps the contexts' sum, the shortest and the longest, and what else a
model must know (0 when the contexts were noted): so even a space for one request has room for all."""


@inner
def flops_of(shape: IntArray, new: int, context: int) -> int:
    """Return the operations of a request that computes `new` tokens on `context`."""
    flops: int = shape[PAIR_FLOPS] * _pairs(shape, new, context) + context * shape[CONTEXT_FLOPS]
    return flops


@inner
def bytes_of(shape: IntArray, new: int, context: int) -> int:
    """Return the bytes that it moves."""
    attended = kept_of(shape, context) + new
    moved: int = attended * shape[KV_BYTES] + new * shape[NEW_BYTES] + context * shape[CONTEXT_BYTES]
    return moved


@inner
def kept_of(shape: IntArray, context: int) -> int:
    """Return how many tokens of its context a request's first new token attends to."""
    window: int = shape[WINDOW]
    if window == 0:
        return context
    return context % window if shape[CHUNKED] else min(context, window - 1)


@inner
def note_contexts(context: IntArray, count: int, floats: FloatArray, ints: IntArray) -> None:
    """Keep the contexts of `count` decodes in the space `floats` and `ints` ``[4, n]``."""
    total, least, most = 0, context[0], context[0]
    for request in range(count):
        own = context[request]
        ints[CONTEXTS, request] = own
        total += own
        least, most = min(least, own), max(most, own)
    floats[TOTAL, 0], floats[LEAST, 0], floats[MOST, 0], floats[STATE, 0] = total, least, most, 0


@inner
def context_sum(count: int, step: int, floats: FloatArray) -> int:
    """Return the sum of the contexts at `step`."""
    return int(floats[TOTAL, 0]) + count * step


@inner
def kept_sum(shape: IntArray, count: int, step: int, floats: FloatArray, ints: IntArray) -> int:
    """Return the sum of `kept_of` the contexts at `step`."""
    window: int = shape[WINDOW]
    if window == 0:
        return context_sum(count, step, floats)
    if not shape[CHUNKED]:
        if floats[MOST, 0] + step < window:
            return context_sum(count, step, floats)
        if floats[LEAST, 0] + step >= window - 1:
            return count * (window - 1)
    kept = 0
    for request in range(count):
        kept += kept_of(shape, ints[CONTEXTS, request] + step)
    return kept


@inner
def most_kept(shape: IntArray, count: int, step: int, floats: FloatArray, ints: IntArray) -> int:
    """Return the largest of `kept_of` the contexts at `step`."""
    if not shape[CHUNKED]:
        return kept_of(shape, int(floats[MOST, 0]) + step)
    most = 0
    for request in range(count):
        most = max(most, kept_of(shape, ints[CONTEXTS, request] + step))
    return most


@inner
def _pairs(shape: IntArray, new: int, context: int) -> int:
    window: int = shape[WINDOW]
    if window == 0:
        return new * context + new * (new + 1) // 2
    if shape[CHUNKED]:
        return _since_chunk(context + new, window) - _since_chunk(context, window)
    growing = min(max(window - context, 0), new)
    return growing * context + growing * (growing + 1) // 2 + (new - growing) * window


@inner
def _since_chunk(tokens: int, chunk: int) -> int:
    whole, part = tokens // chunk, tokens % chunk
    return whole * (chunk * (chunk + 1) // 2) + part * (part + 1) // 2
