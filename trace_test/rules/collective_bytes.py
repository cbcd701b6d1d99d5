"""A collective carries the output of the operator that it follows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trace_gen.trace import CommType, RowKind, Trace
from trace_test.operators import EXPERT_EXCHANGES, TOGETHER, members, mesh_of, rows_named
from trace_test.rule import Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Compare communication bytes with output bytes."""
    trace = subject.trace
    assert trace is not None
    follows = (trace.comm_type != CommType.NONE) & ((trace.kind == RowKind.COMPUTE) | (trace.output_bytes > 0))
    of_input = (trace.kind == RowKind.COMM) & np.isin(trace.comm_type, (CommType.ALLGATHER, CommType.REDUCESCATTER))
    expected = np.where(of_input, trace.input_bytes, trace.output_bytes)
    back = rows_named(trace, frozenset({"expert_combine"}))
    back = back[trace.comm_type[back] == CommType.ALLTOALL]
    expected[back] = np.maximum(trace.input_bytes[back], trace.output_bytes[back])
    padded = _padded(trace) & (trace.comm_bytes > expected)
    gathers = np.isin(trace.comm_type, (CommType.ALLGATHER, CommType.REDUCESCATTER))
    padded |= _of_members(trace) & gathers & (trace.comm_bytes > 0)
    for row in np.flatnonzero(follows & (trace.comm_bytes != expected) & ~padded).tolist():
        side = "input" if of_input[row] else "output"
        what = f"the collective carries {int(trace.comm_bytes[row])} bytes, but the {side} is {int(expected[row])}"
        yield Violation(subject.row(row), what)
    silent = (trace.comm_type == CommType.NONE) & (trace.comm_bytes > 0) & (trace.kind != RowKind.COMPUTE)
    for row in np.flatnonzero(silent).tolist():
        yield Violation(subject.row(row), f"{int(trace.comm_bytes[row])} bytes of communication without a collective")


def _of_members(trace: Trace) -> NDArray[np.bool_]:
    """Return the rows that the members of a wave run together: what they gather is as much as all have, not padded."""
    together: NDArray[np.bool_] = members(trace)[trace.rank_set] == TOGETHER
    return together


def _padded(trace: Trace) -> NDArray[np.bool_]:
    """Return the rows that ranks with different tokens run together: these may be padded to the most."""
    together = _of_members(trace)
    if mesh_of(trace).context > 1:
        together[rows_named(trace, frozenset(EXPERT_EXCHANGES))] = True
    return together


RULE = Rule(
    name="collective-bytes",
    about="A collective's bytes are those of its operator's output on one rank (for ALLGATHER, each rank's part: "
    "ASTRA-sim multiplies by the ranks itself; of an ALLGATHER that is a row of its own, that is the input, as are a "
    "REDUCESCATTER's full parts; what comes back from experts has the larger of the two). What ranks with different "
    "tokens exchange may be padded to the most, and what they gather carries the mean.",
    cause="bytes multiplied or divided by the number of ranks a second time, or of another operator",
    needs="trace",
    check=check,
)
