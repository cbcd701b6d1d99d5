"""What a radix tree will have lost when steps that are foreseen have taken their pages: nothing is changed by asking.

Each step makes room as `orchestrator.kv_memory.radix_cohort.make_room` does, so leaves go in the same order.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count

from orchestrator.kv_memory.radix import RadixKV
from orchestrator.kv_memory.radix_tree import Node


def lost(store: RadixKV, steps: Iterable[tuple[int, int]]) -> set[Node]:
    """Return the nodes that are evicted for `steps`, each of so many pages for so many requests that decode."""
    leaving = _Leaving(store)
    size = store.block_size
    for pages, requests in steps:
        leaving.make_available(pages * size)
        if size > 1:
            leaving.make_available(requests * size)
        leaving.available -= pages * size
    return leaving.gone


class _Leaving:
    """Leaves in the order in which they go, of a tree that stays as it is."""

    def __init__(self, store: RadixKV) -> None:
        self.available = store.available
        self.gone: set[Node] = set()
        self._tree = store.tree
        self._leaves: list[tuple[int, int, Node]] | None = None
        self._pushes = count(2**62)  # after all notes of the tree itself

    def make_available(self, tokens: int) -> None:
        """See `RadixKV.make_available`."""
        if self.available < tokens:
            self.available += self._evict(tokens)

    def _evict(self, tokens: int) -> int:
        if self._leaves is None:
            self._leaves = self._tree.leaves()
        left = 0
        while left < tokens and self._leaves:
            used, _, node = heapq.heappop(self._leaves)
            if not self._is_leaf(node):
                continue
            if used < node.used:
                self._offer(node)
                continue
            left += len(node.key)
            self.gone.add(node)
            if node.parent is not None:
                self._offer(node.parent)
        return left

    def _offer(self, node: Node) -> None:
        if self._is_leaf(node) and self._leaves is not None:
            heapq.heappush(self._leaves, (node.used, next(self._pushes), node))

    def _is_leaf(self, node: Node) -> bool:
        if node in self.gone or node.locks or node.parent is None:
            return False
        return all(child in self.gone for child in node.children.values())
