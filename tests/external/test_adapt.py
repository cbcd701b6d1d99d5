"""Adapting a graph changes nothing but what is taken off again, and meets each of upstream's traps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import MEMORY, collective, compute, load, network, rank_graph, receive, send, system, tensor_parallel

from analytical.embedded import create
from converters.execution_graph import ABSENT, ExecutionGraph, NodeType
from external.astra_sim.adapt import adapt, adapt_configuration, compute_ns
from foundation.errors import SimulationError, UserError

ROOT_NODES = st.sampled_from([compute(1), compute(700), collective(0, 4096), load(3000)])


def embedded(graph: ExecutionGraph, npus: int) -> dict[int, tuple[int, int]]:
    return create(network=network(npus), system=system(), memory=MEMORY, options={}).simulate(graph).by_rank()


@given(
    first=ROOT_NODES,
    middle=st.lists(st.sampled_from([compute(3), compute(900), collective(0, 1 << 16), load(100_000)]), max_size=6),
    joins=st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_padded_graph_gives_the_same_answer_less_the_padding(first: dict, middle: list, joins: bool) -> None:
    nodes = [first, *middle, compute(2)]
    if joins and len(nodes) > 2:
        nodes[1] = {**nodes[1], "deps": []}  # a second root
    graph = ExecutionGraph([rank_graph((0, 1), nodes)])
    adapted = adapt(graph, 0, adapt_configuration(network(2), system(), MEMORY))
    answer = embedded(adapted.graph, 2)
    shifted = {rank: (end - adapted.surplus_ns[rank], exposed) for rank, (end, exposed) in answer.items()}
    assert shifted == embedded(graph, 2)
    assert max(adapted.surplus_ns) <= 2


def test_a_graph_without_traps_is_left_alone() -> None:
    graph = tensor_parallel()
    adapted = adapt(graph, 0, adapt_configuration(network(2), system(), MEMORY))
    assert adapted.surplus_ns == (0, 0)
    assert adapted.graph.rank_graphs[0].nodes == graph.rank_graphs[0].nodes


def test_one_npu_gets_an_idle_neighbour_and_a_network() -> None:
    given = adapt_configuration(network(1), system(), MEMORY)
    assert "npus_count: [ 2 ]" in given.network
    assert given.npus == 1
    adapted = adapt(ExecutionGraph([rank_graph((0,), [compute(9)])]), 0, given)
    assert adapted.ranks == 1
    idle = adapted.graph.rank_graphs[1]
    assert (idle.ranks, idle.nodes, NodeType(idle.node_type[0])) == ((1,), 1, NodeType.COMP)


@pytest.mark.parametrize("root", [collective(0, 4096), load(10), send(1, 8), receive(1, 8), compute(0)])
def test_what_may_fall_on_zero_is_shifted_on_every_rank(root: dict) -> None:
    graph = ExecutionGraph([rank_graph((0,), [root, compute(5)]), rank_graph((1,), [compute(5)])])
    adapted = adapt(graph, 0, adapt_configuration(network(2), system(), MEMORY))
    assert adapted.surplus_ns == (1, 1)
    for rank_graph_ in adapted.graph.rank_graphs:
        lead = rank_graph_.nodes - 1
        roots = np.flatnonzero(np.diff(rank_graph_.dep_offsets) == 0)
        assert roots.tolist() == [lead]


def test_a_rank_that_moves_memory_and_ends_with_a_transfer_gets_a_tail() -> None:
    graph = ExecutionGraph(
        [rank_graph((0,), [compute(5), load(10), send(1, 8)]), rank_graph((1,), [compute(5), receive(1, 8)])]
    )
    adapted = adapt(graph, 0, adapt_configuration(network(2), system(), MEMORY))
    assert adapted.surplus_ns == (1, 0)
    padded = adapted.graph.rank_graphs[0]
    assert padded.nodes == 4
    assert NodeType(padded.node_type[3]) == NodeType.COMP
    assert padded.dependencies(3).tolist() == [2]
    assert len(set(padded.node_id.tolist())) == 4


def test_the_padding_is_exact_on_any_roofline() -> None:
    for peak, bandwidth in ((1, 1600), (900, 3350), (0.25, 5), (35.6, 936.2), (1000, 0.5)):
        given = adapt_configuration(network(2), system(peak_perf=peak, local_mem_bw=bandwidth), MEMORY)
        assert given.roofline is not None
        assert given.pad is not None
        ops, size = np.array([given.pad.num_ops]), np.array([given.pad.tensor_size])
        assert compute_ns(ops, size, given.roofline).tolist() == [given.pad.duration_ns]
        assert given.pad.duration_ns >= 1


@given(ns=st.integers(0, 10**12))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_nanoseconds_written_as_operations_come_back(ns: int) -> None:
    assert compute_ns(np.array([1000 * ns + 500]), np.array([1]), (1600e9, 1e12)).tolist() == [ns]


def test_only_the_asked_step_is_written() -> None:
    adapted = adapt(tensor_parallel(steps=4), 2, adapt_configuration(network(2), system(), MEMORY))
    assert adapted.graph.rank_graphs[0].num_ops.tolist() == [[1_002_500, ABSENT, 7_500]]


def test_a_cycle_beside_other_nodes_is_refused() -> None:
    nodes = [compute(1), compute(2, deps=[2]), compute(3, deps=[1]), compute(4, deps=[0])]
    graph = ExecutionGraph([rank_graph((0, 1), nodes)])
    with pytest.raises(SimulationError, match=r"rank 0: 2 nodes wait for each other in a cycle, among them node 1"):
        adapt(graph, 0, adapt_configuration(network(2), system(), MEMORY))


def test_rows_in_any_order_are_no_cycle() -> None:
    graph = ExecutionGraph([rank_graph((0, 1), [compute(1, deps=[1]), compute(2, deps=[])])])
    adapt(graph, 0, adapt_configuration(network(2), system(), MEMORY))


def test_the_rank_count_must_be_the_networks() -> None:
    with pytest.raises(
        SimulationError, match=r"the graph has 3 ranks, but npus_count in the network file makes 2 NPUs"
    ):
        adapt(tensor_parallel(3), 0, adapt_configuration(network(2), system(), MEMORY))


def test_wrong_texts_are_told_by_what_they_are() -> None:
    for texts, said in (
        (("npus_count: [0]", system(), MEMORY), "the network file"),
        ((network(2), "{", MEMORY), "the system file"),
        ((network(2), system(), "[]"), "the memory file"),
    ):
        with pytest.raises(UserError, match=said):
            adapt_configuration(*texts)


def test_custom_collectives_are_refused() -> None:
    custom = system(**{"all-reduce-implementation-custom": ["graphs/ring"]})
    with pytest.raises(UserError, match=r"custom collectives"):
        adapt_configuration(network(2), custom, MEMORY)


def test_without_a_roofline_times_are_the_nodes_own() -> None:
    """What is computed takes its stated time, and nothing else is known not to end at once."""
    given = adapt_configuration(network(2), system(roofline_enabled=0), MEMORY)
    assert given.roofline is None and given.pad is not None and given.pad.duration_ns == 1
    timed = ExecutionGraph([rank_graph((0, 1), [compute(9), compute(5)])])
    assert adapt(timed, 0, given).surplus_ns == (0, 0)
    for root in (collective(0, 4096), load(10)):
        assert adapt(ExecutionGraph([rank_graph((0, 1), [root, compute(5)])]), 0, given).surplus_ns == (1, 1)
    lacking = ExecutionGraph([rank_graph((0,), [compute(5)]), rank_graph((1,), [])])
    assert adapt(lacking, 0, given).surplus_ns == (1, 1), "a rank without nodes ends at 0"
