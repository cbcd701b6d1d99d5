"""The cost of decodes that have not been decided yet, kept until they are: of a batch, or of the batches of a wave.

A batch of decodes is mostly followed, a step or a turn later, by the same one with a token more a request, and pricing
many steps at once costs little more than pricing one. So more steps are priced than are asked for, and a batch that
turns out to be one of them costs nothing. Results do not depend on it: a step's cost depends on nothing but the step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.engine.batch import Batch
from orchestrator.pricing.interface import Pricing
from trace_gen.trace import NO_REQUEST

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
    """Steps of batches that have `contexts`, ``[n]`` tokens a request each, before the first of them.

    `before` steps of them had come until then; `used` of these have.
    """

    contexts: Sequence[IntArray]
    steps: Sequence[Steps]
    before: int
    used: int

    def how_far(self, wave: Sequence[Batch]) -> int:
        """Return after how many steps the batches are those of `wave`, -1 if they never are. Dummies do not grow."""
        known = np.concatenate(self.contexts)
        grown = np.concatenate([batch.context_tokens for batch in wave]) - known
        grows = np.concatenate([batch.ids for batch in wave]) != NO_REQUEST
        first = int(grown[grows][0]) if grows.any() else 0
        return first if first >= 0 and bool((grown == first * grows).all()) else -1


class PricedAhead:
    """Prices waves by `pricing`, one batch being the plain case, and keeps the steps ahead of the last `keep` of them.

    Where batches take turns, what comes to the engine changes one of them and leaves the others as they are. So twice
    as many steps are priced as waves have lately lasted, and twice as many again of one that goes on beyond.
    """

    def __init__(self, pricing: Pricing, keep: int) -> None:
        self.pricing = pricing
        self._keep = keep
        self._lasting = 1
        self._known: OrderedDict[tuple[bytes | int, ...], _Priced] = OrderedDict()

    def price(self, wave: Sequence[Batch], steps: int, worth: Callable[[], tuple[int, int]]) -> Sequence[Steps]:
        """Return the cost of `steps` steps of each batch of `wave`, or of more.

        Should they not be known, `worth` says how many are worth pricing in any case, and up to how many if it may well
        last so long.
        """
        if any(batch.kv_loads or batch.kv_evictions for batch in wave):
            return self._price(wave, steps)
        key = tuple(part for batch in wave for part in _key(batch))
        known = self._known.get(key)
        ahead, before = 2 * self._lasting, 0
        if known is not None and (first := known.how_far(wave)) >= 0:
            if first + steps <= len(known.steps[0]):
                known.used = max(known.used, first + steps)
                self._known.move_to_end(key)
                return [one.after(first) for one in known.steps]
            before = known.before + first
            ahead = max(ahead, 2 * before)
        least, most = worth()
        if steps == 1 == most:
            return self._price(wave, 1)
        priced = self._price(wave, max(steps, least, min(ahead, most)))
        self._known[key] = _Priced([batch.context_tokens for batch in wave], priced, before, steps)
        self._known.move_to_end(key)
        if len(self._known) > self._keep:
            _, gone = self._known.popitem(last=False)
            self._lasting = (3 * self._lasting + gone.before + gone.used) // 4
        return priced

    def _price(self, wave: Sequence[Batch], steps: int) -> Sequence[Steps]:
        cost = self.pricing.price(wave if steps == 1 else [batch.again(batch.context_tokens, steps) for batch in wave])
        stage_ns = cost.finish_ns.copy()
        stage_ns[:, :, 1:] -= cost.finish_ns[:, :, :-1]
        return [Steps(*of_member) for of_member in zip(stage_ns, cost.busy_ns, strict=True)]


def _key(batch: Batch) -> tuple[bytes | int, ...]:
    return batch.ids.tobytes(), batch.new_tokens.tobytes(), batch.samples.tobytes(), batch.padding
