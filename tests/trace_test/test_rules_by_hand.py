"""Each rule on a few rows made by hand: what is still right, what is just wrong, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converters.execution_graph import ExecutionGraph, RankGraph
from tests.converters.traces import Row, make_trace, slower
from tests.external.small_graphs import compute, rank_graph, receive, send
from trace_gen.trace import CommType, Location, RowKind, Trace
from trace_test.rule import REPORTED, Rule, Subject, Violation, rules, run_rules

ALLREDUCE, ALLGATHER, NONE = CommType.ALLREDUCE, CommType.ALLGATHER, CommType.NONE
BOTH = (0, 1)


def found(rule: str, subject: Trace | ExecutionGraph) -> list[str]:
    """Return what one rule says, ``where: what``."""
    made = Subject("s", trace=subject) if isinstance(subject, Trace) else Subject("s", graph=subject)
    return [f"{one.where}: {one.what}" for one in rules.get(rule).check(made)]


def local(size: int) -> tuple[Location, int, int]:
    return Location.LOCAL, 0, size


def op(name: str, into: int = 8, out: int = 8, **more: Any) -> Row:
    return Row(name, input=local(into), output=local(out), **more)


# --- attention-separated ---------------------------------------------------------------------------------------------


def attention(*requests: int, batch: tuple[int, ...] = (), **attributes: str) -> Trace:
    rows = [Row("attention", layer=0, request=request) for request in requests]
    return make_trace([Row("qkv_proj", layer=0), *rows], requests=batch, **attributes)


def test_attention_by_request_or_in_one_row() -> None:
    assert found("attention-separated", attention(4, 9, batch=(4, 9))) == []
    assert found("attention-separated", attention(4, 9)) == [], "without a list of requests there is nothing to miss"
    assert found("attention-separated", attention(-1, batch=(4, 9))) == []
    assert found("attention-separated", attention(-1, -1, origin="colocated")) == []
    assert found("attention-separated", attention(-1, origin="colocated")) == []


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (attention(4, batch=(4, 9)), "attention and the batch differ in request 9"),
        (attention(4, 9, 11, batch=(4, 9)), "attention and the batch differ in request 11"),
        (attention(4, 4, 9, batch=(4, 9)), "request 4 has 2 rows of attention in a block"),
        (attention(4, -1, batch=(4,)), "attention partly for the whole batch and partly by request"),
        (attention(-1, -1, batch=(4, 9)), "2 rows of attention in a block, none of which says its request"),
        (attention(-1), "attention of a whole batch whose requests the trace does not list"),
    ],
)
def test_attention_that_is_not_separated(trace: Trace, said: str) -> None:
    assert found("attention-separated", trace) == [f"row 1 (L0.attention): {said}"]


def test_attention_of_sub_batches_is_each_ones_own() -> None:
    rows = [Row("attention", layer=0, sub_batch=batch, request=-1) for batch in (1, 2, 1)]
    assert found("attention-separated", make_trace(rows, requests=(3,))) == []
    rows = [Row("attention", layer=0, sub_batch=batch, request=batch) for batch in (1, 2)]
    assert found("attention-separated", make_trace(rows, requests=(1, 2, 3))) == []


def test_blocks_are_told_apart_where_a_text_names_no_layers() -> None:
    """A block ends with its last projection."""
    block = [Row("attn", request=4), Row("down_proj")]
    assert found("attention-separated", make_trace([*block, *block], requests=(4,))) == []
    twice = [Row("attn", request=4), Row("attn", request=4), Row("fc2")]
    said = "request 4 has 2 rows of attention in a block"
    assert found("attention-separated", make_trace([*block, *twice], requests=(4,))) == [f"row 2 (attn): {said}"]


# --- input-matches-output --------------------------------------------------------------------------------------------


def test_each_input_is_the_output_before_it() -> None:
    assert found("input-matches-output", make_trace([op("a", 1, 8), op("b", 8, 4), op("c", 4, 2)])) == []
    assert found("input-matches-output", make_trace([op("a", 1, 8), op("b", 9, 4), op("c", 4, 2)])) == [
        "row 1 (b): its input is 9 bytes, but the row before puts out 8"
    ]


def test_rows_side_by_side_share_an_input_and_give_all_their_outputs() -> None:
    three = [op("x", 1, 8), op("q", 8, 8), op("k", 8, 2), op("v", 8, 2)]
    for size in (12, 4, 2):
        assert found("input-matches-output", make_trace([*three, op("rope", size, size)])) == []
    assert found("input-matches-output", make_trace([*three, op("rope", 10, 10)])) == [
        "row 4 (rope): its input is 10 bytes, but the row before puts out 2"
    ]


def test_more_than_eight_side_by_side_are_too_many() -> None:
    rows = [op("x", 1, 8), *[op("q", 8, 1) for _ in range(8)]]
    assert found("input-matches-output", make_trace([*rows, op("sum", 8, 1)])) == []
    assert found("input-matches-output", make_trace([*rows, op("q", 8, 1), op("sum", 9, 1)])) == [
        "row 10 (sum): its input is 9 bytes, but the row before puts out 1"
    ]


def test_requests_take_what_their_own_row_before_puts_out() -> None:
    def one(request: int, into: int, out: int) -> Row:
        return op("attn", into, out, request=request)

    right = [op("qkv", 1, 12), one(0, 4, 2), one(0, 2, 2), one(1, 8, 4), op("o_proj", 6, 6)]
    assert found("input-matches-output", make_trace(right)) == []
    wrong = [op("qkv", 1, 12), one(0, 4, 2), one(0, 3, 2), one(1, 8, 4), op("o_proj", 6, 6)]
    assert found("input-matches-output", make_trace(wrong)) == [
        "row 2 (attn): its input is 3 bytes, but request 0's row before puts out 2"
    ]
    short = [op("qkv", 1, 12), one(0, 4, 2), one(1, 7, 4), op("o_proj", 6, 6)]
    assert found("input-matches-output", make_trace(short)) == [
        "row 1 (attn): its input is 11 bytes, but the row before puts out 12"
    ]
    after = [op("qkv", 1, 12), one(0, 4, 2), one(1, 8, 4), op("o_proj", 7, 6)]
    assert found("input-matches-output", make_trace(after)) == [
        "row 3 (o_proj): its input is 7 bytes, but the row before puts out 6"
    ]


def test_a_collective_without_its_operand_and_memory_are_passed_over() -> None:
    rows = [
        Row("kv", kind=RowKind.MEM_LOAD, input=(Location.REMOTE, 0, 77)),
        op("a", 1, 8),
        Row("reduce", kind=RowKind.COMM, comm=(ALLREDUCE, 8), ranks=BOTH),
        op("b", 8, 4),
    ]
    assert found("input-matches-output", make_trace(rows)) == []


def test_an_allgather_multiplies_by_its_group() -> None:
    gather = op("head", 8, 4, comm=(ALLGATHER, 4), group=BOTH, ranks=BOTH)
    assert (
        found("input-matches-output", make_trace([op("x", 1, 8, ranks=BOTH), gather, op("s", 8, 1, ranks=BOTH)])) == []
    )
    assert len(found("input-matches-output", make_trace([op("x", 1, 8), gather, op("s", 5, 1, ranks=BOTH)]))) == 1


def test_sub_batches_flow_apart() -> None:
    rows = [
        op("a", 1, 8, sub_batch=1),
        op("a", 1, 6, sub_batch=2),
        op("b", 8, 4, sub_batch=1),
        op("b", 7, 4, sub_batch=2),
    ]
    assert found("input-matches-output", make_trace(rows)) == [
        "row 3 (b): its input is 7 bytes, but the row before puts out 6"
    ]


def test_what_members_do_together_takes_the_rows_of_any_one_of_them() -> None:
    """Members are padded to the largest; only what is wrong for each of them is wrong."""

    def found_with(size: int) -> list[str]:
        rows = [op("a", 1, 8), op("a", 1, 6, ranks=(1,)), op("b", size, 4, ranks=BOTH)]
        return found("input-matches-output", make_trace(rows, tensor_parallel="1", data_parallel="2"))

    assert found_with(8) == found_with(6) == []
    assert found_with(7) == ["row 2 (b): its input is 7 bytes, but the row before puts out 8"]


@pytest.mark.parametrize("degree", ["0", "x", "", "-1", "10000000", "２"])
def test_members_of_a_trace_that_names_no_mesh_are_one(degree: str) -> None:
    rows = [op("a", 1, 8), op("a", 8, 6, ranks=(1,)), op("b", 6, 4, ranks=BOTH)]
    assert found("input-matches-output", make_trace(rows, tensor_parallel="1", data_parallel=degree)) == []


# --- collectives -----------------------------------------------------------------------------------------------------


def test_collectives_stand_where_ranks_must_agree() -> None:
    reduce = {"comm": (ALLREDUCE, 8), "group": BOTH}
    right = [
        Row("embedding", BOTH, **reduce),
        Row("qkv", BOTH),
        Row("o_proj", BOTH, **reduce),
        Row("fc2", BOTH, **reduce),
    ]
    assert found("collectives-placed", make_trace([*right, Row("lm_head", BOTH, **reduce)])) == []
    assert found("collectives-placed", make_trace([Row("o_proj", (0,))])) == [], "a single rank has it all"
    scatter = Row("down_proj", BOTH, comm=(CommType.REDUCESCATTER, 8), group=BOTH)
    assert found("collectives-placed", make_trace([scatter])) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("o_proj", BOTH), "its output is a partial sum on every rank, but no collective follows"),
        (
            Row("fc2", BOTH, comm=(ALLGATHER, 8), group=BOTH),
            "its output is a partial sum on every rank, but an ALLGATHER follows",
        ),
        (Row("norm", (0,), comm=(ALLREDUCE, 8)), "an ALLREDUCE on a single rank"),
        (Row("norm", BOTH, comm=(ALLREDUCE, 8)), "an ALLREDUCE follows, but every rank has all it needs"),
    ],
)
def test_collectives_that_are_misplaced(row: Row, said: str) -> None:
    assert found("collectives-placed", make_trace([row])) == [f"row 0 ({row.op}): {said}"]


def exchange(name: str, comm: CommType) -> Row:
    return Row(name, BOTH, kind=RowKind.COMM, comm=(comm, 8), group=BOTH)


def test_whole_experts_are_reached_and_left_by_exchanges() -> None:
    there, back = exchange("expert_dispatch", CommType.ALLTOALL), exchange("expert_combine", CommType.ALLTOALL)
    gather = exchange("expert_gather", ALLGATHER)
    assert found("collectives-placed", make_trace([there, back])) == []
    assert found("collectives-placed", make_trace([there, back, Row("expert_sum", BOTH), gather])) == []
    assert found("collectives-placed", make_trace([there])) == [
        "trace: experts on other ranks are reached by expert_dispatch, but without expert_combine"
    ]
    assert found("collectives-placed", make_trace([there, back, Row("expert_sum", BOTH)])) == [
        "trace: experts on other ranks are reached by expert_combine, but without expert_gather"
    ]
    wrong = exchange("expert_dispatch", CommType.BROADCAST)
    assert found("collectives-placed", make_trace([wrong, back])) == [
        "row 0 (expert_dispatch): an BROADCAST, but ALLTOALL or ALLGATHER is expected"
    ]
    shared = Row("shared_down_proj", BOTH)
    assert found("collectives-placed", make_trace([there, back, shared])) == [
        "row 2 (shared_down_proj): its output is a partial sum on every rank, but no collective follows"
    ]
    assert found("collectives-placed", make_trace([Row("expert_sum", BOTH)])) == [
        "row 0 (expert_sum): its output is a partial sum on every rank, but no collective follows"
    ]


def test_collectives_carry_their_operators_output() -> None:
    def one(kind: RowKind, comm: CommType, size: int) -> Trace:
        return make_trace([Row("x", BOTH, kind=kind, input=local(6), output=local(8), comm=(comm, size), group=BOTH)])

    for kind in (RowKind.COMPUTE, RowKind.COMM):
        assert found("collective-bytes", one(kind, ALLREDUCE, 8)) == []
        assert found("collective-bytes", one(kind, ALLREDUCE, 9)) == [
            "row 0 (x): the collective carries 9 bytes, but the output is 8"
        ]
    assert found("collective-bytes", one(RowKind.COMM, ALLGATHER, 6)) == []
    assert found("collective-bytes", one(RowKind.COMM, ALLGATHER, 8)) == [
        "row 0 (x): the collective carries 8 bytes, but the input is 6"
    ]
    assert found("collective-bytes", one(RowKind.COMPUTE, ALLGATHER, 8)) == []
    bare = Row("x", BOTH, kind=RowKind.COMM, comm=(ALLREDUCE, 9), group=BOTH)
    assert found("collective-bytes", make_trace([bare])) == [], "a row that states no operand"
    assert found("collective-bytes", make_trace([Row("x", comm=(NONE, 5))])) == [], "KV blocks that are sent on"
    silent = Row("x", kind=RowKind.COMM, comm=(NONE, 5))
    assert found("collective-bytes", make_trace([silent])) == [
        "row 0 (x): 5 bytes of communication without a collective"
    ]


def test_groups_are_the_ranks_that_run() -> None:
    def one(ranks: tuple[int, ...], group: tuple[int, ...]) -> Trace:
        return make_trace([Row("x", ranks, comm=(ALLREDUCE, 8), group=group)])

    assert found("group-members", one(BOTH, (1, 0))) == []
    assert found("group-members", one((0, 1, 2), BOTH)) == [
        "row 0 (x): rank 2 runs it but is not in its communication group"
    ]
    assert found("group-members", one(BOTH, (0, 1, 5, 3))) == [
        "row 0 (x): rank 3 is in its communication group but does not run it"
    ]


# --- order and times -------------------------------------------------------------------------------------------------


def test_every_layer_has_the_operators_of_the_first() -> None:
    def layers(*names: str) -> Trace:
        return make_trace([Row(name, layer=at) for at, ops in enumerate(names) for name in ops.split()])

    assert found("blocks-complete", layers("a b", "a b")) == []
    assert found("blocks-complete", make_trace([Row("a"), Row("b")])) == [], "no row says its layer"
    assert found("blocks-complete", layers("a b", "a c", "a b", "a", "a b c")) == [
        "layer 1: its operator 1 is c, but in layer 0 it is b",
        "layer 3: its operator 1 is nothing, but in layer 0 it is b",
        "layer 4: its operator 2 is c, but in layer 0 it is nothing",
    ]
    gap = make_trace([Row("a", layer=0), Row("a", layer=2)])
    assert found("blocks-complete", gap) == ["layer 1: it is missing (layers 0 to 2 are expected)"]


def test_stages_follow_each_other() -> None:
    def stages(*rows: tuple[int, int, int]) -> Trace:
        return make_trace([Row("x", (rank,), stage=stage, layer=layer) for stage, layer, rank in rows])

    assert found("stage-order", stages((0, -1, 0), (0, 0, 0), (1, 0, 1), (1, 1, 1), (1, -1, 1))) == []
    assert found("stage-order", stages((0, 0, 0), (1, 1, 1), (0, 1, 0))) == [
        "row 2 (L1.x): it is of stage 0, after stage 1 has begun"
    ]
    assert found("stage-order", stages((0, 0, 0), (2, 1, 1))) == ["stage 1: it has no operators"]
    assert found("stage-order", stages((0, 1, 0), (0, -1, 0), (0, 0, 0))) == [
        "row 2 (L0.x): its layer comes before that of the row before it"
    ]
    assert found("stage-order", stages((0, 0, 0), (1, 1, 0), (1, 1, 0))) == [
        "row 1 (L1.x): rank 0 works for stage 0 and stage 1"
    ]
    assert found("stage-order", make_trace([Row("x"), Row("kv_receive", (4,), RowKind.COMM, stage=-1)])) == []


def test_operators_take_time_and_nothing_else_does() -> None:
    assert found("times", make_trace([Row("x", latency=1), Row("m", kind=RowKind.MEM_LOAD)])) == []
    assert found("times", make_trace([Row("x", latency=[5, 0])], steps=2)) == [
        "row 0 (x): it takes 0 ns; at least 1 is needed"
    ]
    timed = make_trace([Row("m", kind=RowKind.MEM_LOAD)])
    timed = slower(timed, 3)
    assert found("times", timed) == ["row 0 (m): it computes nothing but has a latency"]
    for name in ("input_bytes", "weight_bytes", "output_bytes", "comm_bytes"):
        trace = make_trace([Row("x"), Row("y")])
        assert found("times", replace(trace, **{name: np.array([0, -1])})) == [f"row 1 (y): its {name} are negative"]


def test_rows_wait_for_earlier_rows() -> None:
    trace = make_trace([Row("a"), Row("b"), Row("c", deps=(0, 1))])
    assert found("dependencies", trace) == []
    for parent, said in ((2, "row 2, which comes later"), (3, "row 3, which does not exist"),
                         (-1, "row -1, which does not exist")):  # fmt: skip
        broken = replace(trace, dep_rows=np.array([0, parent]))
        assert found("dependencies", broken) == [f"row 2 (c): it waits for {said}"]


# --- graphs ----------------------------------------------------------------------------------------------------------


def graph(*ranks: list[dict[str, Any]]) -> ExecutionGraph:
    return ExecutionGraph([rank_graph((rank,), nodes) for rank, nodes in enumerate(ranks)])


def test_every_send_has_its_receive() -> None:
    assert found("send-matches-recv", graph([compute(5), send(1, 64)], [receive(1, 64)])) == []
    assert found("send-matches-recv", graph([compute(5), send(1, 64)], [receive(1, 65)])) == [
        "rank 0: sends 1 message(s) of 64 bytes with tag 1 to rank 1, which does not receive them",
        "rank 1: waits for 1 message(s) of 65 bytes with tag 1 that rank 0 does not send",
    ]
    twice = graph([send(1, 64), send(1, 64), send(1, 8, tag=2)], [receive(1, 64)])
    assert found("send-matches-recv", twice) == [
        "rank 0: sends 1 message(s) of 64 bytes with tag 1 to rank 1, which does not receive them",
        "rank 0: sends 1 message(s) of 8 bytes with tag 2 to rank 1, which does not receive them",
    ]


def test_all_ranks_are_there_and_have_work() -> None:
    assert found("ranks-present", graph([compute(5)], [compute(5)])) == []
    empty = graph([compute(5)], [])
    assert found("ranks-present", empty) == ["rank 1: it has nothing to do"]
    idle = graph([compute(5)], [compute(1)])
    idle.rank_graphs[1] = replace(idle.rank_graphs[1], names=("idle",))
    assert found("ranks-present", idle) == ["rank 1: it has nothing to do"]

    def with_ranks(*ranks: int) -> ExecutionGraph:
        return ExecutionGraph([rank_graph((rank,), [compute(5)]) for rank in ranks])

    assert found("ranks-present", with_ranks(0, 2)) == ["rank 1: it is missing or occurs twice"]
    assert found("ranks-present", with_ranks(0, 1, 1)) == ["rank 1: it is missing or occurs twice"]
    assert found("ranks-present", ExecutionGraph(with_ranks(0, 1).rank_graphs, {3: (0, 1), 7: (1, 4, 9)})) == [
        "group 7: it names rank 4, which is not in the graph"
    ]


def test_nodes_do_not_wait_for_each_other() -> None:
    chain = [compute(5), compute(5), compute(5)]
    assert found("acyclic", graph(chain)) == []
    circle = [compute(5), compute(5, deps=[2]), compute(5, deps=[0, 1])]
    assert found("acyclic", graph(chain, circle)) == ["rank 1: 2 node(s) wait for each other, node 1 (node) among them"]


def test_violations_of_a_ranks_nodes_say_which_rank() -> None:
    circle: list[dict[str, Any]] = [compute(5, deps=[0])]
    subject = Subject("s", graph=graph([send(1, 64)], circle))
    said = {one.what.split()[0]: one.rank for found in run_rules(subject).violations.values() for one in found}
    assert said == {"sends": 0, "1": 1}


# --- running rules ---------------------------------------------------------------------------------------------------


def test_of_endless_violations_twenty_are_told() -> None:
    rows = [Row("x", latency=0) for _ in range(REPORTED + 5)]
    assert len(run_rules(Subject("s", trace=make_trace(rows))).violations["times"]) == REPORTED == 20


def test_rules_that_cannot_be_checked_are_listed() -> None:
    names = {kind: {name for name in rules if rules.get(name).needs == kind} for kind in ("trace", "graph", "model")}
    trace = make_trace([Row("x")])
    assert set(run_rules(Subject("s", trace=trace)).skipped) == names["graph"] | names["model"]
    assert set(run_rules(Subject("s", graph=graph([compute(1)]))).skipped) == names["trace"] | names["model"]
    assert set(run_rules(Subject("s")).skipped) == set.union(*names.values())


def test_what_a_rule_leaves_out_is_listed_beside_what_it_finds() -> None:
    def check(subject: Subject) -> Any:
        yield Violation("here", "wrong")

    partial = Rule("partial", "about", "cause", "file", check, unchecked=lambda subject: "the rest")
    try:
        rules.register("partial")(partial)
        outcome = run_rules(Subject("s"))
    finally:
        del rules._choices["partial"]
    assert outcome.violations["partial"] == [Violation("here", "wrong")]
    assert "partial of the rest" in outcome.skipped


def test_rows_are_named_by_layer_and_operator() -> None:
    trace = make_trace([Row("embedding"), Row("norm", layer=3)])
    subject = Subject("s", trace=trace)
    assert [subject.row(row) for row in (0, 1)] == ["row 0 (embedding)", "row 1 (L3.norm)"]


def test_like_ranks_share_a_graph() -> None:
    """What rules walk over once, however many ranks it stands for."""
    shared: RankGraph = rank_graph((0, 1, 2), [compute(5)])
    assert found("ranks-present", ExecutionGraph([shared])) == []
