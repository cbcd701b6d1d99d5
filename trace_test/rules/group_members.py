"""Ranks communicate in groups that they belong to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trace_gen.trace import CommType
from trace_test.rule import Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Compare each collective's group with the ranks that run the row."""
    trace = subject.trace
    assert trace is not None
    for row in np.flatnonzero((trace.comm_type != CommType.NONE) & (trace.comm_group >= 0)).tolist():
        group = set(trace.groups[trace.comm_group[row]])
        outside = sorted(set(trace.rank_sets[trace.rank_set[row]]) - group)
        if outside:
            yield Violation(subject.row(row), f"rank {outside[0]} runs it but is not in its communication group")
        elif group - set(trace.rank_sets[trace.rank_set[row]]):
            absent = min(group - set(trace.rank_sets[trace.rank_set[row]]))
            yield Violation(subject.row(row), f"rank {absent} is in its communication group but does not run it")


RULE = Rule(
    name="group-members",
    about="The ranks that run a row with a collective are exactly those of its communication group; a rank that is "
    "missing leaves the others waiting for ever.",
    cause="the group of another pipeline stage, or a rank set that was narrowed without its group",
    needs="trace",
    check=check,
)
