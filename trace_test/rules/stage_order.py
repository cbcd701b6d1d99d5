"""Pipeline stages are runs of rows and of layers, in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trace_gen.trace import NO_LAYER
from trace_test.operators import works
from trace_test.rule import Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Walk the rows that work and compare stages, layers and ranks."""
    trace = subject.trace
    assert trace is not None
    rows = works(trace)
    rows = rows[trace.stage[rows] >= 0]
    stages = trace.stage[rows]
    for at in np.flatnonzero(np.diff(stages) < 0).tolist():
        what = f"it is of stage {int(stages[at + 1])}, after stage {int(stages[at])} has begun"
        yield Violation(subject.row(int(rows[at + 1])), what)
    missing = sorted(set(range(int(stages.max(initial=-1)) + 1)) - set(stages.tolist()))
    if missing:
        yield Violation(f"stage {missing[0]}", "it has no operators")
    layers = trace.layer[rows]
    inside = np.flatnonzero(layers != NO_LAYER)
    for at in np.flatnonzero(np.diff(layers[inside]) < 0).tolist():
        yield Violation(subject.row(int(rows[inside[at + 1]])), "its layer comes before that of the row before it")
    owner: dict[int, int] = {}
    for row, rank_set, stage in zip(rows.tolist(), trace.rank_set[rows].tolist(), stages.tolist(), strict=True):
        for rank in trace.rank_sets[rank_set]:
            if owner.setdefault(rank, stage) != stage:
                yield Violation(subject.row(row), f"rank {rank} works for stage {owner[rank]} and stage {stage}")
                return


RULE = Rule(
    name="stage-order",
    about="Pipeline stages follow each other in the rows, each has operators and ranks of its own, and layers ascend: "
    "what crosses a boundary is then the hidden state of the last operator.",
    cause="a stage boundary inside a block of another stage, or a rank set of the wrong stage",
    needs="trace",
    check=check,
)
