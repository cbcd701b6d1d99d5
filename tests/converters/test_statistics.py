"""Sums over a text trace, as they are printed."""

from __future__ import annotations

from converters.statistics import report, summarise
from converters.text import records
from tests.converters.traces import Row, make_trace
from trace_gen.trace import CommType, Location, RowKind, Trace

REMOTE = Location.REMOTE


def trace() -> Trace:
    rows = [
        Row("kv", (0, 1), RowKind.MEM_LOAD, input=(REMOTE, 0, 7)),
        Row("norm", (0, 1), latency=[100, 1], input=(Location.LOCAL, 0, 5), weight=(REMOTE, 0, 30)),
        Row("proj", (4,), latency=[300, 2], weight=(Location.LOCAL, 0, 4), stage=1, output=(REMOTE, 0, 11),
            comm=(CommType.ALLREDUCE, 64)),
        Row("norm", (0,), latency=[100, 3], output=(Location.LOCAL, 0, 9)),
        Row("sum", (0,), RowKind.COMM, comm=(CommType.ALLGATHER, 8)),
        Row("sum", (0,), RowKind.COMM, comm=(CommType.ALLREDUCE, 2)),
    ]  # fmt: skip
    return make_trace(rows, steps=2)


def test_a_report_line_by_line() -> None:
    assert report(summarise(records(trace()))).splitlines() == [
        "rows                6",
        "ranks, stages       5, 2",
        "compute time        500 ns (0.001 ms)",
        "weights read        34 bytes",
        "moved to the device 37 bytes",
        "moved off it        11 bytes",
        "ALLGATHER           1 collectives, 8 bytes",
        "ALLREDUCE           2 collectives, 66 bytes",
        "  proj                                      300 ns  60.00 %",
        "  norm                                      200 ns  40.00 %",
    ]


def test_one_step_of_several() -> None:
    found = summarise(records(trace()), 1)
    assert (found.compute_ns, found.time_by_op) == (6, {"norm": 4, "proj": 2})


def test_an_empty_trace_has_nothing_of_anything() -> None:
    text = report(summarise(records(make_trace([]))))
    assert text.splitlines()[:3] == [
        "rows                0",
        "ranks, stages       0, 0",
        "compute time        0 ns (0.000 ms)",
    ]
    assert report(summarise(records(make_trace([Row("x", kind=RowKind.COMM)])))).count("\n") == 5


def test_operators_of_no_time_have_no_share() -> None:
    silent = make_trace([Row("x", latency=0)])
    assert (
        report(summarise(records(silent))).splitlines()[-1]
        == "  x                                           0 ns   0.00 %"
    )
