"""Requests that decode together over a radix tree: which step takes how many pages, and what it evicts.

The tokens that a step computes enter the tree later, if at all: while requests decode, the tree only loses leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.kv_memory.periodic import PeriodicEvents

if TYPE_CHECKING:
    from orchestrator.kv_memory.holder import Holder
    from orchestrator.kv_memory.radix import RadixKV

IntArray = NDArray[np.int64]


class RadixCohort:
    """See the module's docstring; pages that are taken are counted in blocks of every group of layers."""

    def __init__(self, store: RadixKV, holders: Sequence[Holder]) -> None:
        self._store = store
        self._holders = holders
        self._takes = PeriodicEvents([holder.room - holder.computed for holder in holders], store.block_size)
        self._steps = 0

    def flow(self, most: int) -> tuple[IntArray, IntArray]:
        """See `KVCohort.flow`."""
        takes = len(self._store.groups) * self._takes.between(self._steps, self._steps + most)
        return takes, np.zeros(most, dtype=np.int64)

    def step(self, arrived: int) -> bool:
        """See `KVCohort.step`."""
        if not make_room(self._store, self._takes.at(self._steps), len(self._holders)):
            return False
        self._steps += 1
        return True

    def takes_at(self, further: int) -> tuple[int, int]:
        """Return the pages that the step after `further` more takes, and how many requests decode in it."""
        return self._takes.at(self._steps + further), len(self._holders)

    def coming(self, arrived: int) -> tuple[()]:
        """See `KVCohort.coming`: what decodes compute enters the tree when they are over."""
        return ()

    def settle(self) -> None:
        """See `KVCohort.settle`."""
        size = self._store.block_size
        for holder in self._holders:
            holder.room = max(holder.room, -(-(holder.computed + self._steps) // size) * size)


def make_room(store: RadixKV, pages: int, requests: int) -> bool:
    """Take `pages` for a step in which `requests` decode, or return False.

    Pages of several tokens are made available for every request, needed or not, after SGLang
    (`alloc_paged_token_slots_decode`).
    """
    size = store.block_size
    if not store.make_available(pages * size):
        return False
    if size > 1:
        store.make_available(requests * size)
    store.take(pages * size)
    return True
