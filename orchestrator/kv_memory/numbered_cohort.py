"""Requests that decode together in memory whose blocks have numbers: who needs what at which step.

Which block a request gets, and which of two equal ones is found first, depends on the order, so a step goes through the
requests to which something happens, in their order: a block left a window, one is taken, one became full. A calendar
knows when; each event comes round every `block_size` steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InternalError
from orchestrator.kv_memory.counted_cohort import BlockFlow, next_drop

if TYPE_CHECKING:
    from orchestrator.kv_memory.holder import Holder
    from orchestrator.kv_memory.prefix import PrefixKV

IntArray = NDArray[np.int64]
Calendar = defaultdict[int, list[int]]


class NumberedCohort:
    """See the module's docstring. Steps are counted from 0, and so are the tokens that have arrived since."""

    def __init__(self, store: PrefixKV, holders: Sequence[Holder]) -> None:
        self._store = store
        self._holders = holders
        self._flow = BlockFlow(store, holders)
        self._steps = 0
        self._moves: Calendar = defaultdict(list)
        self._fills: Calendar = defaultdict(list)
        self._registered_to = 0
        size = store.block_size
        for place, holder in enumerate(holders):
            self._moves[holder.room - holder.computed].append(place)
            if holder.registered < holder.known_blocks:
                self._fills[max(0, (holder.registered + 1) * size - holder.tokens)].append(place)
            if store.windowed:
                self._moves[0].append(place)
                for group in store.windowed:
                    self._moves[next_drop(holder.computed, group, size)].append(place)

    def flow(self, most: int) -> tuple[IntArray, IntArray]:
        """See `KVCohort.flow`."""
        return self._flow.between(self._steps, self._steps + most)

    def step(self, arrived: int) -> bool:
        """See `KVCohort.step`. Who comes first may have given a block back that the next takes; that is left out."""
        if self._flow.takes(self._steps) > self._store.free:
            return False
        size, step = self._store.block_size, self._steps
        for place in sorted(set(self._moves.pop(step, ()))):
            self._move(place, step)
        self._steps = step + 1
        for known in range(self._registered_to, arrived + 1):
            for place in sorted(self._fills.pop(known, ())):
                holder = self._holders[place]
                self._store.register(holder, holder.tokens + known)
                if holder.registered < holder.known_blocks:
                    self._fills[known + size].append(place)
        self._registered_to = arrived + 1
        return True

    def coming(self, arrived: int) -> Collection[object]:
        """See `KVCohort.coming`. Where layers have windows nobody in a cohort holds what others look for."""
        size = self._store.block_size
        return {
            content
            for holder in self._holders
            if holder.registered < holder.known_blocks
            for content in self._store.contents(
                holder, range(holder.registered, min((holder.tokens + arrived) // size, holder.known_blocks))
            )
        }

    def settle(self) -> None:
        """See `KVCohort.settle`. Blocks that nobody else looks for became full unnoticed."""
        for holder in self._holders if self._steps else ():
            self._store.register(holder, holder.tokens + self._registered_to - 1)

    def _move(self, place: int, step: int) -> None:
        """Give back and take what `step` does for one request, and note when it comes round."""
        holder, size = self._holders[place], self._store.block_size
        holder.computed += step
        if self._store.windowed and step:  # what is dropped may be looked for: it must be known how much is full
            self._store.register(holder, holder.tokens + self._registered_to - 1)
        again = self._store.outside(holder) != holder.dropped or holder.computed == holder.room
        if not self._store.grow(holder, holder.computed + 1):
            raise InternalError("a step that was checked lacks KV blocks")
        holder.computed -= step
        if again:
            self._moves[step + size].append(place)
