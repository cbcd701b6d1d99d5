"""Keeps what a graph's structure decides, for graphs that bring the same structure with other durations and sizes.

A structure is known by the identity of its arrays, which are therefore not to be changed in place, and of its tuples of
ranks, and failing that by their content.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np

from converters.execution_graph import ExecutionGraph
from foundation.recent import Recent, RecentByIdentity

STRUCTURE = (
    "node_id",
    "node_type",
    "is_cpu_op",
    "comm_type",
    "comm_tag",
    "comm_src_delta",
    "comm_dst_delta",
    "comm_group",
    "involved_dims",
    "dep_offsets",
    "dep_index",
)
"""The columns that decide the order of evaluation."""

Entry = TypeVar("Entry")


class StructureCache(Generic[Entry]):
    """`make`'s answers by structure, the latest `capacity` of them."""

    def __init__(self, make: Callable[[ExecutionGraph], Entry], capacity: int = 256) -> None:
        self._make = make
        self._by_identity: RecentByIdentity[Entry] = RecentByIdentity(capacity)
        self._by_content: Recent[Entry] = Recent(capacity)

    def get(self, graph: ExecutionGraph) -> Entry:
        """Return the entry of `graph`'s structure."""
        parts: list[object] = [getattr(one, name) for one in graph.rank_graphs for name in STRUCTURE]
        parts += [one.ranks for one in graph.rank_graphs]  # of very many ranks the values take longer than all the rest
        parts += graph.groups.values()
        return self._by_identity.get(parts, lambda: self._of_content(graph), key=tuple(graph.groups))

    def _of_content(self, graph: ExecutionGraph) -> Entry:
        return self._by_content.get(_digest(graph), lambda: self._make(graph))


def _digest(graph: ExecutionGraph) -> bytes:
    digest = blake2b(repr(sorted(graph.groups.items())).encode(), digest_size=16)
    for one in graph.rank_graphs:
        digest.update(f"{one.ranks} {one.nodes} {one.dep_index.size} ".encode())
        for name in STRUCTURE:
            digest.update(np.ascontiguousarray(getattr(one, name)).data)
    return digest.digest()
