"""Pricing of steps after which a drafter guesses tokens: the step, and the drafter's passes after it.

The drafter is a model on the same ranks, so its passes are batches like any others. The first computes the tokens of
the step anew (an own model one token more a request: the one that the step brought), each of the others one token a
request, which is the guess of the pass before; all sample one token a request.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.engine.batch import Batch
from orchestrator.pricing.interface import Cost, Pricing
from orchestrator.schedulers.speculation import Speculation

IntArray = NDArray[np.int64]
DRAFTING = "drafting"


class SpeculativePricing:
    """The passes of `drafter` run on the last stage of `target`, one after another. Steps are never alike."""

    max_steps = 1

    def __init__(self, target: Pricing, drafter: Pricing, speculation: Speculation) -> None:
        self.stages = target.stages
        self.classes = (*target.classes, DRAFTING)
        self._target = target
        self._drafter = drafter
        self._slots = speculation.slots

    def price(self, wave: Sequence[Batch]) -> Cost:
        """See `orchestrator.pricing.interface.Pricing.price`."""
        cost = self._target.price(wave)
        drafting = np.array([self._passes_ns(batch) for batch in wave], dtype=np.int64)
        finish_ns = cost.finish_ns.copy()
        finish_ns[:, :, -1] += drafting[:, None]
        return Cost(finish_ns, np.concatenate((cost.busy_ns, drafting[:, None, None]), axis=2))

    def _passes_ns(self, batch: Batch) -> int:
        """Return the time of all passes after a step."""
        if not batch.guesses:
            return 0
        one = np.ones_like(batch.new_tokens)
        total = self._pass_ns(batch, batch.new_tokens + self._slots, batch.context_tokens, 1, one)
        kept = np.where(batch.samples > 0, batch.tokens(), batch.new_tokens)
        context, left = batch.context_tokens + kept + self._slots, batch.guesses - 1
        while left:
            steps = min(left, self._drafter.max_steps)
            total += self._pass_ns(batch, one, context, steps, one)
            context, left = context + steps, left - steps
        return total

    def _pass_ns(self, batch: Batch, new: IntArray, context: IntArray, steps: int, samples: IntArray) -> int:
        """Return the time of `steps` passes that differ by one token a request."""
        passes = Batch(batch.serial, batch.requests, batch.ids, new, context, samples, steps=steps)
        return int(self._drafter.price([passes]).finish_ns[0, :, -1].sum())
