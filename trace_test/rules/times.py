"""Operators take time, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trace_gen.trace import RowKind
from trace_test.rule import Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Look at every row's latency and sizes."""
    trace = subject.trace
    assert trace is not None
    compute, latency = trace.kind == RowKind.COMPUTE, trace.latency_ns
    for row in np.flatnonzero(compute & (latency.min(axis=0) < 1)).tolist():
        yield Violation(subject.row(row), f"it takes {int(latency[:, row].min())} ns; at least 1 is needed")
    for row in np.flatnonzero(~compute & (latency != 0).any(axis=0)).tolist():
        yield Violation(subject.row(row), "it computes nothing but has a latency")
    for name in ("input_bytes", "weight_bytes", "output_bytes", "comm_bytes"):
        for row in np.flatnonzero(getattr(trace, name) < 0).tolist():
            yield Violation(subject.row(row), f"its {name} are negative")


RULE = Rule(
    name="times",
    about="Every operator takes at least 1 ns (ASTRA-sim aborts on a first event at time 0); memory and communication "
    "rows have no latency, which the backend works out; no size is negative.",
    cause="a latency rounded down to 0 or taken from an empty table cell",
    needs="trace",
    check=check,
)
