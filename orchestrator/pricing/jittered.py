"""Pricing of steps that take longer or shorter at random, as those of a real engine do.

The draw of a step is a function of the seed and of what the step computes for whom: the requests, their new tokens and
what they have in the KV cache. A request passes each length once, so steps differ; and the same step has the same draw
whether it is priced alone, as one of many like ones, or ahead of its time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.draws import normal
from orchestrator.engine.batch import Batch
from orchestrator.pricing.interface import Cost, Pricing
from trace_gen.trace import NO_REQUEST

IntArray = NDArray[np.int64]
LEAST = 0.01
"""A step takes at least this share of its time, whatever is drawn."""


class JitteredPricing:
    """Stretches what `target` says by 1 + `share` times a normal draw; all stages and classes of a step alike."""

    def __init__(self, target: Pricing, share: float, seed: int) -> None:
        self.stages = target.stages
        self.max_steps = target.max_steps
        self.classes = target.classes
        self._target = target
        self._share = share
        self._seed = seed

    def price(self, wave: Sequence[Batch]) -> Cost:
        """See `orchestrator.pricing.interface.Pricing.price`. The members of a wave share its draws."""
        cost = self._target.price(wave)
        factors = self._factors(wave)[None, :, None]
        finish_ns = np.rint(cost.finish_ns * factors).astype(np.int64)
        busy_ns = np.rint(cost.busy_ns * factors).astype(np.int64)
        longer = finish_ns[:, :, -1] - cost.finish_ns[:, :, -1]
        rounded = cost.busy_ns.sum(axis=2) + longer - busy_ns.sum(axis=2)
        np.put_along_axis(
            busy_ns,
            (largest := cost.busy_ns.argmax(axis=2)[:, :, None]),
            np.maximum(np.take_along_axis(busy_ns, largest, axis=2) + rounded[:, :, None], 0),
            axis=2,
        )
        return Cost(finish_ns, busy_ns)

    def _factors(self, wave: Sequence[Batch]) -> NDArray[np.float64]:
        """Return by how much each step is stretched, ``[k]``."""
        ids = np.concatenate([batch.ids for batch in wave])
        growing = int(np.count_nonzero(ids != NO_REQUEST))
        whose = [int(ids.sum()), len(ids), sum(int(batch.new_tokens.sum()) for batch in wave)]
        held = sum(int(batch.context_tokens.sum()) for batch in wave)
        drawn = [normal(self._seed, "step", *whose, held + growing * step) for step in range(wave[0].steps)]
        return np.maximum(1 + self._share * np.array(drawn), LEAST)
