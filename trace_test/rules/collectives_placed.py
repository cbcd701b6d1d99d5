"""Collectives stand where ranks must agree and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trace_gen.trace import CommType, RowKind, Trace
from trace_test.operators import (
    CONTEXT_EXCHANGES,
    EXPERT_EXCHANGES,
    EXPERT_SUM,
    NORMS,
    ROW_PARALLEL,
    SEQUENCE_EXCHANGES,
    SHARED_EXPERTS,
    VOCABULARY_PARALLEL,
    mesh_of,
)
from trace_test.rule import Rule, Subject, Violation

REDUCES = (CommType.ALLREDUCE, CommType.REDUCESCATTER)
EXCHANGES = EXPERT_EXCHANGES | SEQUENCE_EXCHANGES | CONTEXT_EXCHANGES


def check(subject: Subject) -> Iterator[Violation]:
    """Compare every row's collective with what its operator needs."""
    trace = subject.trace
    assert trace is not None
    names = {trace.op_names[op] for op in set(trace.op.tolist())}
    exchanged = EXPERT_EXCHANGES.keys() & names
    partial = ROW_PARALLEL | {SHARED_EXPERTS if exchanged else EXPERT_SUM}
    mesh, scattered = mesh_of(trace), "sequence_parallel" in trace.attributes
    alone = mesh.tensor == 1 and mesh.data * mesh.context > 1  # no other rank has a member's tokens
    ungathered = alone or scattered or EXPERT_SUM not in names
    needed = EXPERT_EXCHANGES.keys() - ({"expert_gather"} if ungathered else set())
    if exchanged and needed - exchanged:
        absent = sorted(needed - exchanged)[0]
        yield Violation("trace", f"experts on other ranks are reached by {sorted(exchanged)[0]}, but without {absent}")
    for row in range(trace.rows):
        comm, name = CommType(int(trace.comm_type[row])), trace.name(row)
        shared = len(trace.rank_sets[trace.rank_set[row]]) > mesh.context
        if scattered and (name in partial or name == "embedding"):
            if not _scattered(trace, row) and not _reduced_later(trace, row):
                yield Violation(subject.row(row), "its output is a partial sum, but no sequence_scatter follows it")
        elif name in partial and shared and comm not in REDUCES and not _reduced_later(trace, row):
            found = "no collective" if comm == CommType.NONE else f"an {comm.name}"
            yield Violation(subject.row(row), f"its output is a partial sum on every rank, but {found} follows")
        elif comm != CommType.NONE and not shared and trace.comm_group[row] < 0:
            yield Violation(subject.row(row), f"an {comm.name} on a single rank")
        elif shared and name in EXCHANGES and comm not in EXCHANGES[name]:
            expected = " or ".join(kind.name for kind in EXCHANGES[name])
            yield Violation(subject.row(row), f"an {comm.name}, but {expected} is expected")
        elif comm != CommType.NONE and name not in partial | VOCABULARY_PARALLEL and trace.kind[row] == RowKind.COMPUTE:
            yield Violation(subject.row(row), f"an {comm.name} follows, but every rank has all it needs")


def _reduced_later(trace: Trace, row: int) -> bool:
    """Whether the partial sums of `row` join those of a later projection of its block, which are reduced.

    So they do in a parallel block; a norm between the two would need the whole sum.
    """
    same = (trace.layer == trace.layer[row]) & (trace.rank_set == trace.rank_set[row])
    later = np.flatnonzero(same & (trace.sub_batch == trace.sub_batch[row]))
    for other in later[later > row].tolist():
        if trace.name(other) in NORMS:
            return False
        if trace.name(other) in ROW_PARALLEL:
            return CommType(int(trace.comm_type[other])) in REDUCES or _scattered(trace, other)
    return False


def _scattered(trace: Trace, row: int) -> bool:
    """Whether the row after `row` scatters what that puts out."""
    after = row + 1
    return (
        after < trace.rows
        and trace.comm_type[row] == CommType.NONE
        and trace.name(after) == "sequence_scatter"
        and trace.rank_set[after] == trace.rank_set[row]
        and trace.input_bytes[after] == trace.output_bytes[row]
    )


RULE = Rule(
    name="collectives-placed",
    about="With tensor parallelism an ALLREDUCE (or REDUCESCATTER) follows the projections that sum over ranks "
    "(o_proj, down_proj, fc2, expert_sum), or one those of both halves of a parallel block; embedding and LM head may "
    "have one; no other operator does. Exchanges of "
    "attention placed by request are rows of their own, and so are those of whole experts on ranks: ALLTOALL there and "
    "back, then ALLGATHER (expert_sum then has no ALLREDUCE, but shared experts have one of their own), or ALLGATHER "
    "before and REDUCESCATTER after them. With sequence-parallel norms a REDUCESCATTER is a row of its own after each "
    "of these projections, and an ALLGATHER one after each norm.",
    cause="a collective attached to the neighbouring operator, or forgotten when an operator was added or renamed",
    needs="trace",
    check=check,
)
