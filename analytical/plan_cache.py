"""Keeps what a graph's structure decides, for graphs that bring the same structure with other durations and sizes.

A structure is known by the identity of its arrays, which are therefore not to be changed in place, and failing that by
their content.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np

from converters.execution_graph import ExecutionGraph

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
Identity = tuple[object, ...]


class StructureCache(Generic[Entry]):
    """`make`'s answers by structure, the latest `capacity` of them."""

    def __init__(self, make: Callable[[ExecutionGraph], Entry], capacity: int = 256) -> None:
        self._make = make
        self._capacity = capacity
        self._by_identity: OrderedDict[Identity, tuple[Entry, list[object]]] = OrderedDict()
        self._by_content: OrderedDict[bytes, Entry] = OrderedDict()

    def get(self, graph: ExecutionGraph) -> Entry:
        """Return the entry of `graph`'s structure."""
        identity = _identity(graph)
        known = self._by_identity.get(identity)
        if known is not None:
            self._by_identity.move_to_end(identity)
            return known[0]
        digest = _digest(graph)
        entry = self._by_content.get(digest)
        if entry is None:
            entry = self._make(graph)
            self._by_content[digest] = entry
            if len(self._by_content) > self._capacity:
                self._by_content.popitem(last=False)
        # The arrays are kept with the entry, so that no other array can take over their identity.
        self._by_identity[identity] = entry, [getattr(one, name) for one in graph.rank_graphs for name in STRUCTURE]
        if len(self._by_identity) > self._capacity:
            self._by_identity.popitem(last=False)
        return entry


def _identity(graph: ExecutionGraph) -> Identity:
    parts: list[object] = [tuple(graph.groups.items())]
    for one in graph.rank_graphs:
        parts.append(one.ranks)
        parts += [id(getattr(one, name)) for name in STRUCTURE]
    return tuple(parts)


def _digest(graph: ExecutionGraph) -> bytes:
    digest = blake2b(repr(sorted(graph.groups.items())).encode(), digest_size=16)
    for one in graph.rank_graphs:
        digest.update(f"{one.ranks} {one.nodes} {one.dep_index.size} ".encode())
        for name in STRUCTURE:
            digest.update(np.ascontiguousarray(getattr(one, name)).data)
    return digest.digest()
