"""What rows become: nodes, sizes, groups and who waits for whom; then the two ways of lowering against each other."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.chakra import GraphWriter, read_graph, write_graph
from converters.collective_groups import Participants, name_groups
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, NodeType, RankGraph
from converters.graph_plan import Planner
from converters.lowering import Filling, Lowering, lower
from converters.stream_lowering import stream_lower, survey_stream
from converters.text import collect, open_text, records, write_text_trace
from converters.trace_survey import Survey
from foundation.errors import UserError
from tests.converters.random_traces import traces
from tests.converters.traces import Row, make_trace, slower, transformer
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.trace import CommType, Location, RowKind, Trace
from trace_gen.vocabulary import FUSED
from trace_test.random_batches import _WorkModel

REMOTE = Location.REMOTE


def names(graph: RankGraph) -> list[str]:
    return [graph.names[index] for index in graph.name]


def waits(graph: RankGraph) -> dict[str, list[str]]:
    named = names(graph)
    return {name: [named[at] for at in graph.dependencies(row)] for row, name in enumerate(named)}


def only(graph: ExecutionGraph) -> RankGraph:
    (rank_graph,) = graph.rank_graphs
    return rank_graph


def test_a_row_is_loads_then_computation_then_collective_then_store() -> None:
    both = (0, 1)
    row = Row("op", both, input=(REMOTE, 0, 5), weight=(REMOTE, 0, 6), output=(REMOTE, 0, 7), group=both,
              comm=(CommType.ALLREDUCE, 64), latency=123)  # fmt: skip
    graph = only(lower(make_trace([Row("before", both), row, Row("after", both)])))
    assert waits(graph) == {
        "before": [],
        "op.load_input": ["before"],
        "op.load_weight": ["before"],
        "op": ["op.load_input", "op.load_weight"],
        "op.collective": ["op"],
        "op.store": ["op.collective"],
        "after": ["op.store"],
    }
    assert graph.num_ops[0].tolist()[:4] == [100_500, ABSENT, ABSENT, 123_500]
    assert graph.tensor_size[0].tolist() == [1, 5, 6, 1, ABSENT, 7, 1]
    assert graph.comm_size.tolist() == [ABSENT] * 4 + [64] + [ABSENT] * 2
    assert graph.comm_type[4] == CollectiveType.ALL_REDUCE


ABSENTEES = {"comm_type": -1}
ATTRIBUTES = (
    *("num_ops", "tensor_size", "comm_type", "comm_size", "comm_priority", "comm_tag", "comm_src_delta"),
    *("comm_dst_delta", "involved_dims"),
)
COLUMNS = (*ATTRIBUTES, "node_id", "node_type", "is_cpu_op", "duration_us", "comm_group", "dep_offsets", "dep_index")
SAID_OF = {
    NodeType.COMP: {"num_ops", "tensor_size"},
    NodeType.MEM_LOAD: {"tensor_size"},
    NodeType.MEM_STORE: {"tensor_size"},
    NodeType.COMM_COLL: {"comm_type", "comm_size"},
    NodeType.COMM_SEND: {"comm_size", "comm_tag", "comm_src_delta", "comm_dst_delta"},
    NodeType.COMM_RECV: {"comm_size", "comm_tag", "comm_src_delta", "comm_dst_delta"},
}
"""What a node has by its type, and nothing else."""


@settings(deadline=None, derandomize=True, max_examples=50)
@given(traces(), st.booleans())
def test_what_is_written_is_read_back_column_by_column(trace: Trace, true_work: bool) -> None:
    """What a node has nothing to say of, too."""
    graph = lower(trace, true_work=true_work)
    with TemporaryDirectory() as folder:
        write_graph(graph, Path(folder) / "g")
        again = read_graph(Path(folder) / "g")
    assert again.groups == graph.groups
    for (rank, one), (_, other) in zip(graph.by_rank(), again.by_rank(), strict=True):
        assert names(one) == names(other)
        for column in COLUMNS:
            assert getattr(one, column).tolist() == getattr(other, column).tolist(), (rank, column)
        for at, kind in enumerate(one.node_type.tolist()):
            said = {name for name in ATTRIBUTES if getattr(one, name)[..., at].min() != ABSENTEES.get(name, ABSENT)}
            assert said == SAID_OF[NodeType(kind)]


def test_many_rows_that_take_turns_wait_for_those_of_their_own_sub_batch() -> None:
    graph = only(lower(make_trace([Row(f"r{row}", sub_batch=row % 2 + 1) for row in range(400)])))
    assert waits(graph) == {f"r{row}": [f"r{row - 2}"] if row > 1 else [] for row in range(400)}


def test_true_work_replaces_nanoseconds_and_is_at_least_one() -> None:
    trace = make_trace([Row(flops=7, mem_bytes=9, latency=5), Row()])
    graph = only(lower(trace, true_work=True))
    assert (graph.num_ops[0].tolist(), graph.tensor_size[0].tolist()) == ([7, 1], [9, 1])


@pytest.mark.parametrize("true_work", [False, True])
def test_a_rank_without_rows_is_idle_for_one_ns(true_work: bool) -> None:
    """By the roofline of ours, which makes 1000 operations a ns; by no roofline of a user's."""
    graph = lower(make_trace([Row(ranks=(0, 2))]), true_work=true_work)
    idle = next(one for one in graph.rank_graphs if one.ranks == (1,))
    assert names(idle) == ["idle"] and idle.node_type.tolist() == [NodeType.COMP]
    assert (idle.is_cpu_op.tolist(), idle.num_ops.tolist()) == ([true_work], [[1 if true_work else 1500]])
    assert idle.tensor_size.tolist() == [[1]] and idle.duration_us.tolist() == [0]


def test_annotations_are_ours_and_nothing_else_changes() -> None:
    trace = make_trace([Row(flops=7, mem_bytes=9, layer=3, request=4), Row(output=(REMOTE, 0, 8))])
    plain, annotated = only(lower(trace)), only(lower(trace, annotate=True))
    assert plain.annotations == {}
    assert {name: column.tolist() for name, column in annotated.annotations.items()} == {
        "orrery.flops": [[7, 0, ABSENT]],
        "orrery.bytes": [[9, 0, ABSENT]],
        "orrery.layer": [3, ABSENT, ABSENT],
        "orrery.request": [4, ABSENT, ABSENT],
    }
    assert np.array_equal(plain.num_ops, annotated.num_ops)


def test_steps_are_an_axis() -> None:
    graph = only(lower(make_trace([Row(latency=[1, 2, 3]), Row(latency=[5, 5, 5])], steps=3)))
    assert graph.num_ops.tolist() == [[1500, 5500], [2500, 5500], [3500, 5500]]
    assert graph.tensor_size.shape == (3, 2)


def test_stages_send_the_last_rows_output_rank_by_rank() -> None:
    first, second = (0, 1), (2, 3)
    graph = lower(
        make_trace([
            Row("a", first, output=(Location.LOCAL, 0, 40)),
            Row("b", first, output=(Location.LOCAL, 0, 50)),
            Row("c", second, stage=1),
        ])
    )  # fmt: skip
    sender, receiver = graph.rank_graphs
    assert (sender.ranks, receiver.ranks) == (first, second), "ranks of a stage share their nodes"
    assert waits(sender) == {"a": [], "b": ["a"], "b.send": ["b"]}
    assert waits(receiver) == {"c.recv": [], "c": ["c.recv"]}
    assert (sender.comm_dst_delta[2], receiver.comm_src_delta[0]) == (2, -2)
    assert sender.comm_size[2] == receiver.comm_size[0] == 50
    assert sender.comm_tag[2] == receiver.comm_tag[0]


def test_ranks_wait_for_their_own_rows_and_a_collective_joins_them() -> None:
    both = (0, 1)
    graph = lower(
        make_trace([
            Row("norm", both),
            Row("attention", (0,), latency=300),
            Row("attention", (1,), latency=70),
            Row("proj", both, comm=(CommType.ALLREDUCE, 8), group=both),
        ])
    )  # fmt: skip
    assert [(own.ranks, names(own)) for own in graph.rank_graphs] == [
        ((0,), ["norm", "attention", "proj", "proj.collective"]),
        ((1,), ["norm", "attention", "proj", "proj.collective"]),
    ]


def test_memory_moved_before_a_stage_waits_for_nothing_and_is_awaited_by_its_first_rows() -> None:
    trace = make_trace([
        Row("evict", kind=RowKind.MEM_STORE, output=(REMOTE, 0, 9)),
        Row("load", kind=RowKind.MEM_LOAD, input=(REMOTE, 0, 8)),
        Row("one", sub_batch=1),
        Row("two", sub_batch=2),
        Row("three", sub_batch=1),
    ])  # fmt: skip
    found = waits(only(lower(trace)))
    moved = ["evict.store", "load.load_input"]
    assert found == {moved[0]: [], moved[1]: [], "one": moved, "two": moved, "three": ["one"]}


def test_explicit_dependencies_replace_the_previous_row() -> None:
    trace = make_trace([Row("a"), Row("b"), Row("c", deps=(0,)), Row("d", deps=(1, 2))])
    assert waits(only(lower(trace))) == {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def test_who_waits_for_a_row_without_nodes_waits_for_what_that_waited_for() -> None:
    """Rows that do nothing on their one rank, one behind another; the row between them is not waited for."""
    nothing = {"kind": RowKind.COMM, "comm": (CommType.ALLREDUCE, 8), "group": (0,)}
    rows = [
        Row("first"),
        Row("second"),
        Row("gone", deps=(0,), **nothing),  # type: ignore[arg-type]
        Row("gone_too", deps=(2,), **nothing),  # type: ignore[arg-type]
        Row("last", deps=(3,)),
        Row("after"),
    ]
    found = waits(only(lower(make_trace(rows))))
    assert found == {"first": [], "second": ["first"], "last": ["first"], "after": ["last"]}


def test_what_comes_by_way_of_a_row_without_nodes_comes_in_the_order_of_rows() -> None:
    rows = [Row(f"row{number}", output=(Location.LOCAL, 0, 100 + number)) for number in range(9)]
    rows.append(Row("gone", kind=RowKind.COMM, comm=(CommType.ALLREDUCE, 8), group=(0,), deps=(8, 1)))
    rows.append(Row("far", (1,), deps=(9,)))
    receiver = lower(make_trace(rows)).rank_graphs[1]
    assert receiver.comm_size[:2].tolist() == [101, 108] and names(receiver) == ["far.recv", "far.recv", "far"]


def test_a_dependency_on_another_ranks_row_is_a_transfer() -> None:
    trace = make_trace([Row("a", (0,), output=(Location.LOCAL, 0, 33)), Row("b", (1,), deps=(0,))])
    sender, receiver = lower(trace).rank_graphs
    assert (names(sender), names(receiver)) == (["a", "a.send"], ["b.recv", "b"])
    assert sender.comm_size[1] == receiver.comm_size[0] == 33


def test_what_a_transfer_carries_is_decided_anew_where_a_row_has_bytes_to_hand_on() -> None:
    """Its output, or the bytes of communication that it has without a collective; the rows are the same otherwise."""
    lowering = Lowering()
    for handed_on, carried in ((0, 33), (77, 77), (0, 33)):
        first = Row("a", (0,), output=(Location.LOCAL, 0, 33), comm=(CommType.NONE, handed_on))
        sender, _ = lowering.lower(make_trace([first, Row("b", (1,), deps=(0,))])).rank_graphs
        assert sender.comm_size[1] == carried


def test_a_row_that_only_receives_is_its_recv() -> None:
    kv = Row("qkv", (0,), comm=(CommType.NONE, 77))
    receive = Row("kv_receive", (1,), RowKind.COMM, stage=-1, deps=(0,))
    again = Row("kv_receive", (1,), RowKind.COMM, stage=-1, deps=(0,))
    sender, receiver = lower(make_trace([kv, receive, again, Row("o", (0,))])).rank_graphs
    assert names(sender) == ["qkv", "qkv.send", "qkv.send", "o"]
    assert waits(sender)["o"] == ["qkv"], "computation does not wait for the transfer"
    assert names(receiver) == ["kv_receive.recv", "kv_receive.recv"]
    assert receiver.comm_size.tolist() == [77, 77]


def test_how_a_collective_names_its_ranks() -> None:
    trace = transformer(2, 2)
    grouped = lower(trace)
    assert grouped.groups == {1: (0, 1), 2: (2, 3)}
    by_dimension = lower(trace, network_dims=(2, 2))
    assert by_dimension.groups == {}
    collective = by_dimension.rank_graphs[1].node_type == NodeType.COMM_COLL
    assert set(by_dimension.rank_graphs[1].involved_dims[collective].tolist()) == {0b01}
    everyone = only(lower(transformer(4, 1)))
    assert set(everyone.comm_group.tolist()) == {0}
    assert set(everyone.involved_dims.tolist()) == {ABSENT}
    alone = only(lower(transformer(1, 1)))
    assert NodeType.COMM_COLL not in set(alone.node_type.tolist()), "one rank has nobody to reduce with"


def test_a_network_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="the network has 2 x 3 = 6 NPUs but the trace has 4 ranks"):
        lower(transformer(2, 2), network_dims=(2, 3))


def test_a_group_without_a_rank_that_runs_the_row_is_refused() -> None:
    trace = make_trace([Row("op", (0, 1, 2), comm=(CommType.ALLREDUCE, 8), group=(0, 1))])
    with pytest.raises(UserError, match=r"row 0 \(op\) has a collective over ranks 0, 1"):
        lower(trace)


def test_a_wrong_group_is_told_by_its_row_among_all_blocks() -> None:
    everybody = [Row("a", (0, 1)), Row("b", (0, 1))]
    astray = Row("astray", (0,), comm=(CommType.ALLREDUCE, 8), group=(1,))
    survey = Survey()
    survey.add(make_trace([*everybody, Row("c", (0,))]))
    survey.add(make_trace([*everybody, astray]))
    with pytest.raises(UserError, match=r"^row 5 \(astray\) has a collective over ranks 1, which are not"):
        survey.check_groups()


def test_idle_ranks_have_one_node_of_a_nanosecond() -> None:
    graph = lower(make_trace([Row("a", (1,))]))
    assert [(own.ranks, names(own), own.num_ops.tolist()) for own in graph.rank_graphs] == [
        ((0,), ["idle"], [[1500]]),
        ((1,), ["a"], [[100500]]),
    ]


def test_a_rank_that_moves_memory_and_sends_ends_with_a_node_of_no_time() -> None:
    graph = lower(make_trace([Row("a", (0,), input=(REMOTE, 0, 5)), Row("b", (1,), stage=1)]))
    sender = graph.rank_graphs[0]
    assert names(sender)[-1] == "a.close"
    assert waits(sender)["a.close"] == ["a.send"]
    assert sender.num_ops[0, -1] == 500, "1000 ns a unit and half of one: 0 ns"


def test_new_durations_keep_the_columns_of_the_structure() -> None:
    lowering = Lowering()
    one = lowering.lower(transformer(2, 2, steps=2, latency=100))
    other = lowering.lower(transformer(2, 2, steps=2, latency=999))
    for before, after in zip(one.rank_graphs, other.rank_graphs, strict=True):
        assert not np.array_equal(before.num_ops, after.num_ops)
        for column in ("node_id", "node_type", "name", "dep_offsets", "dep_index", "comm_size"):
            assert getattr(before, column) is getattr(after, column), column
        assert before.work.column is after.work.column
    assert one.groups is other.groups


def test_new_sizes_keep_the_structure_and_change_the_sizes() -> None:
    lowering = Lowering()
    trace = transformer(2, 1)
    before, after = (only(lowering.lower(t)) for t in (trace, _with_bytes(trace, 2)))
    assert before.dep_index is after.dep_index
    collective = before.node_type == NodeType.COMM_COLL
    assert np.array_equal(2 * before.comm_size[collective], after.comm_size[collective])


def _with_bytes(trace: Trace, factor: int) -> Trace:
    return replace(trace, comm_bytes=factor * trace.comm_bytes)


def assert_same(one: ExecutionGraph, other: ExecutionGraph) -> None:
    """The same nodes on every rank, whichever ranks share them."""
    assert one.groups == other.groups
    for (rank, left), (other_rank, right) in zip(one.by_rank(), other.by_rank(), strict=True):
        assert rank == other_rank
        assert names(left) == names(right)
        for name in (*RankGraph.__dataclass_fields__, "num_ops", "tensor_size"):
            if name not in ("ranks", "names", "name", "work", "annotations"):
                assert np.array_equal(getattr(left, name), getattr(right, name)), (rank, name)
        assert {k: v.tolist() for k, v in _flat(left).items()} == {k: v.tolist() for k, v in _flat(right).items()}


def _flat(graph: RankGraph) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return {name: column.reshape(-1) for name, column in graph.annotations.items() if (column != ABSENT).any()}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(traces(dependencies=True), st.booleans())
def test_a_graph_is_the_same_after_text_and_after_et(trace: Trace, true_work: bool) -> None:
    graph = lower(trace, true_work=true_work, annotate=True)
    with TemporaryDirectory() as folder:
        write_graph(graph, Path(folder) / "g")
        assert_same(graph, read_graph(Path(folder) / "g"))
        write_text_trace(trace, Path(folder) / "t.txt")
        again = collect(open_text(Path(folder) / "t.txt"))
    assert_same(graph, lower(again, true_work=true_work, annotate=True))


def streamed(trace: Trace, folder: Path, filling: Filling, rows: int = 1 << 13) -> list[bytes]:
    """Return the files of every rank, written in blocks of `rows` rows."""
    with patch("converters.text.columns.BLOCK_VALUES", rows * trace.steps):
        planner = Planner(survey_stream(records(trace)), None)
        assert planner.groups == lower(trace).groups
        return [path.read_bytes() for path in stream_lower(folder / "s", planner, records(trace), filling)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(traces(), st.booleans(), st.integers(1, 6))
def test_block_by_block_the_same_bytes_come_out(trace: Trace, true_work: bool, rows: int) -> None:
    with TemporaryDirectory() as folder:
        whole = write_graph(lower(trace, true_work=true_work, annotate=True), Path(folder) / "whole")
        expected = [path.read_bytes() for path in whole.ranks]
        filling = Filling(true_work, annotate=True)
        assert streamed(trace, Path(folder), filling, rows) == expected
        assert streamed(trace, Path(folder), filling) == expected


def test_a_step_of_several_is_streamed_too(tmp_path: Path) -> None:
    trace = transformer(2, 2, steps=3)
    planner = Planner(survey_stream(records(trace)), None)
    paths = stream_lower(tmp_path / "s", planner, records(trace), Filling(False, annotate=False), step=2)
    whole = write_graph(lower(trace), tmp_path / "w", step=2)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in whole.ranks]


def test_memory_is_that_of_a_block_whatever_the_rows(tmp_path: Path) -> None:
    block = [Row("op", (0, 1), output=(REMOTE, 0, 5)), Row("sum", (0, 1), comm=(CommType.ALLREDUCE, 8), group=(0, 1))]
    trace = make_trace([*block * 10_000, Row("last", (2, 3), stage=1)])
    stream = records(trace)
    planner = Planner(survey_stream(records(trace)), None)
    with patch("converters.text.columns.BLOCK_VALUES", 64):
        tracemalloc.start()
        try:
            stream_lower(tmp_path / "s", planner, stream, Filling(False, annotate=False))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 1_000_000, "one column of the whole trace has 160,000 bytes, and a graph more than twenty"


def sends(graph: ExecutionGraph) -> dict[tuple[int, int], int]:
    """Return the bytes of every transfer, by its ends."""
    found = {}
    for rank, own in graph.by_rank():
        for at in np.flatnonzero(own.node_type == NodeType.COMM_SEND).tolist():
            found[rank, rank + int(own.comm_dst_delta[at])] = int(own.comm_size[at])
    return found


def received(graph: ExecutionGraph) -> dict[tuple[int, int], int]:
    found = {}
    for rank, own in graph.by_rank():
        for at in np.flatnonzero(own.node_type == NodeType.COMM_RECV).tolist():
            found[rank + int(own.comm_src_delta[at]), rank] = int(own.comm_size[at])
    return found


def member(op: str, ranks: tuple[int, ...], stage: int, size: int) -> Row:
    return Row(op, ranks, stage=stage, output=(Location.LOCAL, 0, size))


def test_members_of_a_wave_send_their_own_last_rows() -> None:
    """Two members of two ranks in two stages, with batches of their own; they run side by side."""
    rows = [
        member("a0", (0, 1), 0, 100), member("b0", (2, 3), 0, 700),
        member("a1", (4, 5), 1, 100), member("b1", (6, 7), 1, 700),
    ]  # fmt: skip
    graph = lower(make_trace(rows))
    assert sends(graph) == received(graph) == {(0, 4): 100, (1, 5): 100, (2, 6): 700, (3, 7): 700}
    for _, own in graph.by_rank():
        assert own.nodes == 2, "a member waits for its own rows alone"


def test_members_numbered_one_after_another_send_to_themselves() -> None:
    """Another numbering of ranks: member 0 has ranks 0 to 3 in both stages, member 1 ranks 4 to 7."""
    rows = [
        member("b0", (4, 5), 0, 700), member("a0", (0, 1), 0, 100),
        member("a1", (2, 3), 1, 100), member("b1", (6, 7), 1, 700),
    ]  # fmt: skip
    graph = lower(make_trace(rows))
    assert sends(graph) == received(graph) == {(0, 2): 100, (1, 3): 100, (4, 6): 700, (5, 7): 700}


def test_a_wave_that_works_together_before_a_stage_ends() -> None:
    """Experts run on all ranks of the stage; then each member sums its own, which is what it sends. One is idle."""
    everyone, then = (0, 1, 2), (3, 4, 5)
    rows = [
        member("a0", (0,), 0, 100), member("b0", (1,), 0, 700),
        member("experts", everyone, 0, 9999),
        member("a_sum", (0,), 0, 101), member("b_sum", (1,), 0, 701),
        member("a1", (3,), 1, 100), member("b1", (4,), 1, 700),
        member("experts", then, 1, 9999),
    ]  # fmt: skip
    graph = lower(make_trace(rows))
    assert sends(graph) == received(graph) == {(0, 3): 101, (1, 4): 701, (2, 5): 701}
    named = {rank: names(own) for rank, own in graph.by_rank()}
    assert named[2] == ["experts", "experts.send"] and named[5] == ["experts.recv", "experts"]


def test_generated_waves_send_what_the_next_stage_takes_in() -> None:
    """Every SEND of a generated wave of members with different batches carries its receiver's input."""
    compared = 0
    for data, stages in ((2, 2), (3, 2), (2, 4)):
        trace = wave(data, stages)
        graph = lower(trace)
        assert sends(graph) == received(graph)
        for (_, target), size in sends(graph).items():
            first = next(row for row in range(trace.rows) if target in trace.rank_sets[trace.rank_set[row]])
            assert size == trace.input_bytes[first]
            compared += 1
        assert len(set(sends(graph).values())) == data, "their batches differ"
    assert compared == 2 * (2 * 1 + 3 * 1 + 2 * 3)


def wave(data: int, stages: int) -> Trace:
    """Return a wave of members with TP 2 whose batches have 10, 20, ... tokens."""
    mesh = Mesh(2, stages, data=data)
    generator = TraceGenerator(load_model("Mixtral-8x7B-Instruct-v0.1"), mesh, _WorkModel(FUSED, "batch"))
    batches = [
        BatchShape(*(np.array([value], dtype=np.int64) for value in (number, 10 * (number + 1), 0, 1)))
        for number in range(data)
    ]
    return generator.generate(batches)


def test_traces_of_one_generator_are_known_by_their_arrays() -> None:
    """The fast path is taken: new durations bring no new structure, and no new columns."""
    lowering = Lowering()
    for latency in (100, 200, 300):
        lowering.lower(slower(TRACE, latency))
    assert lowering.misses == (1, 1)
    lowering.lower(replace(TRACE, op=TRACE.op.copy()))
    assert lowering.misses == (2, 1), "a copy is compared, and found to be the same structure"
    lowering.lower(transformer(4, 1))
    assert lowering.misses == (3, 2)


TRACE = transformer(2, 2)


def test_like_graphs_share_their_encoded_heads(tmp_path: Path) -> None:
    writer = GraphWriter()
    for latency in (100, 200):
        writer.write(lower(slower(TRACE, latency)), tmp_path / "g")
    assert writer.misses == len(lower(TRACE).rank_graphs)


@pytest.mark.parametrize(("dims", "named"), [(4, Participants(0, 0b0010)), (5, Participants(1))])
def test_groups_are_named_by_dimension_in_networks_of_four_at_most(dims: int, named: Participants) -> None:
    """That is as many as ASTRA-sim takes part in where nothing is said."""
    table = name_groups([(0, 2)], 2**dims, [2] * dims)
    assert table.participants == (named,)
    assert table.communicators == ({1: (0, 2)} if named.comm_group else {})
