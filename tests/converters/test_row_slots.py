"""Which nodes a row becomes by itself, against the picture in `converters.row_slots` read row by row."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings

from converters.lowering import lower
from converters.row_slots import COLL, COMP, LOAD_INPUT, LOAD_WEIGHT, SLOTS, STORE, row_slots
from tests.converters.random_traces import traces
from tests.converters.test_lowering import waits
from tests.converters.traces import Row, make_trace
from trace_gen.trace import CommType, Location, RowKind, Trace

AWAY = (Location.REMOTE, 0)


def expected(trace: Trace, row: int) -> set[int]:
    """Return the slots of one row, said plainly."""
    kind = trace.kind[row]
    if kind == RowKind.MEM_LOAD:
        return {LOAD_INPUT}
    if kind == RowKind.MEM_STORE:
        return {STORE}
    collective = {COLL} if trace.comm_type[row] != CommType.NONE else set()
    if kind == RowKind.COMM:
        return collective
    operands = {
        LOAD_INPUT: (trace.input_loc, trace.input_bytes),
        LOAD_WEIGHT: (trace.weight_loc, trace.weight_bytes),
        STORE: (trace.output_loc, trace.output_bytes),
    }
    moved = {slot for slot, (where, size) in operands.items() if where[row] != Location.LOCAL and size[row] > 0}
    return {COMP} | collective | moved


def found(trace: Trace) -> list[set[int]]:
    return [{slot for slot in range(SLOTS) if slots[slot]} for slots in row_slots(trace)]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(traces())
def test_slots_of_random_traces(trace: Trace) -> None:
    assert found(trace) == [expected(trace, row) for row in range(trace.rows)]


def test_slots_of_every_sort_of_row() -> None:
    """One at a time, and all in one trace: what is worked out for none of the rows is none of any."""
    rows = [
        Row(f"op{number}", (0, 1), kind, input=(*place, size), weight=(*place, size), output=(*place, size), comm=comm)
        for number, (kind, place, size, comm) in enumerate(
            product(RowKind, (AWAY, (Location.LOCAL, 0)), (0, 1), ((CommType.NONE, 0), (CommType.ALLREDUCE, 8)))
        )
    ]
    for some in (rows, *([row] for row in rows)):
        trace = make_trace(some)
        assert found(trace) == [expected(trace, row) for row in range(trace.rows)]
    assert len({frozenset(slots) for slots in found(make_trace(rows))}) >= 6


def test_a_row_that_only_awaits_data_is_awaited_by_its_transfer() -> None:
    """A COMM row without a collective has no node of its own; who waits for it waits for the RECV."""
    graph = lower(
        make_trace([
            Row("made", (0,), output=(Location.LOCAL, 0, 40)),
            Row("other", (1,)),
            Row("handed", (1,), RowKind.COMM, deps=(0,)),
            Row("after", (1,), deps=(2,)),
        ])
    )  # fmt: skip
    sender, receiver = graph.rank_graphs
    assert waits(sender) == {"made": [], "made.send": ["made"]}
    assert waits(receiver)["after"] == ["handed.recv"]
    assert receiver.comm_size[list(waits(receiver)).index("handed.recv")] == 40
