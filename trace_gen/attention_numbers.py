"""Attention of one shape in numbers only, as compiled functions take it; nothing here loads a compiler.

A performance model that has such numbers tells them by `trace_gen.perf_model.CompilesAttention`;
`trace_gen.compiled_attention` has the functions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trace_gen.attention.work import AttentionShape

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

ROOFLINE, PROFILE = 0, 1
"""Performance models, `CompiledAttention.kind`."""
PAIR_FLOPS, KV_BYTES, NEW_BYTES, CONTEXT_FLOPS, CONTEXT_BYTES, WINDOW, CHUNKED, SHAPE_NUMBERS = range(8)
"""Places of the shape's numbers in `CompiledAttention.ints`, and of what comes after them; WINDOW is 0 where none is.
"""


class CompiledAttention(NamedTuple):
    """One rank's attention of one shape, all arrays of one dimension and contiguous.

    What they hold is up to the module of numbers of the performance model that `kind` says, but for `ints`, which
    begins with the numbers of the shape.
    """

    kind: int
    ints: IntArray
    floats: FloatArray
    places: IntArray
    table: FloatArray


NO_ATTENTION = CompiledAttention(ROOFLINE, np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros(0))
"""In place of a kind of attention that a model lacks; there is nothing to ask of it."""


def shape_numbers(shape: AttentionShape) -> list[int]:
    """Return the numbers of a shape, `SHAPE_NUMBERS` of them."""
    new_bytes = shape.query_bytes + shape.output_bytes + shape.kept_bytes
    context = (shape.context_flops, shape.context_bytes) if shape.context_flops else (0, 0)
    return [shape.pair_flops, shape.kv_bytes, new_bytes, *context, shape.window or 0, int(shape.chunked)]
