"""The cost of decodes that have not been decided yet, kept until they are.

A batch of decodes is mostly followed, a step or a turn later, by the same one with a token more a request, and pricing
many steps at once costs little more than pricing one. So more steps are priced than are asked for, and a batch that
turns out to be one of them costs nothing. Results do not depend on it: a step's cost depends on nothing but the step.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.engine.batch import Batch
from orchestrator.pricing.interface import Pricing

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Steps:
    """The cost of like steps of one batch: ``[steps, stages]`` and ``[steps, classes]``, see `Cost`."""

    finish_ns: IntArray
    busy_ns: IntArray


@dataclass(slots=True)
class _Priced:
    """Steps of a batch that has `context` ``[n]`` tokens a request before the first of them.

    `before` steps of it had come until then; `used` of these have.
    """

    context: IntArray
    steps: Steps
    before: int
    used: int


class PricedAhead:
    """Prices single batches by `pricing`, keeping the steps ahead of the last `keep` different batches.

    Where batches take turns, what comes to the engine changes one of them and leaves the others as they are. So as many
    steps are priced as batches have lately lasted, and twice as many again of one that goes on beyond.
    """

    def __init__(self, pricing: Pricing, keep: int) -> None:
        self.pricing = pricing
        self._keep = keep
        self._lasting = 1
        self._known: OrderedDict[bytes, _Priced] = OrderedDict()

    def price(self, batch: Batch, steps: int, worth: int, most: int) -> Steps:
        """Return the cost of `steps` steps of `batch`, or of more.

        Should they not be known, `worth` are worth pricing in any case, and up to `most` if it may well last so long.
        """
        if steps == 1 == most:
            return self._price(batch, 1)
        key = batch.ids.tobytes()
        known = self._known.get(key)
        ahead, before = 2 * self._lasting, 0
        if known is not None:
            first = int(batch.context_tokens[0] - known.context[0])
            if first >= 0 and bool((batch.context_tokens - known.context == first).all()):
                if first + steps <= len(known.steps.finish_ns):
                    known.used = max(known.used, first + steps)
                    self._known.move_to_end(key)
                    return Steps(known.steps.finish_ns[first:], known.steps.busy_ns[first:])
                before = known.before + first
                ahead = max(ahead, 2 * before)
        priced = self._price(batch, max(steps, worth, min(ahead, most)))
        self._known[key] = _Priced(batch.context_tokens, priced, before, steps)
        self._known.move_to_end(key)
        if len(self._known) > self._keep:
            _, gone = self._known.popitem(last=False)
            self._lasting = (3 * self._lasting + gone.before + gone.used) // 4
        return priced

    def _price(self, batch: Batch, steps: int) -> Steps:
        cost = self.pricing.price([replace(batch, steps=steps)])
        return Steps(cost.finish_ns[0], cost.busy_ns[0])
