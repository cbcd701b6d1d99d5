"""Explicit dependencies name earlier rows that exist."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trace_test.rule import Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Look at every dependency of every row."""
    trace = subject.trace
    assert trace is not None
    child = np.repeat(np.arange(trace.rows), np.diff(trace.dep_offsets))
    parent = trace.dep_rows
    for at in np.flatnonzero((parent < 0) | (parent >= trace.rows)).tolist():
        yield Violation(subject.row(int(child[at])), f"it waits for row {int(parent[at])}, which does not exist")
    for at in np.flatnonzero((parent >= child) & (parent < trace.rows)).tolist():
        yield Violation(subject.row(int(child[at])), f"it waits for row {int(parent[at])}, which comes later")


RULE = Rule(
    name="dependencies",
    about="A row waits only for earlier rows of the trace.",
    cause="row numbers taken before rows were inserted in front (KV movement), or of another sub-batch",
    needs="trace",
    check=check,
)
