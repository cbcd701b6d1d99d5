"""What is kept of a graph's structure: found by identity, by content, and not for another structure."""

from __future__ import annotations

import copy
from dataclasses import replace

import analytical_cases as cases
import numpy as np
from test_ways_agree import pipeline

from analytical.plan_cache import StructureCache
from converters.execution_graph import ExecutionGraph


def counted() -> tuple[StructureCache[int], list[ExecutionGraph]]:
    """A cache of numbers, and the graphs that it was made to look at."""
    made: list[ExecutionGraph] = []

    def make(graph: ExecutionGraph) -> int:
        made.append(graph)
        return len(made)

    return StructureCache(make, capacity=2), made


def test_same_arrays_and_equal_arrays_are_one_structure() -> None:
    cache, made = counted()
    graph = cases.graph(pipeline(0, steps=2))
    assert cache.get(graph) == 1
    for one in graph.rank_graphs:
        one.work = cases.longer(one.work, 1000)  # durations are no structure
    assert cache.get(graph) == 1
    assert cache.get(copy.deepcopy(graph)) == 1
    assert len(made) == 1


def test_another_dependency_or_group_is_another_structure() -> None:
    cache, _ = counted()
    graph = cases.graph(pipeline(0, steps=1))
    assert cache.get(graph) == 1
    other = copy.deepcopy(graph)
    other.rank_graphs[0].comm_tag = np.where(other.rank_graphs[0].comm_tag == 7, 8, other.rank_graphs[0].comm_tag)
    assert cache.get(other) == 2
    regrouped = copy.deepcopy(graph)
    regrouped.groups[1] = tuple(reversed(regrouped.groups[1]))
    assert cache.get(regrouped) == 3


def test_the_same_nodes_on_other_ranks_are_another_structure() -> None:
    """Also where they are the very same arrays."""
    cache, _ = counted()
    graph = cases.graph(pipeline(0, steps=1))
    assert cache.get(graph) == 1
    moved = ExecutionGraph([replace(one, ranks=tuple(reversed(one.ranks))) for one in graph.rank_graphs], graph.groups)
    assert moved.rank_graphs[0].ranks != graph.rank_graphs[0].ranks
    assert cache.get(moved) == 2
    assert cache.get(copy.deepcopy(moved)) == 2 and cache.get(copy.deepcopy(graph)) == 1


def test_the_oldest_structure_is_dropped() -> None:
    cache, made = counted()
    graphs = [cases.graph(pipeline(0, steps=1)) for _ in range(3)]
    for number, graph in enumerate(graphs):
        graph.groups[1] = tuple(np.roll(graph.groups[1], number).tolist())
        cache.get(graph)
    cache.get(graphs[0])
    assert len(made) == 4
