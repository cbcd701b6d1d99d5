"""Collectives stand where ranks must agree and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from trace_gen.trace import CommType, RowKind
from trace_test.operators import EXPERT_EXCHANGES, EXPERT_SUM, ROW_PARALLEL, SHARED_EXPERTS, VOCABULARY_PARALLEL
from trace_test.rule import Rule, Subject, Violation

REDUCES = (CommType.ALLREDUCE, CommType.REDUCESCATTER)


def check(subject: Subject) -> Iterator[Violation]:
    """Compare every row's collective with what its operator needs."""
    trace = subject.trace
    assert trace is not None
    exchanged = EXPERT_EXCHANGES.keys() & {trace.op_names[op] for op in set(trace.op.tolist())}
    partial = ROW_PARALLEL | {SHARED_EXPERTS if exchanged else EXPERT_SUM}
    if exchanged and exchanged != EXPERT_EXCHANGES.keys():
        absent = sorted(EXPERT_EXCHANGES.keys() - exchanged)[0]
        yield Violation("trace", f"experts on other ranks are reached by {sorted(exchanged)[0]}, but without {absent}")
    for row in range(trace.rows):
        comm, name = CommType(int(trace.comm_type[row])), trace.name(row)
        shared = len(trace.rank_sets[trace.rank_set[row]]) > 1
        if name in partial and shared and comm not in REDUCES:
            found = "no collective" if comm == CommType.NONE else f"an {comm.name}"
            yield Violation(subject.row(row), f"its output is a partial sum on every rank, but {found} follows")
        elif comm != CommType.NONE and not shared and trace.comm_group[row] < 0:
            yield Violation(subject.row(row), f"an {comm.name} on a single rank")
        elif name in EXPERT_EXCHANGES and comm != EXPERT_EXCHANGES[name]:
            yield Violation(subject.row(row), f"an {comm.name}, but it is an {EXPERT_EXCHANGES[name].name}")
        elif comm != CommType.NONE and name not in partial | VOCABULARY_PARALLEL and trace.kind[row] == RowKind.COMPUTE:
            yield Violation(subject.row(row), f"an {comm.name} follows, but every rank has all it needs")


RULE = Rule(
    name="collectives-placed",
    about="With tensor parallelism an ALLREDUCE (or REDUCESCATTER) follows the projections that sum over ranks "
    "(o_proj, down_proj, fc2, expert_sum); embedding and LM head may have one; no other operator does. Exchanges of "
    "attention placed by request are rows of their own, and so are those of whole experts on ranks: ALLTOALL there and "
    "back, then ALLGATHER (expert_sum then has no ALLREDUCE, but shared experts have one of their own).",
    cause="a collective attached to the neighbouring operator, or forgotten when an operator was added or renamed",
    needs="trace",
    check=check,
)
