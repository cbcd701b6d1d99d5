"""Groups side by side in one row, and data passed round a ring: names, nodes, times, texts, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from traces import Row, make_trace

from analytical.embedded import create
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, NodeType
from converters.lowering import lower
from converters.text import read_text_trace, write_text_trace
from converters.text.gathering import gather
from foundation.errors import UserError
from trace_gen.trace import CommType, Trace

RANKS = (0, 1, 2, 3)
FILES = {
    "network": "topology: [ Ring ]\nnpus_count: [ 4 ]\nbandwidth: [ 1.0 ]\nlatency: [ 100.0 ]\n",
    "system": '{"scheduling-policy": "LIFO", "endpoint-delay": 10, "active-chunks-per-dimension": 1, '
    '"preferred-dataset-splits": 1, "collective-optimization": "localBWAware", "local-mem-bw": 1000, '
    '"peak-perf": 1, "roofline-enabled": 1, "all-reduce-implementation": ["ring"]}',
    "memory": '{"memory-type": "NO_MEMORY_EXPANSION"}',
}


def divided(trace: Trace, *parts: int) -> Trace:
    return replace(trace, group_parts=parts)


def reducing(*groups: tuple[int, ...]) -> Trace:
    return make_trace(
        [Row(f"op{at}", RANKS, comm=(CommType.ALLREDUCE, 64), group=group) for at, group in enumerate(groups)]
    )


def named(graph: ExecutionGraph) -> dict[int, list[tuple[int, int]]]:
    """Return the communicator group and the dimensions of each rank's collectives."""
    return {
        rank: [
            (int(one.comm_group[node]), int(one.involved_dims[node]))
            for node in range(len(one.node_id))
            if one.node_type[node] == NodeType.COMM_COLL
        ]
        for rank, one in graph.by_rank()
    }


def test_parts_are_communicator_groups_of_their_own() -> None:
    graph = lower(divided(reducing((0, 1, 2, 3), (0, 2, 1, 3)), 2, 2))
    assert graph.groups == {1: (0, 1), 2: (2, 3), 3: (0, 2), 4: (1, 3)}
    assert named(graph) == {
        rank: [(first, ABSENT), (second, ABSENT)]
        for rank, (first, second) in enumerate([(1, 3), (1, 4), (2, 3), (2, 4)])
    }


def test_parts_that_are_dimensions_are_the_same_on_every_rank() -> None:
    graph = lower(divided(reducing((0, 1, 2, 3), (0, 2, 1, 3)), 2, 2), network_dims=(2, 2))
    assert graph.groups == {} and len(graph.rank_graphs) == 1
    assert named(graph) == {rank: [(0, 1), (0, 2)] for rank in range(4)}


def test_parts_of_one_rank_have_nothing_to_do() -> None:
    graph = lower(divided(reducing((0, 1, 2, 3)), 4))
    assert named(graph) == {rank: [] for rank in range(4)} and graph.groups == {}


def test_the_same_ranks_whole_and_divided_are_not_taken_for_each_other() -> None:
    whole, parts = reducing((0, 1, 2, 3)), divided(reducing((0, 1, 2, 3)), 2)
    assert named(lower(whole))[0] == [(0, ABSENT)]
    assert named(lower(parts))[0] == [(1, ABSENT)]


def test_parts_of_unequal_size_are_refused() -> None:
    with pytest.raises(UserError, match="row 0 \\(op0\\) has a collective in 3 groups of 4 ranks; let the gr"):
        lower(divided(reducing((0, 1, 2, 3)), 3))


def ring(deps: tuple[int, ...] = (), size: int = 1 << 20) -> list[Row]:
    return [
        Row("produce", RANKS, latency=1000),
        Row("compute", RANKS, latency=5000),
        Row("pass", RANKS, kind=_COMM, comm=(CommType.PERMUTE, size), group=RANKS, deps=deps),
        Row("consume", RANKS, latency=300, deps=(1, 2)),
    ]


_COMM = Row().kind.__class__.COMM


def test_a_permute_is_a_send_to_the_next_and_a_receive_from_the_one_before() -> None:
    graph = lower(make_trace(ring((0,))))
    for rank, one in graph.by_rank():
        kinds = one.node_type.tolist()
        send, receive = kinds.index(NodeType.COMM_SEND), kinds.index(NodeType.COMM_RECV)
        assert kinds.count(NodeType.COMM_SEND) == kinds.count(NodeType.COMM_RECV) == 1
        assert rank + int(one.comm_dst_delta[send]) == (rank + 1) % 4
        assert rank + int(one.comm_src_delta[receive]) == (rank - 1) % 4
        assert one.comm_size[send] == one.comm_size[receive] == 1 << 20
        assert CollectiveType.ALL_REDUCE not in one.comm_type.tolist() and not graph.groups


@pytest.mark.parametrize(("deps", "after"), [((0,), 1000), ((), 6000)])
def test_it_runs_beside_what_does_not_wait_for_it(deps: tuple[int, ...], after: int) -> None:
    """1 MiB at 1 GiB/s over one link of 100 ns: 976,562 ns and 100 ns, from the end of the row waited for."""
    found = create(**FILES, options={}).simulate(lower(make_trace(ring(deps)))).by_rank()
    assert {finish for finish, _ in found.values()} == {after + 976_562 + 100 + 300}
    quick = create(**FILES, options={}).simulate(lower(make_trace(ring(deps, 1024)))).by_rank()
    assert {finish for finish, _ in quick.values()} == {max(6000, after + 953 + 100) + 300}


def test_several_rings_side_by_side() -> None:
    rows = ring((0,))
    rows[2].group = (0, 2, 1, 3)
    graph = lower(divided(make_trace(rows), 2))
    peers = {
        rank: rank + int(one.comm_dst_delta[one.node_type.tolist().index(NodeType.COMM_SEND)])
        for rank, one in graph.by_rank()
    }
    assert peers == {0: 2, 2: 0, 1: 3, 3: 1}


def test_a_permute_without_a_group_is_over_its_ranks() -> None:
    rows = ring((0,))
    rows[2].group = None
    bare, stated = (lower(make_trace(some)) for some in (rows, ring((0,))))
    for (_, one), (_, other) in zip(bare.by_rank(), stated.by_rank(), strict=True):
        assert one.comm_dst_delta.tolist() == other.comm_dst_delta.tolist()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [Row("pass", RANKS, kind=_COMM, comm=(CommType.PERMUTE, 8), group=RANKS)],
            "row 0 \\(pass\\) passes on data, but no row comes before it; let it wait for the row that puts it out",
        ),
        (
            [Row("a", (0, 1)), Row("pass", (0, 1), kind=_COMM, comm=(CommType.PERMUTE, 8), group=RANKS)],
            "row 1 \\(pass\\) passes on data between ranks that are not those that run it",
        ),
    ],
)
def test_permutes_that_cannot_be(rows: list[Row], message: str) -> None:
    with pytest.raises(UserError, match=message):
        lower(make_trace(rows))


def test_texts_keep_the_groups(tmp_path: Path) -> None:
    rows = ring((0,))
    rows[2].group = (0, 2, 1, 3)
    trace = divided(make_trace([*rows, Row("sum", RANKS, comm=(CommType.ALLREDUCE, 8), group=RANKS)]), 2, 1)
    write_text_trace(trace, tmp_path / "own.txt")
    text = (tmp_path / "own.txt").read_text()
    assert "groups\t0,2,1,3/2;0-3\n" in text
    back = read_text_trace(tmp_path / "own.txt")
    assert (back.groups, back.group_parts) == (trace.groups, trace.group_parts)
    assert back.comm_group.tolist() == trace.comm_group.tolist()
    (tmp_path / "wrong.txt").write_text(text.replace("1,3/2", "1,3/3"))
    with pytest.raises(UserError, match="4 ranks cannot be 3 groups; let the groups be of equal size"):
        read_text_trace(tmp_path / "wrong.txt")
    (tmp_path / "none.txt").write_text(text.replace("1,3/2", "1,3/0"))
    with pytest.raises(UserError, match="the groups of a list is 0"):
        read_text_trace(tmp_path / "none.txt")


def test_other_texts_cannot_say_it() -> None:
    with pytest.raises(UserError, match="collectives of several groups side by side cannot be written as COLOCATED"):
        gather(divided(reducing((0, 1, 2, 3)), 2), "colocated")
    with pytest.raises(UserError, match="a trace with data passed round cannot be written as ORCA; write it as orrery"):
        gather(make_trace(ring()[:3]), "orca")
