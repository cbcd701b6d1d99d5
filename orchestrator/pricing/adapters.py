"""Pricing of batches in which requests are served with LoRA adapters: the batch, and what the adapters add to stages.

The adapters' kernels run between those of the layers, on the same device and one at a time; so a stage takes as much
longer as they take. They communicate nothing, and traces do not show them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.engine.batch import Batch
from orchestrator.pricing.interface import Cost, Pricing
from trace_gen.adapters import AdapterWork

IntArray = NDArray[np.int64]
ADAPTERS = "adapters"


class AdapterPricing:
    """Adds the `work` of adapters to what `target` says."""

    def __init__(self, target: Pricing, work: AdapterWork) -> None:
        self.stages = target.stages
        self.max_steps = target.max_steps
        self.classes = (*target.classes, ADAPTERS)
        self._target = target
        self._work = work

    def price(self, wave: Sequence[Batch]) -> Cost:
        """See `orchestrator.pricing.interface.Pricing.price`."""
        cost = self._target.price(wave)
        added = np.array([self._stage_ns(batch) for batch in wave])
        finish_ns = cost.finish_ns + added.cumsum(axis=1)[:, None, :]
        spent = np.broadcast_to(added.sum(axis=1)[:, None, None], (*cost.busy_ns.shape[:2], 1))
        return Cost(finish_ns, np.concatenate((cost.busy_ns, spent), axis=2))

    def _stage_ns(self, batch: Batch) -> IntArray:
        adapted = [request.adapter is not None for request in batch.requests]
        adapters = {request.adapter for request in batch.requests} - {None}
        return self._work.stage_ns(int(batch.new_tokens[adapted].sum()), len(adapters))
