"""Placed traces as texts of the field: what a format cannot say is refused, by name."""

from __future__ import annotations

import pytest

from converters.text.gathering import gather
from foundation.errors import UserError
from tests.converters.traces import Row, make_trace
from trace_gen.trace import CommType, Location, RowKind, Trace

BOTH = (0, 1)


@pytest.mark.parametrize(
    ("trace", "name", "said"),
    [
        (make_trace([Row("a"), Row("b", deps=(0,))]), "orca", "explicit dependencies"),
        (make_trace([Row("a", latency=[1, 2])], steps=2), "decode", "2 steps"),
        (
            make_trace([Row("a", BOTH), Row("b", (2,), stage=1)]),
            "orca",
            "pipeline stages that are not runs of equally many ranks",
        ),
        (make_trace([Row("a", (1,))]), "orca", "pipeline stages that are not runs of equally many ranks"),
        (
            make_trace([Row("a", (0,)), Row("c", (2,), stage=2), Row("b", (1,), stage=1)]),
            "colocated",
            "pipeline stages out of order",
        ),
        (
            make_trace([Row("a", (0, 1, 2)), Row("b", BOTH)]),
            "colocated",
            "the operator b on some ranks of a stage",
        ),
        (
            make_trace([Row("a", BOTH), Row("attn", (1,), request=0)]),
            "orca",
            "the operator attn on another rank than its request's turn",
        ),
        (
            make_trace([Row("a", BOTH), Row("attn", (0,))]),
            "orca",
            "the operator attn on another rank than its request's",
        ),
        (
            make_trace([Row("expert_dispatch", BOTH, RowKind.COMM, comm=(CommType.ALLTOALL, 8), group=BOTH)]),
            "orca",
            "experts",
        ),
        (
            make_trace([Row("a"), Row("b"), Row("c"), Row("d", (1,), stage=1)]),
            "orca",
            "pipeline stages of unequal numbers of rows",
        ),
    ],
)
def test_what_cannot_be_said(trace: Trace, name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        gather(trace, name)
    assert str(error.value).startswith(f"a trace with {said}")
    assert str(error.value).endswith(f" cannot be written as {name.upper()}; write it as orrery")


def test_orca_has_the_sizes_and_times_of_a_whole_stage() -> None:
    """Multiplied by its NPUs, attention by request apart; collectives on a stage of its own."""
    row = Row("proj", BOTH, latency=50, input=(Location.REMOTE, 3, 10), weight=(Location.LOCAL, 0, 20),
              output=(Location.LOCAL, 0, 30), comm=(CommType.ALLREDUCE, 40), group=BOTH)  # fmt: skip
    attention = [Row("attn", (turn % 2,), latency=7, request=request) for turn, request in enumerate((4, 9, 6))]
    stream = gather(make_trace([row, *attention, row]), "orca")
    said = [(one.op, one.latency[0], one.input.bytes, one.weight.bytes, one.output.bytes, one.comm_bytes)
            for one in stream.records]  # fmt: skip
    assert said == [
        ("proj", 100, 20, 40, 60, 80),
        ("ATTENTION 0", 0, 0, 0, 0, 0), ("attn", 7, 0, 0, 0, 0),
        ("ATTENTION 1", 0, 0, 0, 0, 0), ("attn", 7, 0, 0, 0, 0),
        ("ATTENTION 2", 0, 0, 0, 0, 0), ("attn", 7, 0, 0, 0, 0),
        ("ATTENTION END", 0, 0, 0, 0, 0),
        ("proj", 100, 20, 40, 60, 80),
    ]  # fmt: skip
    assert (stream.rows, stream.attributes) == (9, {"format": "orca", "npu_group": "1"})


def test_a_section_that_ends_the_trace_is_closed() -> None:
    rows = [Row("a", BOTH), Row("attn", (0,), request=0)]
    assert [one.op for one in gather(make_trace(rows), "orca").records] == ["a", "ATTENTION 0", "attn", "ATTENTION END"]


def test_an_operator_of_the_whole_stage_ends_the_experts_before_it() -> None:
    rows = [Row("a", BOTH), Row("e", (0,)), Row("f", (1,)), Row("b", BOTH)]
    said = ["a", "EXPERT 0", "e", "EXPERT 1", "f", "EXPERT END", "b"]
    assert [one.op for one in gather(make_trace(rows), "colocated").records] == said


def test_where_a_stage_is_one_rank_its_experts_stay_together() -> None:
    """They run on the whole stage, too; only their combination ends them."""
    moved = [
        Row(op, (0,), RowKind.COMM, comm=(CommType.ALLTOALL, 8), group=(0,))
        for op in ("expert_dispatch", "expert_combine")
    ]
    rows = [Row("a"), moved[0], Row("e"), Row("f"), moved[1], Row("b")]
    said = ["a", "EXPERT 0", "e", "f", "EXPERT END", "b"]
    assert [one.op for one in gather(make_trace(rows), "colocated").records] == said


def test_stages_are_named_by_where_they_begin_and_what_is_moved_is_said_once() -> None:
    moved = [Row("kv_load", (stage,), RowKind.MEM_LOAD, stage=stage, input=(Location.REMOTE, 1, 9)) for stage in (0, 1)]
    rows = [moved[0], Row("a"), Row("b"), moved[1], Row("c", (1,), stage=1)]
    stream = gather(make_trace(rows), "colocated")
    assert [one.op for one in stream.records] == ["kv_load", "a", "b", "c"]
    assert stream.attributes == {"format": "colocated", "npu_group": "2", "pp_stage_boundaries": "2"}
