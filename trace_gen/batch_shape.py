"""The part of a scheduler's batch that decides what an iteration computes: token counts and KV movements."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Token counts of one iteration, or of `steps` iterations that differ only by one token a request.

    All arrays have shape ``[n]``, one entry a request, in the scheduler's order:

    - `request_ids`: which request the entry stands for;
    - `new_tokens`: tokens computed in this iteration;
    - `context_tokens`: tokens already in the KV cache before the first step;
    - `samples`: of how many of its last tokens the logits are needed: 0 for a chunk of a prompt that goes on, 1 for a
      prompt's last chunk and for a decode, 1 + drafts where drafted tokens are verified.

    With ``steps > 1`` every entry is a decode (one new token, sampled once) and step ``j`` has
    ``context_tokens + j`` tokens in the KV cache.
    """

    request_ids: IntArray
    new_tokens: IntArray
    context_tokens: IntArray
    samples: IntArray
    kv_loads: tuple[KVTransfer, ...] = ()
    kv_evictions: tuple[KVTransfer, ...] = ()
    steps: int = field(default=1)

    @property
    def total_tokens(self) -> int:
        """Tokens computed a step, summed over the batch: the rows of every linear operator."""
        return int(self.new_tokens.sum())

    @property
    def sampled_tokens(self) -> int:
        """Tokens whose logits are computed, summed over the batch: the rows of the LM head and the sampler."""
        return int(self.samples.sum())

    def context_by_step(self) -> IntArray:
        """Return tokens in the KV cache before each step, shape ``[steps, n]``."""
        return self.context_tokens[None, :] + np.arange(self.steps, dtype=np.int64)[:, None]
