"""What is kept of a graph's structure: found by identity, by content, and not for another structure."""

from __future__ import annotations

import copy
from dataclasses import replace

import analytical_cases as cases
import numpy as np
import pytest
from test_ways_agree import pipeline

from analytical.plan_cache import StructureCache
from converters.execution_graph import ExecutionGraph
from foundation.errors import SimulationError


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


LOAD = {"id": 0, "type": "MEM_LOAD", "tensor_size": 100, "deps": []}
MESSAGE = {"id": 0, "comm_tag": 1, "comm_size": 60_000, "deps": []}


def loading() -> cases.Description:
    case = cases.healthy()
    case["memory"]["remote-mem-latency"] = 0
    chain = [LOAD, {**cases.COMPUTE, "id": 1, "deps": [0]}, {**cases.COLLECTIVE, "id": 2, "deps": [1]}]
    case["ranks"] = [[dict(node) for node in chain] for _ in range(4)]
    return case


def sending() -> cases.Description:
    case = cases.healthy()
    case["network"]["latency"] = [0]
    case["ranks"][0] = [{**MESSAGE, "type": "COMM_SEND", "comm_dst": 1}]
    case["ranks"][1] = [{**MESSAGE, "type": "COMM_RECV", "comm_src": 0}]
    case["ranks"][2:] = [[dict(cases.COMPUTE)], [dict(cases.COMPUTE)]]
    return case


@pytest.mark.parametrize(
    ("case", "column", "index", "value", "said"),
    [
        (loading(), "tensor_size", 0, -5, "rank 0, node 0 (MEM_LOAD): tensor_size is negative"),
        (loading(), "tensor_size", 0, 1, "rank 0, node 0 (MEM_LOAD): something takes 0 ns at t = 0"),
        (loading(), "num_ops", 1, 0, "rank 0, node 1 (COMP): num_ops is 0"),
        (loading(), "comm_size", 2, -1, "rank 0, node 2 (COMM_COLL): comm_size is negative"),
        (sending(), "comm_size", 0, 5, "rank 0, node 0 (COMM_SEND): something takes 0 ns at t = 0"),
        (sending(), "comm_size", 0, 61_000, "deadlock: rank 1 waits in node 0 (COMM_RECV) for 60000 bytes"),
    ],
)
def test_what_is_kept_of_a_structure_takes_no_wrong_value_for_right(
    case: cases.Description, column: str, index: int, value: int, said: str
) -> None:
    backend, graph = cases.backend(case), cases.graph(case)
    backend.simulate(graph)
    (first, *_) = graph.rank_graphs
    values = getattr(first, column).copy()
    values[..., index] = value
    if column == "comm_size":
        first.comm_size = values
    else:
        first.work = replace(first.work, **{column: values})
    with pytest.raises(SimulationError) as error:
        backend.simulate(graph)
    assert str(error.value).startswith(said)


def test_the_oldest_structure_is_dropped() -> None:
    cache, made = counted()
    graphs = [cases.graph(pipeline(0, steps=1)) for _ in range(3)]
    for number, graph in enumerate(graphs):
        graph.groups[1] = tuple(np.roll(graph.groups[1], number).tolist())
        cache.get(graph)
    cache.get(graphs[0])
    assert len(made) == 4
