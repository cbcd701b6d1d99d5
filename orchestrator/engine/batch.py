"""A scheduler's decision for one iteration, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import field, replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.requests.request import Request
from trace_gen.batch_shape import BatchShape, KVTransfer

IntArray = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Batch:
    """What one engine computes in one iteration, or in `steps` iterations that differ by one token a request.

    `new_tokens[i]` tokens of `requests[i]` are computed by each step, `context_tokens[i]` are in the KV cache
    before the first; `samples[i]` logits are sampled by a step (0, 1, or 1 + drafts). These columns and `ids` have
    shape ``[n]``; batches of the same requests may share them, so they are not to be written to. `admitted` pairs each
    request that entered the running set now (new or resumed) with its prefix-cache hit in tokens; `preempted` lists
    the requests that lost their place, in order. A batch of no requests computes nothing (it may preempt some).
    `serial` counts an engine's iterations from 0. `kv_loads` and `kv_evictions` are moved before it computes; `fetches`
    (KV cache that was computed elsewhere) set out when it is decided and come while it and others compute. `brings[i]`
    tokens come out for `requests[i]`, if its answer goes on that long; None: as many as there are samples, which is one
    at most. `guesses`: tokens that a drafter guesses for every request when the step is done. `padding`: rows of
    requests that are done, computed with the others as decodes that nobody attends to (see `BatchShape.padding`).
    """

    serial: int
    requests: Sequence[Request]
    ids: IntArray
    new_tokens: IntArray
    context_tokens: IntArray
    samples: IntArray
    admitted: Sequence[tuple[Request, int]] = ()
    preempted: Sequence[Request] = ()
    kv_loads: tuple[KVTransfer, ...] = ()
    kv_evictions: tuple[KVTransfer, ...] = ()
    steps: int = 1
    brings: IntArray | None = None
    guesses: int = 0
    padding: int = 0
    fetches: tuple[KVTransfer, ...] = ()
    _prompt_work: tuple[int, int] | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(
        cls,
        serial: int,
        requests: Sequence[Request],
        new_tokens: Sequence[int],
        context_tokens: Sequence[int],
        samples: Sequence[int],
        admitted: Sequence[tuple[Request, int]] = (),
        preempted: Sequence[Request] = (),
        kv_loads: tuple[KVTransfer, ...] = (),
        kv_evictions: tuple[KVTransfer, ...] = (),
    ) -> Batch:
        """Return the batch of one iteration, from plain rows."""
        return cls(
            serial,
            requests,
            _column([request.id for request in requests]),
            _column(new_tokens),
            _column(context_tokens),
            _column(samples),
            admitted,
            preempted,
            kv_loads,
            kv_evictions,
        )

    def tokens(self) -> IntArray:
        """Return how many tokens come out of a step for each request, ``[n]``."""
        return self.samples if self.brings is None else self.brings

    def prompt_work(self) -> tuple[int, int]:
        """Return how many of the requests compute prompt tokens, and how many tokens: worked out when first asked.

        Of like iterations it is the first that does: one token may be the last of a prompt, those after it are decodes.
        """
        if self._prompt_work is None:
            columns = self.requests, self.new_tokens.tolist(), self.context_tokens.tolist()
            left = [
                min(new, request.prompt_tokens - context)
                for request, new, context in zip(*columns, strict=True)
                if context < request.prompt_tokens
            ]
            work = [tokens for tokens in left if tokens > 0]
            self._prompt_work = len(work), sum(work)
        return self._prompt_work

    def again(self, context_tokens: IntArray, steps: int = 1) -> Batch:
        """Return decodes like these with so much context: nobody enters or is preempted, nothing is moved."""
        same = self.requests, self.ids, self.new_tokens
        return Batch(self.serial, *same, context_tokens, self.samples, steps=steps, padding=self.padding)

    def unmoved(self) -> Batch:
        """Return the same batch without what it evicts and loads."""
        return replace(self, kv_loads=(), kv_evictions=())

    def shape(self) -> BatchShape:
        """Return the token counts for the trace generator."""
        return BatchShape(
            request_ids=self.ids,
            new_tokens=self.new_tokens,
            context_tokens=self.context_tokens,
            samples=self.samples,
            kv_loads=self.kv_loads,
            kv_evictions=self.kv_evictions,
            steps=self.steps,
            padding=self.padding,
        )


@dataclass(slots=True)
class Outcome:
    """What `Scheduler.update` reports of a finished batch: who got tokens, and who is done.

    `tokens[i]` tokens came out for `emitted[i]` (at each step, where the batch stands for several), at least one; None:
    one for each. `handed_over`: whose prompt is computed, and who goes on at another engine with the whole answer.
    """

    emitted: Sequence[Request] = ()
    finished: Sequence[Request] = ()
    tokens: Sequence[int] | None = None
    handed_over: Sequence[Request] = ()

    @property
    def step_tokens(self) -> int:
        """How many tokens came out at each step, of all requests."""
        return len(self.emitted) if self.tokens is None else sum(self.tokens)

    def each(self) -> Iterator[tuple[Request, int]]:
        """Return who got how many tokens at each step."""
        return zip(self.emitted, repeat(1, len(self.emitted)) if self.tokens is None else self.tokens, strict=True)

    def handing_over(self) -> Outcome:
        """Return what is to be told of an engine that only computes prompts: nothing came out, who is done goes on.

        The token that it sampled is thrown away: the other engine samples the first of the answer anew.
        """
        return Outcome(handed_over=self.finished)

    def without(self, muted: Set[Request]) -> Outcome:
        """Return what is to be told: all but what concerns `muted`."""
        told = [request not in muted for request in self.emitted]
        return Outcome(
            [request for request, tell in zip(self.emitted, told, strict=True) if tell],
            [request for request in self.finished if request not in muted],
            None if self.tokens is None else [n for n, tell in zip(self.tokens, told, strict=True) if tell],
        )


def _column(values: Sequence[int]) -> IntArray:
    return np.array(values, dtype=np.int64)
