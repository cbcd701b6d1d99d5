"""Attention's time as functions that compile: what performance models tell of a batch's attention, in numbers only.

The numbers of a model's attention of one shape are a `CompiledAttention`; which model they are of says `kind`. The
functions give what the model's own NumPy code gives, to the nanosecond: they do the same operations in the same order.

`new`, `context` ``[n]``: tokens of each request that are computed, and that are in the cache. `floats`, `ints` ``[4,
n]`` or wider: space that belongs to the caller; between `begin_decodes` and `decodes_ns` it stays as it is.
"""

from __future__ import annotations

import numpy as np

from foundation.compiling import compiled
from trace_gen.attention_numbers import (
    NO_ATTENTION,
    PROFILE,
    ROOFLINE,
    CompiledAttention,
    FloatArray,
    IntArray,
)
from trace_gen.perf_models.profile import compiled as profile
from trace_gen.perf_models.roofline import compiled as roofline

__all__ = [
    "NO_ATTENTION",
    "PROFILE",
    "ROOFLINE",
    "CompiledAttention",
    "batch_ns",
    "begin_decodes",
    "decodes_ns",
]


@compiled
def batch_ns(
    attention: CompiledAttention, new: IntArray, context: IntArray, count: int, floats: FloatArray, ints: IntArray
) -> int:
    """Return the time of one kernel over a batch of `count` requests (ns), at least 1."""
    if attention.kind == ROOFLINE:
        time = roofline.batch_ns(attention, new, context, count, floats, ints)
    else:
        time = profile.batch_ns(attention, new, context, count)
    return max(int(np.rint(time)), 1)


@compiled
def begin_decodes(
    attention: CompiledAttention, context: IntArray, count: int, floats: FloatArray, ints: IntArray
) -> None:
    """Prepare for steps in which each of `count` requests computes one token, and has one more in its context."""
    if attention.kind == ROOFLINE:
        roofline.begin_decodes(context, count, floats, ints)
    else:
        profile.begin_decodes(context, count, floats, ints)


@compiled
def decodes_ns(attention: CompiledAttention, count: int, step: int, floats: FloatArray, ints: IntArray) -> int:
    """Return the time (ns), at least 1, of step `step`, counted from 0, of the requests that it was prepared for."""
    if attention.kind == ROOFLINE:
        time = roofline.decodes_ns(attention, count, step, floats, ints)
    else:
        time = profile.decodes_ns(attention, count, step, floats, ints)
    return max(int(np.rint(time)), 1)
