"""Graphs without their METADATA nodes: what traces of frameworks record beside the work (process groups, for instance).

A METADATA node takes no time; whoever waits for one waits for what it waited for.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from converters.execution_graph import ExecutionGraph, IntArray, NodeType, RankGraph
from foundation.errors import UserError


def without_metadata(graph: ExecutionGraph) -> ExecutionGraph:
    """Return `graph` without METADATA nodes, or `graph` itself where it has none. A cycle of them is a `UserError`."""
    if not any((one.node_type == NodeType.METADATA).any() for one in graph.rank_graphs):
        return graph
    return ExecutionGraph([_strip(one) for one in graph.rank_graphs], graph.groups)


def _strip(graph: RankGraph) -> RankGraph:
    kept = graph.node_type != NodeType.METADATA
    place = np.cumsum(kept) - 1
    passed_on = _PassedOn(graph)
    parents: list[IntArray] = []
    for row in np.flatnonzero(kept).tolist():
        awaited = dict.fromkeys(real for parent in graph.dependencies(row).tolist() for real in passed_on.of(parent))
        parents.append(place[np.array(list(awaited), dtype=np.int64)])
    columns = {field.name: getattr(graph, field.name) for field in fields(graph)}
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and name not in ("dep_offsets", "dep_index"):
            columns[name] = column[..., kept]
    columns["work"] = graph.work.of_nodes(kept)
    columns["annotations"] = {name: column[..., kept] for name, column in graph.annotations.items()}
    columns["dep_offsets"] = np.cumsum([0, *map(len, parents)], dtype=np.int64)
    columns["dep_index"] = np.concatenate([np.zeros(0, dtype=np.int64), *parents])
    return RankGraph(**columns)


class _PassedOn:
    """For each METADATA node, the nodes that do take time and that it waits for, through other METADATA nodes too."""

    def __init__(self, graph: RankGraph) -> None:
        self._graph = graph
        self._metadata = graph.node_type == NodeType.METADATA
        self._known: dict[int, tuple[int, ...]] = {}

    def of(self, row: int) -> tuple[int, ...]:
        """Return what waiting for `row` means; a stack instead of recursion, because chains may be long."""
        stack, open_rows = [row], set[int]()
        while stack:
            at = stack[-1]
            if at in self._known:
                stack.pop()
                continue
            unknown = [parent for parent in self._parents(at) if parent not in self._known]
            if not unknown:
                found = [real for parent in self._parents(at) for real in self._known[parent]]
                self._known[at] = tuple(dict.fromkeys(found)) if self._metadata[at] else (at,)
                continue
            if at in open_rows:
                rank, node = self._graph.ranks[0], self._graph.node_id[at]
                raise UserError(f"rank {rank}, node {node}: METADATA nodes wait for each other", fix="break the cycle")
            open_rows.add(at)
            stack.extend(unknown)
        return self._known[row]

    def _parents(self, row: int) -> list[int]:
        """Return the rows to resolve before `row`: a METADATA node's parents, none for others."""
        return self._graph.dependencies(row).tolist() if self._metadata[row] else []
