"""The work of attention where a sequence is divided over context-parallel ranks (see `trace_gen.context`).

Of ranks whose parts differ by rounding, the fullest counts. With ``n`` ranks, ``P`` query-key pairs of a prompt of
``t`` new tokens, ``a`` tokens that it attends to, and a decode of ``t`` tokens (1 and drafts) likewise:

    decode on each rank       ceil(P / n) pairs, ceil(a / n) tokens of the cache, all t queries
    prompt, gathered          ceil(P / n) pairs, all a tokens, ceil(t / n) queries
    prompt, a ring's block    ceil(P / n^2) pairs, ceil(a / n) tokens, ceil(t / n) queries

Expanded latent attention makes keys and values of all tokens but its rank's own new ones, whose row is `kv_b_proj`.
With one rank that is the work of `AttentionShape.work`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape, AttentionWork
from trace_gen.batch_shape import BatchShape

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ContextDivision:
    """How sequences are divided over `ranks`; `ring`: keys and values of prompts come round block by block."""

    ranks: int
    ring: bool

    def kept(self, shape: AttentionShape, batch: BatchShape) -> int:
        """Return the tokens of prompts whose keys and values one rank passes on, for attention of `shape`."""
        prompts = batch.only(~batch.decoding)
        return int(_ceil(shape.attended(prompts)[0], self.ranks).sum())

    def decodes(self, shape: AttentionShape, batch: BatchShape) -> tuple[BatchShape, AttentionWork]:
        """Return one rank's part of the decodes of `batch`, and its work."""
        own = batch.only(batch.decoding)
        new, attended = own.new_tokens, _ceil(shape.attended(own), self.ranks)
        again = np.maximum(attended - new, 0)
        moved = attended * shape.kv_bytes + _ceil(new, self.ranks) * shape.kept_bytes
        moved += new * (shape.query_bytes + shape.output_bytes)
        local = replace(own, context_tokens=own.context_tokens // self.ranks)
        return local, _with_context(shape, _ceil(shape.pairs(own), self.ranks), moved, again)

    def prompts(self, shape: AttentionShape, batch: BatchShape) -> tuple[BatchShape, AttentionWork]:
        """Return one rank's part of the prompts of `batch` (with one block of a ring), and its work."""
        own = batch.only(~batch.decoding)
        new, blocks = _ceil(own.new_tokens, self.ranks), self.ranks if self.ring else 1
        attended = shape.attended(own)
        again = _ceil(np.maximum(attended - new, 0), blocks)
        pairs, attended = _ceil(shape.pairs(own), self.ranks * blocks), _ceil(attended, blocks)
        written = _ceil(own.new_tokens, self.ranks * blocks)  # of a ring: in equal parts beside every block
        moved = attended * shape.kv_bytes + written * shape.kept_bytes + new * (shape.query_bytes + shape.output_bytes)
        return replace(own, new_tokens=new), _with_context(shape, pairs, moved, again)


def _with_context(shape: AttentionShape, pairs: IntArray, moved: IntArray, again: IntArray) -> AttentionWork:
    """Return the work on `pairs` where `again` tokens of the context must be made ready first."""
    return AttentionWork(shape.pair_flops * pairs + again * shape.context_flops, moved + again * shape.context_bytes)


def _ceil(values: IntArray, divisor: int) -> IntArray:
    result: IntArray = -(-values // divisor)
    return result
