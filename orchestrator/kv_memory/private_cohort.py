"""Requests that decode together in numbered blocks, where nobody looks for what they write.

All that others could find of them is registered already, and nothing leaves a window. So it does not matter during the
steps which of the blocks that a step takes is whose: they are handed out when the cohort is over, each step's in the
order of the requests that it took them for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.kv_memory.counted_cohort import BlockFlow

if TYPE_CHECKING:
    from orchestrator.kv_memory.holder import Holder
    from orchestrator.kv_memory.prefix import PrefixKV

IntArray = NDArray[np.int64]


class PrivateCohort:
    """See the module's docstring."""

    def __init__(self, store: PrefixKV, holders: Sequence[Holder]) -> None:
        self._store = store
        self._holders = holders
        self._flow = BlockFlow(store, holders)
        self._steps = 0
        self._arrived = 0
        self._taken: list[int] = []

    def flow(self, most: int) -> tuple[IntArray, IntArray]:
        """See `KVCohort.flow`."""
        return self._flow.between(self._steps, self._steps + most)

    def step(self, arrived: int) -> bool:
        """See `KVCohort.step`."""
        takes = self._flow.takes(self._steps)
        if takes > self._store.free:
            return False
        if takes:
            self._taken += self._store.pool.take(takes)
        self._steps += 1
        self._arrived = arrived
        return True

    def coming(self, arrived: int) -> Collection[object]:
        """Return nothing: there is nothing that others look for."""
        return ()

    def settle(self) -> None:
        """See `KVCohort.settle`."""
        if not self._steps:
            return
        size, blocks = self._store.block_size, iter(self._taken)
        for _, place in self._takings():
            holder = self._holders[place]
            holder.room += size
            for table in holder.tables:
                table.append(next(blocks))
        for holder in self._holders:
            holder.registered = max(holder.registered, (holder.tokens + self._arrived) // size)

    def _takings(self) -> list[tuple[int, int]]:
        """Return at which step who took a block of each group of layers, in that order."""
        steps, size = self._steps, self._store.block_size
        due = [(step, place) for place, step in enumerate(self._flow.rooms) if step < steps]
        if steps > size:
            due = [(again, place) for step, place in due for again in range(step, steps, size)]
        return sorted(due)
