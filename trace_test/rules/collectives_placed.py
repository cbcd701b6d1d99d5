"""Collectives stand where ranks must agree and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from trace_gen.trace import CommType, RowKind
from trace_test.operators import ROW_PARALLEL, VOCABULARY_PARALLEL
from trace_test.rule import Rule, Subject, Violation

MAY_COMMUNICATE = ROW_PARALLEL | VOCABULARY_PARALLEL
REDUCES = (CommType.ALLREDUCE, CommType.REDUCESCATTER)


def check(subject: Subject) -> Iterator[Violation]:
    """Compare every row's collective with what its operator needs."""
    trace = subject.trace
    assert trace is not None
    for row in range(trace.rows):
        comm, name = CommType(int(trace.comm_type[row])), trace.name(row)
        shared = len(trace.rank_sets[trace.rank_set[row]]) > 1
        if name in ROW_PARALLEL and shared and comm not in REDUCES:
            found = "no collective" if comm == CommType.NONE else f"an {comm.name}"
            yield Violation(subject.row(row), f"its output is a partial sum on every rank, but {found} follows")
        elif comm != CommType.NONE and not shared and trace.comm_group[row] < 0:
            yield Violation(subject.row(row), f"an {comm.name} on a single rank")
        elif comm != CommType.NONE and name not in MAY_COMMUNICATE and trace.kind[row] == RowKind.COMPUTE:
            yield Violation(subject.row(row), f"an {comm.name} follows, but every rank has all it needs")


RULE = Rule(
    name="collectives-placed",
    about="With tensor parallelism an ALLREDUCE (or REDUCESCATTER) follows the projections that sum over ranks "
    "(o_proj, down_proj, fc2); embedding and LM head may have one; no other operator does. Exchanges of experts and of "
    "attention placed by request are rows of their own.",
    cause="a collective attached to the neighbouring operator, or forgotten when an operator was added or renamed",
    needs="trace",
    check=check,
)
