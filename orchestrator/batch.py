"""A scheduler's decision for one iteration, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.request import Request
from trace_gen.batch_shape import BatchShape, KVTransfer


@dataclass(slots=True)
class Batch:
    """What one instance computes in one iteration, or in `steps` iterations that differ by one token a request.

    `new_tokens[i]` tokens of `requests[i]` are computed by each step, `context_tokens[i]` are in the KV cache
    before the first; `samples[i]` says whether a step yields an output token. `admitted` pairs each request that
    entered the running set now (new or resumed) with its prefix-cache hit in tokens; `preempted` lists the
    requests that lost their place, in order. `serial` counts an instance's batches from 0.
    """

    serial: int
    requests: Sequence[Request]
    new_tokens: Sequence[int]
    context_tokens: Sequence[int]
    samples: Sequence[bool]
    admitted: Sequence[tuple[Request, int]] = ()
    preempted: Sequence[Request] = ()
    kv_loads: tuple[KVTransfer, ...] = ()
    kv_evictions: tuple[KVTransfer, ...] = ()
    steps: int = 1

    def shape(self) -> BatchShape:
        """Return the token counts as arrays, for the trace generator."""
        return BatchShape(
            request_ids=np.array([request.id for request in self.requests], dtype=np.int64),
            new_tokens=np.array(self.new_tokens, dtype=np.int64),
            context_tokens=np.array(self.context_tokens, dtype=np.int64),
            samples=np.array(self.samples, dtype=np.int64),
            kv_loads=self.kv_loads,
            kv_evictions=self.kv_evictions,
            steps=self.steps,
        )


@dataclass(slots=True)
class BatchOutcome:
    """What `Scheduler.update` reports of a finished batch: who got a token (each step) and who is done."""

    emitted: Sequence[Request] = ()
    finished: Sequence[Request] = field(default_factory=list)
