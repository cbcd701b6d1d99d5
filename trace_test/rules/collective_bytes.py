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
    padded = _padded(trace) & (trace.comm_bytes > expected)
    fuller = _sent_to_fuller_ranks(subject) & (trace.comm_bytes <= expected)
    for row in np.flatnonzero(follows & (trace.comm_bytes != expected) & ~padded & ~fuller).tolist():
        side = "input" if of_input[row] else "output"
        what = f"the collective carries {int(trace.comm_bytes[row])} bytes, but the {side} is {int(expected[row])}"
        yield Violation(subject.row(row), what)
    silent = (trace.comm_type == CommType.NONE) & (trace.comm_bytes > 0) & (trace.kind != RowKind.COMPUTE)
    for row in np.flatnonzero(silent).tolist():
        yield Violation(subject.row(row), f"{int(trace.comm_bytes[row])} bytes of communication without a collective")


def _padded(trace: Trace) -> NDArray[np.bool_]:
    """Return the rows that ranks with different tokens run together: these may be padded to the most."""
    together: NDArray[np.bool_] = members(trace)[trace.rank_set] == TOGETHER
    if mesh_of(trace).context > 1:
        together[rows_named(trace, frozenset(EXPERT_EXCHANGES))] = True
    return together


def _sent_to_fuller_ranks(subject: Subject) -> NDArray[np.bool_]:
    """Return the rows by which tokens go to experts where the fullest rank has more experts than others."""
    trace, facts = subject.trace, subject.model
    assert trace is not None
    uneven = facts is not None and any(one.count % facts.mesh.expert for one in facts.architecture.mixtures)
    result: NDArray[np.bool_] = np.zeros(trace.rows, dtype=np.bool_)
    result[rows_named(trace, frozenset({"expert_dispatch"}))] = uneven
    return result


RULE = Rule(
    name="collective-bytes",
    about="A collective's bytes are those of its operator's output on one rank (for ALLGATHER, each rank's part: "
    "ASTRA-sim multiplies by the ranks itself; of an ALLGATHER that is a row of its own, that is the input, as are a "
    "REDUCESCATTER's full parts). What ranks with different tokens exchange may be padded to the most, and a rank with "
    "more experts than others gets more than it sends.",
    cause="bytes multiplied or divided by the number of ranks a second time, or of another operator",
    needs="trace",
    check=check,
)
