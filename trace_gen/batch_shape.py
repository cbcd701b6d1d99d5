"""The part of a scheduler's batch that decides what an iteration computes: token counts and KV movements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.trace import NO_REQUEST

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class KVTransfer:
    """KV blocks of one request moved between device memory and another tier before the iteration computes.

    `tokens` counts whole blocks (blocks x block size); `bytes` is the sum over all ranks of the instance;
    `tier` names the other side (``"host"``).
    """

    request_id: int
    blocks: int
    tokens: int
    bytes: int
    tier: str = "host"


@dataclass(frozen=True, eq=False)
class BatchShape:
    """Token counts of one iteration, or of `steps` iterations that differ only by one token a request.

    All arrays have shape ``[n]``, one entry a request, in the scheduler's order:

    - `request_ids`: which request the entry stands for;
    - `new_tokens`: tokens computed in this iteration;
    - `context_tokens`: tokens already in the KV cache before the first step;
    - `samples`: of how many of its last tokens the logits are needed: 0 for a chunk of a prompt that goes on, 1 for a
      prompt's last chunk and for a decode, 1 + drafts where drafted tokens are verified.

    With ``steps > 1`` every entry is a decode (one new token, sampled once) and step ``j`` has
    ``context_tokens + j`` tokens in the KV cache. `dummy_batch` and `empty_batch` are those of idle members of a wave.

    `padding`: tokens of no request that every operator but attention computes as well, each with its logits: of rows
    that hold their place though they are done. `graph_padding`: such tokens without logits, which fill up the graph
    that a step was captured as.
    """

    request_ids: IntArray
    new_tokens: IntArray
    context_tokens: IntArray
    samples: IntArray
    kv_loads: tuple[KVTransfer, ...] = ()
    kv_evictions: tuple[KVTransfer, ...] = ()
    steps: int = field(default=1)
    padding: int = 0
    graph_padding: int = 0

    @cached_property
    def total_tokens(self) -> int:
        """Tokens computed a step, summed over the batch: the rows of every linear operator."""
        return int(self.new_tokens.sum()) + self.padding + self.graph_padding

    @cached_property
    def sampled_tokens(self) -> int:
        """Tokens whose logits are computed, summed over the batch: the rows of the LM head and the sampler."""
        return int(self.samples.sum()) + self.padding

    @cached_property
    def decoding(self) -> NDArray[np.bool_]:
        """Which requests decode: compute one token, or one and its drafts, all of whose logits are needed, ``[n]``.

        As vLLM's attention backends divide a batch (0.19, v1/attention/backends); the others are prompts.
        """
        result: NDArray[np.bool_] = self.new_tokens <= np.maximum(self.samples, 1)
        return result

    @cached_property
    def decode_tokens(self) -> int:
        """Tokens that the requests which decode compute a step, and the padding."""
        return int(self.new_tokens[self.decoding].sum()) + self.padding + self.graph_padding

    def only(self, chosen: NDArray[np.bool_]) -> BatchShape:
        """Return the batch of the requests that are `chosen` ``[n]``, without what it moves, or its padding."""
        if chosen.all() and not (self.padding or self.graph_padding):
            return self
        return BatchShape(
            self.request_ids[chosen],
            self.new_tokens[chosen],
            self.context_tokens[chosen],
            self.samples[chosen],
            steps=self.steps,
        )

    def context_by_step(self) -> IntArray:
        """Return tokens in the KV cache before each step, shape ``[steps, n]``; a dummy's do not grow."""
        grown = np.arange(self.steps, dtype=np.int64)[:, None] * (self.request_ids >= 0)
        return self.context_tokens[None, :] + grown


def dummy_batch(steps: int = 1) -> BatchShape:
    """Return the batch of a member of a wave that has nothing to do but is waited for: vLLM's dummy run.

    One token a step, which belongs to no request, has no context and is not sampled.
    """
    zero = np.zeros(1, dtype=np.int64)
    return BatchShape(np.full(1, NO_REQUEST, dtype=np.int64), zero + 1, zero, zero, steps=steps)


def empty_batch(steps: int = 1) -> BatchShape:
    """Return the batch of a member of a wave that computes nothing."""
    none = np.zeros(0, dtype=np.int64)
    return BatchShape(none, none, none, none, steps=steps)


def concatenate(batches: Sequence[BatchShape]) -> BatchShape:
    """Return the batches of a wave as one, request after request; a single one is returned as it is."""
    if len(batches) == 1:
        return batches[0]
    return BatchShape(
        request_ids=np.concatenate([batch.request_ids for batch in batches]),
        new_tokens=np.concatenate([batch.new_tokens for batch in batches]),
        context_tokens=np.concatenate([batch.context_tokens for batch in batches]),
        samples=np.concatenate([batch.samples for batch in batches]),
        kv_loads=tuple(transfer for batch in batches for transfer in batch.kv_loads),
        kv_evictions=tuple(transfer for batch in batches for transfer in batch.kv_evictions),
        steps=batches[0].steps,
        padding=sum(batch.padding for batch in batches),
        graph_padding=sum(batch.graph_padding for batch in batches),
    )
