"""A graph without its METADATA nodes: who is left, and for whom they wait."""

from __future__ import annotations

import numpy as np

from converters.execution_graph import ExecutionGraph, NodeType, RankGraph
from converters.lowering import lower
from converters.metadata import without_metadata
from tests.converters.traces import Row, make_trace


def with_metadata(graph: RankGraph, rows: list[int]) -> ExecutionGraph:
    """Call the nodes at `rows` METADATA."""
    graph.node_type[rows] = NodeType.METADATA
    return ExecutionGraph([graph])


def waits(graph: RankGraph) -> dict[int, list[int]]:
    """Who waits for whom, by id."""
    return {int(graph.node_id[row]): graph.node_id[graph.dependencies(row)].tolist() for row in range(graph.nodes)}


def test_who_waited_for_metadata_waits_for_what_it_waited_for() -> None:
    """a; b and c wait for a; d for b and c; e for d. Without c and d, e waits for b and, through c, for a."""
    rows = [Row("a"), Row("b", deps=(0,)), Row("c", deps=(0,)), Row("d", deps=(1, 2)), Row("e", deps=(3,))]
    (full,) = lower(make_trace(rows)).rank_graphs
    a, b, _, _, e = full.node_id.tolist()
    (left,) = without_metadata(with_metadata(full, [2, 3])).rank_graphs
    assert waits(left) == {a: [], b: [a], e: [b, a]}
    assert [left.names[index] for index in left.name] == ["a", "b", "e"]
    assert left.dep_offsets.tolist() == [0, 0, 1, 3] and left.dep_index.size == 3


def test_a_graph_without_metadata_is_left_alone() -> None:
    graph = lower(make_trace([Row("a"), Row("b")]))
    assert without_metadata(graph) is graph
    nothing = with_metadata(lower(make_trace([Row("a"), Row("b")])).rank_graphs[0], [0, 1])
    (left,) = without_metadata(nothing).rank_graphs
    assert left.nodes == 0 and np.array_equal(left.dep_offsets, [0])
