"""The cost of decodes that have not been decided yet, kept until they are.

A batch of decodes is mostly followed, a step or a turn later, by the same one with a token more a request, and pricing
many steps at once costs little more than pricing one. So more steps are priced than are asked for, and a batch that
turns out to be one of them costs nothing. Results do not depend on it: a step's cost depends on nothing but the step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.engine.batch import Batch
from orchestrator.pricing.interface import Pricing

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The cost of like steps of one batch: ``[steps, stages]`` what each stage takes, ``[steps, classes]`` by class."""

    stage_ns: IntArray
    busy_ns: IntArray

    def __len__(self) -> int:
        return len(self.stage_ns)

    def after(self, steps: int) -> Steps:
        """Return the cost of those after the first `steps`."""
        return Steps(self.stage_ns[steps:], self.busy_ns[steps:]) if steps else self


@dataclass(slots=True, eq=False)
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

    Where batches take turns, what comes to the engine changes one of them and leaves the others as they are. So twice
    as many steps are priced as batches have lately lasted, and twice as many again of one that goes on beyond.
    """

    def __init__(self, pricing: Pricing, keep: int) -> None:
        self.pricing = pricing
        self._keep = keep
        self._lasting = 1
        self._known: OrderedDict[tuple[bytes | int, ...], _Priced] = OrderedDict()

    def price(self, batch: Batch, steps: int, worth: Callable[[], tuple[int, int]]) -> Steps:
        """Return the cost of `steps` steps of `batch`, or of more.

        Should they not be known, `worth` says how many are worth pricing in any case, and up to how many if it may well
        last so long.
        """
        if batch.kv_loads or batch.kv_evictions:
            return self._price(batch, steps)
        key = (batch.ids.tobytes(), batch.new_tokens.tobytes(), batch.samples.tobytes(), batch.padding)
        known = self._known.get(key)
        ahead, before = 2 * self._lasting, 0
        if known is not None:
            first = int(batch.context_tokens[0] - known.context[0])
            if first >= 0 and bool((batch.context_tokens - known.context == first).all()):
                if first + steps <= len(known.steps):
                    known.used = max(known.used, first + steps)
                    self._known.move_to_end(key)
                    return known.steps.after(first)
                before = known.before + first
                ahead = max(ahead, 2 * before)
        least, most = worth()
        if steps == 1 == most:
            return self._price(batch, 1)
        priced = self._price(batch, max(steps, least, min(ahead, most)))
        self._known[key] = _Priced(batch.context_tokens, priced, before, steps)
        self._known.move_to_end(key)
        if len(self._known) > self._keep:
            _, gone = self._known.popitem(last=False)
            self._lasting = (3 * self._lasting + gone.before + gone.used) // 4
        return priced

    def _price(self, batch: Batch, steps: int) -> Steps:
        cost = self.pricing.price([batch if steps == 1 else batch.again(batch.context_tokens, steps)])
        finish_ns = cost.finish_ns[0]
        stage_ns = finish_ns.copy()
        stage_ns[:, 1:] -= finish_ns[:, :-1]
        return Steps(stage_ns, cost.busy_ns[0])
