"""Requests that decode together in memory whose blocks are counted, not numbered: every step in closed form.

Step s (from 0) computes the token after `computed` + s. It takes a block of a request whose room is used up, and every
`block_size` steps from then on; it gives one back where a block left a window, likewise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.kv_memory.periodic import PeriodicEvents

if TYPE_CHECKING:
    from orchestrator.kv_memory.blocks import KVBlocks
    from orchestrator.kv_memory.groups import LayerGroup
    from orchestrator.kv_memory.holder import Holder
    from orchestrator.kv_memory.paged import PagedKV

IntArray = NDArray[np.int64]


class BlockFlow:
    """How many blocks of `holders` each step takes and gives back, in numbers, all groups of layers together.

    `rooms`: at which step each of them first takes a block.
    """

    def __init__(self, store: KVBlocks, holders: Sequence[Holder]) -> None:
        size = store.block_size
        self._width = len(store.groups)
        self.rooms = [holder.room - holder.computed for holder in holders]
        self._takes = PeriodicEvents(self.rooms, size)
        self._drops = [
            PeriodicEvents([next_drop(holder.computed, group, size) for holder in holders], size)
            for group in store.windowed
        ]
        # What left the windows while prompts were computed is given back before the first step takes anything.
        self._late = sum(sum(store.outside(h)) - sum(h.dropped) for h in holders) if store.windowed else 0

    def takes(self, step: int) -> int:
        """Return how many blocks `step` takes."""
        return self._width * self._takes.at(step)

    def drops(self, step: int) -> int:
        """Return how many blocks `step` gives back."""
        if not self._drops:
            return 0
        return sum(events.at(step) for events in self._drops) + (0 if step else self._late)

    def between(self, begin: int, end: int) -> tuple[IntArray, IntArray]:
        """Return what each of the steps `begin` to `end` - 1 takes and gives back."""
        drops = np.zeros(end - begin, dtype=np.int64)
        for events in self._drops:
            drops += events.between(begin, end)
        if end > begin == 0:
            drops[0] += self._late
        return self._width * self._takes.between(begin, end), drops


class CountedCohort:
    """See the module's docstring."""

    def __init__(self, store: PagedKV, holders: Sequence[Holder]) -> None:
        self._store = store
        self._holders = holders
        self._flow = BlockFlow(store, holders)
        self._steps = 0

    def flow(self, most: int) -> tuple[IntArray, IntArray]:
        """See `KVCohort.flow`."""
        return self._flow.between(self._steps, self._steps + most)

    def step(self, arrived: int) -> bool:
        """See `KVCohort.step`. Who comes first is not known here: what a step gives back, it does not take again."""
        takes = self._flow.takes(self._steps)
        if takes > self._store.free:
            return False
        self._store.take(takes - self._flow.drops(self._steps))
        self._steps += 1
        return True

    def coming(self, arrived: int) -> Collection[object]:
        """Return nothing: there is nothing that others look for."""
        return ()

    def settle(self) -> None:
        """See `KVCohort.settle`."""
        if not self._steps:
            return
        size, windowed = self._store.block_size, self._store.windowed
        for holder in self._holders:
            computed = holder.computed + self._steps
            holder.room = max(holder.room, -(-computed // size) * size)
            holder.dropped = [group.dropped_blocks(computed - 1, size) for group in windowed]


def next_drop(computed: int, group: LayerGroup, size: int) -> int:
    """Return the first step, from step 1 on, that finds one more block outside the window than there is now."""
    assert group.window is not None
    return (group.dropped_blocks(computed, size) + 1) * size + group.window - 1 - computed
