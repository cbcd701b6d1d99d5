"""The work of attention where a sequence is divided over context-parallel ranks (see `trace_gen.context`).

Of ranks whose parts differ by rounding, the fullest counts. With ``n`` ranks, ``P`` query-key pairs of a prompt of
``t`` new tokens, ``a`` tokens that it attends to, and a decode of ``t`` tokens (1 and drafts) likewise:

    decode on each rank       ceil(P / n) pairs, ceil(a / n) tokens of the cache, all t queries
    prompt, gathered          ceil(P / n) pairs, all a tokens, ceil(t / n) queries
    prompt, a ring's block    ceil(P / n^2) pairs, ceil(a / n) tokens, ceil(t / n) queries
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trace_gen.attention.work import AttentionShape, AttentionWork
from trace_gen.batch_shape import BatchShape

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ContextDivision:
    """How sequences are divided over `ranks`; `ring`: keys and values of prompts come round block by block."""

    ranks: int
    ring: bool

    def decoded(self, batch: BatchShape) -> int:
        """Return the tokens of requests of `batch` that decode."""
        return int(batch.new_tokens[decoding(batch)].sum())

    def kept(self, shape: AttentionShape, batch: BatchShape) -> int:
        """Return the tokens of prompts whose keys and values one rank passes on, for attention of `shape`."""
        prompts = chosen(batch, ~decoding(batch))
        return int(_ceil(shape.attended(prompts)[0], self.ranks).sum())

    def decodes(self, shape: AttentionShape, batch: BatchShape) -> tuple[BatchShape, AttentionWork]:
        """Return one rank's part of the decodes of `batch`, and its work."""
        own = chosen(batch, decoding(batch))
        kept = _ceil(shape.attended(own), self.ranks) + _ceil(own.new_tokens, self.ranks)
        moved = kept * shape.kv_bytes + 2 * own.new_tokens * shape.query_bytes
        local = replace(own, context_tokens=own.context_tokens // self.ranks)
        return local, AttentionWork(shape.pair_flops * _ceil(shape.pairs(own), self.ranks), moved)

    def prompts(self, shape: AttentionShape, batch: BatchShape) -> tuple[BatchShape, AttentionWork]:
        """Return one rank's part of the prompts of `batch` (with one block of a ring), and its work."""
        own = chosen(batch, ~decoding(batch))
        new = _ceil(own.new_tokens, self.ranks)
        blocks = self.ranks if self.ring else 1
        pairs, attended = _ceil(shape.pairs(own), self.ranks * blocks), _ceil(shape.attended(own), blocks)
        written = _ceil(own.new_tokens, self.ranks * blocks)  # of a ring: in equal parts beside every block
        moved = (attended + written) * shape.kv_bytes + 2 * new * shape.query_bytes
        return replace(own, new_tokens=new), AttentionWork(shape.pair_flops * pairs, moved)


def decoding(batch: BatchShape) -> NDArray[np.bool_]:
    """Return which requests of `batch` decode: one token, or one and drafts that are verified."""
    found: NDArray[np.bool_] = (batch.new_tokens == 1) | (batch.samples == batch.new_tokens)
    return found


def chosen(batch: BatchShape, which: NDArray[np.bool_]) -> BatchShape:
    """Return the requests of `batch` that are in `which`, without KV transfers."""
    return BatchShape(
        request_ids=batch.request_ids[which],
        new_tokens=batch.new_tokens[which],
        context_tokens=batch.context_tokens[which],
        samples=batch.samples[which],
        steps=batch.steps,
    )


def _ceil(values: IntArray, divisor: int) -> IntArray:
    result: IntArray = -(-values // divisor)
    return result
